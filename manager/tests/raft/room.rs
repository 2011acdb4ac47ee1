//! Disks that fill up: nothing is written on them for callers, reading goes on, and so does the
//! store when there is room again.

use weft_manager::store::{LogLimits, ProposeError};

use crate::support::{BookStore, Cluster, Write, eventually};

/// Free bytes kept back in these tests.
const RESERVE: u64 = 1000;
/// Below the reserve, and not yet so little that the leader's entries are refused.
const LOW: u64 = 500;

fn cluster() -> Cluster {
    Cluster::in_memory(|config| config.limits = LogLimits { reserve: RESERVE, ..config.limits })
}

async fn refused(store: &BookStore) -> ProposeError {
    store.propose(Write("refused".into())).await.expect_err("there is no room")
}

#[tokio::test(start_paused = true)]
async fn a_manager_alone_refuses_reads_on_and_comes_back() {
    let mut cluster = cluster();
    cluster.grow(1).await;
    let store = cluster.store(1).clone();
    cluster.write("before").await;
    for free in [LOW, 0] {
        cluster.memory(1).set_free(free);
        assert_eq!(refused(&store).await, ProposeError::NoRoom { free, reserve: RESERVE });
        assert_eq!(store.no_room(), Some((free, RESERVE)));
        store.read_barrier().await.expect("reads go on");
    }
    cluster.memory(1).set_free(RESERVE);
    cluster.write("after").await;
    assert_eq!(store.view().texts(), ["before", "after"]);
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_disk_is_full_lets_another_one_lead() {
    let mut cluster = cluster();
    cluster.grow(3).await;
    cluster.write("before").await;
    let full = cluster.leader().await.status().number;
    cluster.memory(full).set_free(LOW);
    let stays_full = cluster.store(full).clone();
    eventually("another one leads", || {
        let now = stays_full.leadership().borrow().clone();
        now.leader.is_some_and(|leader| leader.number != full)
    })
    .await;
    let last = cluster.write("meanwhile").await;
    // It follows on what is kept in reserve.
    cluster.settled(last).await;
    cluster.memory(full).set_free(0);
    cluster.write("without it").await;
    cluster.memory(full).set_free(RESERVE);
    let last = cluster.write("after").await;
    cluster.settled(last).await;
    assert_eq!(stays_full.view().texts(), ["before", "meanwhile", "without it", "after"]);
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_majority_that_has_room_the_disks_are_named() {
    let mut cluster = cluster();
    cluster.grow(3).await;
    cluster.write("before").await;
    let leader = cluster.leader().await;
    let number = leader.status().number;
    let others: Vec<u64> = (1..=3).filter(|other| *other != number).collect();
    for other in &others {
        cluster.memory(*other).set_free(0);
    }
    // The leader hears of it with the next heartbeats, which go on.
    let mut heard = Err(ProposeError::NoQuorum);
    for n in 0..100 {
        heard = leader.propose(Write(n.to_string())).await;
        if matches!(heard, Err(ProposeError::NoRoomElsewhere { .. })) {
            break;
        }
    }
    assert_eq!(heard, Err(ProposeError::NoRoomElsewhere { managers: others.clone() }));
    leader.read_barrier().await.expect("reads go on");
    cluster.memory(others[0]).set_free(RESERVE);
    cluster.write("after").await;
    for store in cluster.nodes.values() {
        assert_eq!(store.store.condemned().borrow().clone(), None);
    }
    cluster.close().await;
}
