//! Sizes and queues.

use std::sync::atomic::Ordering;
use std::time::Duration;

use weft_manager::store::{MAX_MESSAGE_BYTES, MAX_PROPOSAL_BYTES, ProposeError};

use crate::support::{Cluster, Write};

#[tokio::test(start_paused = true)]
async fn a_proposal_over_the_limit_is_refused_with_its_size() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(1).await;
    let refused = cluster.store(1).propose(Write("x".repeat(MAX_PROPOSAL_BYTES))).await;
    let Err(ProposeError::TooBig { size, limit: MAX_PROPOSAL_BYTES }) = refused else {
        panic!("{refused:?}");
    };
    assert!(size > MAX_PROPOSAL_BYTES);
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn no_message_is_over_the_limit() {
    let mut cluster = Cluster::in_memory(|config| {
        config.limits.snapshot_after = 10;
        config.limits.keep = 5;
    });
    cluster.grow(2).await;
    let big = "x".repeat(MAX_PROPOSAL_BYTES - 64);
    // A learner that starts late gets a long log, or a snapshot of many megabytes.
    for _ in 0..12 {
        cluster.write(&big).await;
    }
    cluster.learn(3).await;
    let last = cluster.write("the end").await;
    cluster.settled(last).await;
    assert_eq!(cluster.store(3).view().lines.len(), 13);
    for node in cluster.nodes.values() {
        let largest = node.link.largest.load(Ordering::Relaxed);
        assert!(largest <= MAX_MESSAGE_BYTES, "a message of {largest} bytes");
    }
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_named() {
    let mut cluster = Cluster::in_memory(|config| {
        config.proposals_in_flight = 1;
        config.deadline = Duration::from_millis(300);
    });
    cluster.grow(1).await;
    let store = cluster.leader().await;
    cluster.memory(1).set_sync_time(Duration::from_millis(250));
    let slow: Vec<_> = (0..4)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.propose(Write(n.to_string())).await })
        })
        .collect();
    let mut overloaded = 0;
    for one in slow {
        if let Err(ProposeError::Overloaded { limit: 1, .. }) = one.await.expect("no panic") {
            overloaded += 1;
        }
    }
    assert!(overloaded >= 1, "four proposals through a queue of one in 300 ms");
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_closed_store_says_so() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(1).await;
    let store = cluster.store(1).clone();
    cluster.close().await;
    assert_eq!(store.propose(Write("x".into())).await, Err(ProposeError::Closed));
    assert!(tokio::time::timeout(Duration::from_millis(50), store.fatal()).await.is_err());
}
