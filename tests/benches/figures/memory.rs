//! Memory of the daemon of a node that is manager and worker, and of what holds each container.

use std::fs;

use weft_tests::eventually;

use crate::{
    cluster::{Cluster, PATIENCE},
    figure::Bench,
    report::{Goal, Row},
    stats::Sample,
};

const NETWORK: &str = "memory";
const SUBNET: &str = "10.34.0.0/24";
const SERVICE: &str = "idle";
const CONTAINERS: &str = "20";
/// MB as the goals count: 1024 kB of /proc.
const KB_OF_MB: f64 = 1024.0;

/// What /proc tells of some processes, in MB.
#[derive(Default)]
struct Memory {
    /// Resident, shared pages in full.
    resident: Sample,
    /// Each shared page divided by those who share it.
    proportional: Sample,
    /// Of the resident, what no file is behind.
    anonymous: Sample,
    shim: Sample,
}

pub fn run(bench: &Bench) {
    let ours = measure(&*bench.ours("bench-memory", 1, 0));
    let peer = bench.peer("bench-memory-peer", 1, 0);
    let peer = peer.map(|peer| measure(&*peer)).unwrap_or_default();
    bench.page.put(
        "memory",
        &[
            Row::bound("daemon, RSS", "MB", &ours.resident, &peer.resident, Goal::AtMost(30.0)),
            Row::bound("daemon, PSS", "MB", &ours.proportional, &peer.proportional, Goal::None),
            Row::bound("daemon, anonymous", "MB", &ours.anonymous, &peer.anonymous, Goal::None),
            Row::bound("one shim, PSS", "MB", &ours.shim, &peer.shim, Goal::AtMost(1.5)),
        ],
        &[format!(
            "One node, manager and worker, {CONTAINERS} containers on an overlay: `VmRSS` and `RssAnon` of \
             /proc/PID/status, `Pss` of /proc/PID/smaps_rollup. The peer's daemon is dockerd and containerd. \
             The goals bind ours, not the ratio."
        )],
    );
}

fn measure(cluster: &dyn Cluster) -> Memory {
    cluster.network(NETWORK, SUBNET);
    cluster.create(SERVICE, NETWORK, &["--replicas", CONTAINERS], &["sleep", "1000000"]);
    cluster.wait_full(SERVICE);
    settle(cluster);
    let daemons = cluster.daemons(1);
    let sum = |file: &str, field: &str| -> Sample {
        [daemons.iter().filter_map(|pid| megabytes(*pid, file, field)).sum::<f64>()]
            .into_iter()
            .collect()
    };
    let shims = cluster.shims();
    assert_eq!(shims.len().to_string(), CONTAINERS, "one shim for each container");
    Memory {
        resident: sum("status", "VmRSS:"),
        proportional: sum("smaps_rollup", "Pss:"),
        anonymous: sum("status", "RssAnon:"),
        shim: shims.iter().filter_map(|pid| megabytes(*pid, "smaps_rollup", "Pss:")).collect(),
    }
}

/// Waits until the daemons have taken no memory for a while.
pub fn settle(cluster: &dyn Cluster) {
    /// Looks that must agree.
    const CALM: usize = 20;
    let read = || {
        cluster.daemons(1).iter().filter_map(|pid| megabytes(*pid, "status", "VmRSS:")).sum::<f64>()
    };
    let (mut last, mut calm) = (0.0, 0);
    eventually("the daemon takes no more memory", PATIENCE, || {
        let (now, before) = (read(), last);
        last = now;
        // A page or two come and go with every timer.
        calm = if (now - before).abs() < 0.1 { calm + 1 } else { 0 };
        if calm >= CALM { Ok(()) } else { Err(format!("{before} MB, then {now} MB")) }
    });
}

pub fn megabytes(pid: i32, file: &str, field: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok().map(|kb| kb / KB_OF_MB)
}
