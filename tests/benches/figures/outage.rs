//! How long a cluster is without a leader when its leader is killed, and how long it still tells the
//! addresses of a node that has lost its network.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{
    cluster::{Cluster, PATIENCE, now},
    figure::Bench,
    report::{Goal, Row},
    stats::Sample,
};

const NETWORK: &str = "outage";
const SUBNET: &str = "10.35.0.0/24";
const CLIENTS: &str = "clients";
const SERVICE: &str = "web";
const NODES: usize = 3;
const REPLICAS: usize = 6;
/// Times that a leader is killed, each in a new cluster: two of three do not elect.
const KILLS: usize = 3;

pub fn run(bench: &Bench) {
    let [mut own, mut others] = [(); 2].map(|()| Sample::default());
    for _ in 0..KILLS {
        own.add(leader(&*bench.ours("bench-leader", NODES, 0)).as_secs_f64());
        if let Some(peer) = bench.peer("bench-leader-peer", NODES, 0) {
            others.add(leader(&*peer).as_secs_f64());
        }
    }
    let [own_hidden, own_replaced] = lost(&*bench.ours("bench-lost", 1, NODES - 1));
    let peer = bench.peer("bench-lost-peer", 1, NODES - 1).map(|peer| lost(&*peer));
    let [hidden, replaced] = peer.unwrap_or_default();
    bench.page.put(
        "outage",
        &[
            Row::ratio("leader killed, until the next write", "s", &own, &others, Goal::None),
            Row::ratio("node lost, until its addresses are hidden", "s", &own_hidden, &hidden, Goal::None),
            Row::ratio("node lost, until its tasks are replaced", "s", &own_replaced, &replaced, Goal::None),
        ],
        &[format!(
            "Leader: `kill -9` of one of {NODES} managers, then `network create` on another until it succeeds; \
             {KILLS} new clusters. Node: all packets of one of {NODES} nodes are dropped; a container on \
             another asks for a service of {REPLICAS} tasks."
        )],
    );
}

/// Kills the first manager, which leads because it made the cluster.
fn leader(cluster: &dyn Cluster) -> Duration {
    for host in 1..=NODES {
        // All know the whole before one goes.
        weft_tests::eventually("all managers answer", PATIENCE, || {
            cluster.say(host, &["node", "ls"]).text()
        });
    }
    let start = Instant::now();
    cluster.kill9(1);
    for attempt in 0_u32.. {
        let name = format!("again-{attempt}");
        let said = cluster.say(2, &["network", "create", "-d", "overlay", &name]);
        if said.code == 0 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "no write is accepted: {said}");
    }
    start.elapsed()
}

/// Seconds until the addresses of a lost node are hidden, and until others have replaced them.
fn lost(cluster: &dyn Cluster) -> [Sample; 2] {
    cluster.network(NETWORK, SUBNET);
    cluster.create(CLIENTS, NETWORK, &["--mode", "global"], &["sleep", "1000000"]);
    let replicas = REPLICAS.to_string();
    cluster.create(SERVICE, NETWORK, &["--replicas", &replicas], &["sleep", "1000000"]);
    cluster.wait_full(CLIENTS);
    cluster.wait_full(SERVICE);
    let watch = cluster.watch(1, CLIENTS, SERVICE);
    let before = watch.until("all addresses", |addresses| addresses.len() == REPLICAS);
    let before: BTreeSet<String> = before.addresses.into_iter().collect();
    let start = now();
    cluster.lab().cut(NODES);
    let gone = REPLICAS - REPLICAS / NODES;
    let known = |addresses: &[String]| addresses.iter().filter(|a| before.contains(*a)).count();
    let hidden = watch.until("the lost are hidden", |addresses| known(addresses) <= gone);
    let replaced = if hidden.addresses.len() == REPLICAS {
        hidden.clone()
    } else {
        watch.until("the lost are replaced", |addresses| addresses.len() == REPLICAS)
    };
    let seconds = |at: Duration| [at.saturating_sub(start).as_secs_f64()].into_iter().collect();
    [seconds(hidden.at), seconds(replaced.at)]
}
