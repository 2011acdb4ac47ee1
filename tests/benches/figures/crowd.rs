//! Many containers on one bridge: how long their start takes, and their memory.

use crate::{
    cluster::Cluster,
    figure::Bench,
    local::{self, detached, timed},
    memory::{megabytes, settle},
    report::{Goal, Row},
    stats::Sample,
};

const NETWORK: &str = "crowd";
/// 254 addresses, one of them the gateway's.
const SUBNET: &str = "10.43.0.0/24";
/// Containers of a batch; batches of ours and of the peer take turns.
const BATCH: usize = 25;
const BATCHES: usize = 8;
/// Commands at a time.
const PARALLEL: usize = 8;

#[derive(Default)]
struct Found {
    /// Seconds for each batch.
    batches: Sample,
    daemon: Sample,
    shims: Sample,
}

pub fn run(bench: &Bench) {
    let engines = bench.engines("bench-crowd");
    let mut found = [Found::default(), Found::default()];
    for engine in &engines {
        local::bridge(&**engine, NETWORK, SUBNET);
    }
    for batch in 0..BATCHES {
        for (engine, found) in engines.iter().zip(&mut found) {
            found.batches.add(start(&**engine, batch));
        }
    }
    for (engine, found) in engines.iter().zip(&mut found) {
        memory(&**engine, found);
    }
    let [ours, peer] = &found;
    let all = |found: &Found| [found.batches.sum()].into_iter().collect::<Sample>();
    let count = BATCH * BATCHES;
    bench.page.put(
        "crowd",
        &[
            Row::ratio(&format!("start of all {count}"), "s", &all(ours), &all(peer), Goal::None),
            Row::ratio(&format!("start of {BATCH} of them"), "s", &ours.batches, &peer.batches, Goal::None),
            Row::ratio("daemon, RSS", "MB", &ours.daemon, &peer.daemon, Goal::None),
            Row::ratio(&format!("all {count} shims, PSS"), "MB", &ours.shims, &peer.shims, Goal::None),
        ],
        &[format!(
            "`run -d --network {NETWORK} IMAGE sleep 1000000`, {PARALLEL} at a time, in {BATCHES} batches of {BATCH} \
             that take turns with the peer's. The peer's daemon is dockerd and containerd; the memory is read as above."
        )],
    );
}

/// Seconds until a batch has been started.
fn start(engine: &dyn Cluster, batch: usize) -> f64 {
    let commands = (0..BATCH).map(|n| {
        let name = format!("c{batch}-{n}");
        detached(engine, &name, &["--network", NETWORK], &["sleep", "1000000"])
    });
    timed(commands.collect(), PARALLEL).as_secs_f64()
}

fn memory(engine: &dyn Cluster, found: &mut Found) {
    settle(engine);
    let shims = engine.shims();
    assert_eq!(shims.len(), BATCH * BATCHES, "one shim for each container");
    let sum = |pids: &[i32], file: &str, field: &str| -> f64 {
        pids.iter().filter_map(|pid| megabytes(*pid, file, field)).sum()
    };
    found.daemon.add(sum(&engine.daemons(1), "status", "VmRSS:"));
    found.shims.add(sum(&shims, "smaps_rollup", "Pss:"));
}
