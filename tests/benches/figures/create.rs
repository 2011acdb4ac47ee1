//! From `service create` until all tasks run and their name is complete on every node.

use std::time::{Duration, Instant};

use crate::{
    cluster::{Cluster, now},
    figure::Bench,
    report::{Goal, Row},
    stats::Sample,
};

const NETWORK: &str = "shop";
const SUBNET: &str = "10.32.0.0/24";
/// One task on each node, from which the name is watched.
const CLIENTS: &str = "clients";
const SERVICE: &str = "web";
const NODES: usize = 3;
const REPLICAS: usize = 30;
const ROUNDS: usize = 2;
/// Clock ticks of a second in /proc/PID/stat: fixed in the kernel's interface (`USER_HZ`).
const TICKS: f64 = 100.0;

pub fn run(bench: &Bench) {
    let ours = bench.ours("bench-create", 1, NODES - 1);
    let peer = bench.peer("bench-create-peer", 1, NODES - 1);
    prepare(&*ours);
    if let Some(peer) = &peer {
        prepare(&**peer);
    }
    let [mut own, mut own_cpu, mut others] = [(); 3].map(|()| Sample::default());
    for _ in 0..ROUNDS {
        let before = cpu(&*ours);
        own.add(round(&*ours).as_secs_f64());
        own_cpu.add((cpu(&*ours) - before) * 1e3 / REPLICAS as f64);
        ours.remove(SERVICE);
        if let Some(peer) = &peer {
            others.add(running(&**peer).as_secs_f64());
            peer.remove(SERVICE);
        }
    }
    bench.page.put(
        "create",
        &[Row::ratio("30 tasks run and resolve everywhere", "s", &own, &others, Goal::AtMost(0.2))],
        &[format!(
            "{ROUNDS} rounds, in turns: `service create -d --replicas {REPLICAS} --endpoint-mode dnsrr`; over \
             when a query from a container on each of the {NODES} nodes gives all {REPLICAS} addresses and \
             `service ls` shows {REPLICAS}/{REPLICAS}; the peer's is over when `service ls` shows it. Processor time of our daemons and the helpers they \
             ended: {} for each task.",
            own_cpu.show("ms")
        )],
    );
}

fn prepare(cluster: &dyn Cluster) {
    cluster.network(NETWORK, SUBNET);
    let command = ["sleep", "1000000"];
    cluster.create(CLIENTS, NETWORK, &["--mode", "global", "--stop-grace-period", "1s"], &command);
    cluster.wait_full(CLIENTS);
}

/// Makes the service; waits until all tasks run and the name is complete everywhere.
fn round(cluster: &dyn Cluster) -> Duration {
    let watches: Vec<_> = (1..=NODES).map(|host| cluster.watch(host, CLIENTS, SERVICE)).collect();
    for watch in &watches {
        // It runs and asks: nothing of the last round is left.
        watch.until("no such service", <[String]>::is_empty);
    }
    let (start, clock) = (now(), Instant::now());
    order(cluster);
    let resolved = watches.iter().map(|watch| {
        let seen = watch.until("all addresses", |addresses| addresses.len() == REPLICAS);
        seen.at.saturating_sub(start)
    });
    let resolved = resolved.max().unwrap_or_default();
    // Only if the list is behind the names does looking at it count.
    match cluster.full(SERVICE) {
        Ok(()) => resolved,
        Err(_) => {
            cluster.wait_full(SERVICE);
            clock.elapsed()
        }
    }
}

/// Makes the service; waits until all tasks run. Less than is asked of ours: the peer's names were not
/// complete on every node within a minute in this lab, for a reason that may lie in the lab.
fn running(cluster: &dyn Cluster) -> Duration {
    let clock = Instant::now();
    order(cluster);
    cluster.wait_full(SERVICE);
    clock.elapsed()
}

fn order(cluster: &dyn Cluster) {
    let replicas = REPLICAS.to_string();
    let flags = ["--replicas", &replicas, "--stop-grace-period", "1s"];
    cluster.create(SERVICE, NETWORK, &flags, &["sleep", "1000000"]);
}

/// Seconds of processor time of all daemons and of their children that have ended.
fn cpu(cluster: &dyn Cluster) -> f64 {
    let pids = (1..=NODES).flat_map(|host| cluster.daemons(host));
    let texts = pids.filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok());
    texts.map(|text| ticks(&text)).sum::<f64>() / TICKS
}

/// utime, stime, cutime and cstime: fields 14 to 17 (proc_pid_stat(5)), the first two before ")".
fn ticks(stat: &str) -> f64 {
    let behind = stat.rsplit(") ").next().unwrap_or_default();
    behind.split(' ').skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum()
}
