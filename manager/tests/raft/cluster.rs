//! Replication, elections, forwarding, restarts.

use std::time::Duration;

use tokio::time::Instant;
use weft_manager::store::{ProposeError, Role};

use crate::support::{Cluster, Write, eventually};

#[tokio::test(start_paused = true)]
async fn three_managers_agree() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(3).await;
    let (index, count) =
        cluster.leader().await.propose(Write("a".into())).await.expect("committed");
    assert_eq!(count, 1);
    let last = cluster.write("b").await;
    assert!(last > index);
    cluster.settled(last).await;
    for number in 1..=3 {
        assert_eq!(cluster.store(number).view().texts(), ["a", "b"], "manager {number}");
    }
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_names_the_leader() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(3).await;
    let leader = cluster.leader().await.boot();
    for node in cluster.nodes.values().filter(|node| node.store.boot() != leader) {
        eventually("the follower knows its leader", || {
            node.store.leadership().borrow().leader.is_some()
        })
        .await;
        let refused = node.store.propose(Write("x".into())).await;
        let Err(ProposeError::NotLeader { leader: Some(peer) }) = refused else {
            panic!("not refused by name: {refused:?}");
        };
        assert_eq!(cluster.store(peer.number).boot(), leader);
        assert_eq!(peer.address, format!("host-{}", peer.number));
    }
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_leader_is_replaced_and_nothing_is_lost() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(3).await;
    cluster.write("before").await;
    let old = cluster.leader().await.status().number;
    cluster.kill(old).await;
    let died = Instant::now();
    let last = cluster.write("after").await;
    let took = died.elapsed();
    assert!(took < Duration::from_millis(1500), "replaced after {took:?}");
    cluster.start(old).await;
    cluster.settled(last).await;
    for number in 1..=3 {
        assert_eq!(cluster.store(number).view().texts(), ["before", "after"]);
    }
    eventually("the old leader follows", || {
        cluster.store(old).leadership().borrow().role == Role::Follower
    })
    .await;
    cluster.close().await;
}

#[tokio::test]
async fn all_restart_from_disk() {
    let mut cluster = Cluster::on_disk(|_| {});
    cluster.grow(3).await;
    for n in 0..20 {
        cluster.write(&format!("line {n}")).await;
    }
    let before = cluster.leader().await.view().texts();
    for number in 1..=3 {
        cluster.kill(number).await;
    }
    for number in 1..=3 {
        let store = cluster.start(number).await;
        assert_eq!(store.voters().len(), 3, "it knows the members at once");
    }
    let last = cluster.write("after").await;
    cluster.settled(last).await;
    let mut expected = before;
    expected.push("after".into());
    for number in 1..=3 {
        assert_eq!(cluster.store(number).view().texts(), expected, "manager {number}");
        assert_eq!(cluster.store(number).boot().generation, 2);
    }
    cluster.close().await;
}

/// What the simulation found: a leader commits with two others while its own disk is slow, loses
/// power, and must not go on in its old term with a log that is shorter than what it committed.
#[tokio::test(start_paused = true)]
async fn a_restarted_leader_does_not_use_a_place_in_the_log_twice() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(3).await;
    let leader = cluster.leader().await;
    let number = leader.status().number;
    cluster.memory(number).set_sync_time(Duration::from_secs(3600));
    let (index, _) = leader.propose(Write("by the others".into())).await.expect("committed");
    cluster.kill(number).await;
    cluster.memory(number).set_sync_time(Duration::ZERO);
    cluster.start(number).await;
    let next = cluster.write("after").await;
    assert!(next > index, "place {index} was given twice");
    cluster.settled(next).await;
    for number in 1..=3 {
        assert_eq!(cluster.store(number).view().texts(), ["by the others", "after"]);
    }
    cluster.close().await;
}
