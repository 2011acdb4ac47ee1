//! Cut networks.

use std::time::Duration;

use weft_manager::store::{ProposeError, ReadError};

use crate::support::{Cluster, Write, eventually};

#[tokio::test(start_paused = true)]
async fn a_leader_without_majority_neither_writes_nor_reads_nor_says_it_leads() {
    let mut cluster = Cluster::in_memory(|config| config.deadline = Duration::from_secs(1));
    cluster.grow(3).await;
    cluster.write("before").await;
    let old = cluster.leader().await;
    let number = old.status().number;
    cluster.net.isolate(number);
    let alone = cluster.nodes.remove(&number).expect("runs");
    let read = old.read_barrier().await;
    assert!(
        matches!(
            read,
            Err(ReadError::NoQuorum | ReadError::Timeout { .. } | ReadError::NotLeader { .. })
        ),
        "{read:?}"
    );
    eventually("it does not say any more that it leads", || !old.leadership().borrow().is_leader())
        .await;
    let written = old.propose(Write("lost".into())).await;
    assert!(
        matches!(
            written,
            Err(ProposeError::NoQuorum
                | ProposeError::Unknown { .. }
                | ProposeError::NotLeader { .. })
        ),
        "{written:?}"
    );
    cluster.write("meanwhile").await;
    cluster.nodes.insert(number, alone);
    cluster.net.heal();
    let last = cluster.write("after").await;
    cluster.settled(last).await;
    let texts = old.view().texts();
    assert_eq!(texts.first().map(String::as_str), Some("before"));
    assert!(texts.ends_with(&["meanwhile".to_owned(), "after".to_owned()]), "{texts:?}");
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_was_cut_off_does_not_disturb_the_leader() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(3).await;
    let leader = cluster.leader().await;
    let term = leader.leadership().borrow().term;
    let away = if leader.status().number == 3 { 2 } else { 3 };
    cluster.net.isolate(away);
    let cut = cluster.store(away).clone();
    // It asks the other two again and again: without pre-votes its term would climb now.
    eventually("it has asked for votes several times", || cluster.net.lost(away) >= 2 * 3).await;
    assert_eq!(cut.status().mark.term, term);
    cluster.net.heal();
    let last = cluster.write("after").await;
    cluster.settled(last).await;
    assert_eq!(cluster.leader().await.leadership().borrow().term, term, "no election was caused");
    cluster.close().await;
}
