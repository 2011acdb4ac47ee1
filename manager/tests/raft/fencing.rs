//! Stores that forgot, went back or were copied must not take part; others must not notice.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use weft_manager::store::{Backend, Incarnation, Member, MemberError, MemoryDisk, Refusal};

use crate::support::{BookStore, Cluster, Link, eventually};

fn other_than(number: u64) -> u64 {
    if number == 3 { 2 } else { 3 }
}

/// The cluster goes on with the manager that is left besides the leader.
async fn assert_healthy(cluster: &Cluster) {
    cluster.write("healthy").await;
    let leader = cluster.leader().await;
    let alive = tokio::time::timeout(Duration::ZERO, leader.fatal()).await;
    assert!(alive.is_err(), "the leader died: {alive:?}");
}

async fn condemned(store: &BookStore) -> Refusal {
    let mut condemned = store.condemned();
    eventually("the store is told that it must not take part", || condemned.borrow().is_some())
        .await;
    let refusal = condemned.borrow_and_update().clone();
    refusal.expect("just seen")
}

#[tokio::test(start_paused = true)]
async fn a_wiped_manager_is_refused_and_the_leader_lives() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(3).await;
    cluster.write("line").await;
    let victim = other_than(cluster.leader().await.status().number);
    let expected = cluster.store(victim).boot().incarnation;
    cluster.kill(victim).await;
    cluster.disks.insert(victim, Backend::Memory(MemoryDisk::default()));
    let wiped = cluster.start(victim).await;
    let shown = wiped.boot().incarnation;
    assert_ne!(expected, shown);
    let reason = condemned(&wiped).await;
    assert_eq!(reason, Refusal::IncarnationChanged { number: victim, expected, shown });
    assert_healthy(&cluster).await;
    let refusals = cluster.leader().await.status().refusals;
    assert_eq!(refusals.get(&victim), Some(&reason), "the leader shows why");
    assert!(wiped.view().texts().is_empty(), "it got nothing");
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_from_an_image_before_its_last_start_is_refused() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(3).await;
    let victim = other_than(cluster.leader().await.status().number);
    let image = cluster.memory(victim).image();
    cluster.kill(victim).await;
    cluster.start(victim).await;
    let last = cluster.write("line").await;
    cluster.settled(last).await;
    cluster.kill(victim).await;
    cluster.disks.insert(victim, Backend::Memory(image));
    let restored = cluster.start(victim).await;
    let reason = condemned(&restored).await;
    assert!(matches!(reason, Refusal::Copied { number, .. } if number == victim), "{reason}");
    assert_healthy(&cluster).await;
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_rolled_back_within_its_last_run_is_refused() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(3).await;
    let last = cluster.write("in the image").await;
    cluster.settled(last).await;
    let leader = cluster.leader().await.status().number;
    let victim = other_than(leader);
    let image = cluster.memory(victim).image();
    let last = cluster.write("not in the image").await;
    cluster.settled(last).await;
    cluster.kill(victim).await;
    cluster.disks.insert(victim, Backend::Memory(image));
    let restored = cluster.start(victim).await;
    let reason = condemned(&restored).await;
    assert!(matches!(reason, Refusal::RolledBack { number, .. } if number == victim), "{reason}");
    assert_healthy(&cluster).await;
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_rolled_back_manager_does_not_help_a_stale_one_to_lead() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(3).await;
    let leader = cluster.leader().await.status().number;
    let stale = other_than(leader);
    let victim = 6 - leader - stale;
    let image = cluster.memory(victim).image();
    let first = cluster.write("seen by all").await;
    cluster.settled(first).await;
    // Everybody hears of the victim's progress with the next heartbeats.
    let told = cluster.store(stale).clone();
    eventually("the third manager has heard", || {
        told.status().remembered.get(&victim).is_some_and(|known| known.mark.index >= first)
    })
    .await;
    cluster.net.isolate(stale);
    cluster.write("seen by two").await;
    cluster.kill(victim).await;
    cluster.kill(leader).await;
    cluster.net.heal();
    cluster.disks.insert(victim, Backend::Memory(image));
    let restored = cluster.start(victim).await;
    condemned(&restored).await;
    // Two of three run, and yet there must be no leader: one of them has lost a committed entry.
    let leads = async {
        loop {
            if told.leadership().borrow().is_leader() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(2), leads).await.is_err());
    cluster.start(leader).await;
    cluster.write("after").await;
    let texts = cluster.leader().await.view().texts();
    assert_eq!(texts, ["seen by all", "seen by two", "after"]);
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_copies_one_wins_and_the_other_is_told() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(3).await;
    let last = cluster.write("line").await;
    cluster.settled(last).await;
    let victim = other_than(cluster.leader().await.status().number);
    let original = cluster.nodes.remove(&victim).expect("runs");
    let image = cluster.memory(victim).image();
    cluster.disks.insert(victim, Backend::Memory(image));
    // The copy takes over the address; the original still runs and can still send.
    let copy = cluster.start(victim).await;
    let last = cluster.write("to the copy").await;
    cluster.settled(last).await;
    let reason = condemned(&original.store).await;
    assert!(matches!(reason, Refusal::OldStart { number, .. } if number == victim), "{reason}");
    assert_eq!(*copy.condemned().borrow(), None);
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn strangers_are_refused_by_name() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(1).await;
    let mut foreign = Cluster::in_memory(|config| config.cluster_id = "foreign".into());
    foreign.net = cluster.net.clone();
    let stranger = foreign.start(7).await;
    let member =
        Member { number: 7, address: "host-7".into(), incarnation: stranger.boot().incarnation };
    let leader = cluster.leader().await;
    leader.add_learner(member).await.expect("let in by mistake");
    eventually("the stranger's refusal is shown", || {
        matches!(leader.status().refusals.get(&7), Some(Refusal::WrongCluster { .. }))
    })
    .await;
    assert!(matches!(leader.promote(7).await, Err(MemberError::Refused { number: 7, .. })));
    // Bytes that are no message get an answer, and it is not a vote.
    assert!(!leader.handle(7, Bytes::from_static(b"nonsense")).await.is_empty());
    assert_healthy(&cluster).await;
    foreign.close().await;
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_manager_cannot_speak_for_another_one() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(2).await;
    let last = cluster.write("line").await;
    cluster.settled(last).await;
    let leader = cluster.leader().await.status().number;
    let follower = 3 - leader;
    // The leader's connection proves another number than its messages claim.
    let node = cluster.nodes.remove(&leader).expect("runs");
    node.link.proves.store(9, std::sync::atomic::Ordering::SeqCst);
    eventually("the refusal is shown", || {
        let refusals = node.store.status().refusals;
        refusals.get(&follower) == Some(&Refusal::WrongSender { claimed: leader, proved: 9 })
    })
    .await;
    node.store.shutdown().await;
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_number_is_not_given_to_another_store() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(1).await;
    let store = cluster.learn(2).await;
    let incarnation = store.boot().incarnation;
    let leader = cluster.leader().await;
    let member = |incarnation| Member { number: 2, address: "host-2".into(), incarnation };
    assert_eq!(leader.add_learner(member(incarnation)).await, Ok(()), "asked twice");
    let other = Incarnation(incarnation.0 ^ 1);
    assert_eq!(
        leader.add_learner(member(other)).await,
        Err(MemberError::AlreadyMember { number: 2, incarnation })
    );
    cluster.close().await;
}

#[tokio::test]
async fn a_directory_of_another_manager_is_not_opened() {
    let mut cluster = Cluster::on_disk(|_| {});
    cluster.grow(1).await;
    cluster.kill(1).await;
    let home = cluster.home.as_ref().expect("on disk").path().join("1");
    let alive = Arc::new(AtomicBool::new(true));
    let link = Link { from: 2, alive, ..Link::new(2, cluster.net.clone()) };
    let config = weft_manager::store::StoreConfig::new(home, 2, "test", 5);
    let error = BookStore::open(config, link).await.expect_err("refused");
    let text = format!("{:?}", error);
    assert!(text.contains("Foreign"), "{text}");
}
