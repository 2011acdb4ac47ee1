//! Letting managers in and out, and handing over.

use weft_manager::store::{MemberError, Role};

use crate::support::{Cluster, eventually};

fn numbers(members: &[weft_manager::store::Member]) -> Vec<u64> {
    members.iter().map(|member| member.number).collect()
}

#[tokio::test(start_paused = true)]
async fn a_learner_gets_the_log_and_has_no_vote() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(1).await;
    cluster.learn(2).await;
    let last = cluster.write("line").await;
    cluster.settled(last).await;
    let leader = cluster.leader().await;
    assert_eq!((numbers(&leader.voters()), numbers(&leader.learners())), (vec![1], vec![2]));
    assert_eq!(cluster.store(2).leadership().borrow().role, Role::Learner);
    cluster.kill(2).await;
    cluster.write("without it").await;
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_learner_far_behind_is_not_promoted() {
    let mut cluster = Cluster::in_memory(|config| config.limits.promote_lag = 3);
    cluster.grow(1).await;
    cluster.learn(2).await;
    let last = cluster.write("line").await;
    cluster.settled(last).await;
    cluster.net.isolate(2);
    for n in 0..10 {
        cluster.write(&format!("line {n}")).await;
    }
    let leader = cluster.leader().await;
    let refused = leader.promote(2).await;
    assert!(
        matches!(refused, Err(MemberError::NotCaughtUp { number: 2, lag, limit: 3 }) if lag >= 10),
        "{refused:?}"
    );
    cluster.net.heal();
    eventually("it catches up", || {
        leader.status().followers.get(&2).is_some_and(|follower| follower.lag == 0)
    })
    .await;
    assert_eq!(leader.promote(2).await, Ok(()));
    assert_eq!(leader.promote(2).await, Ok(()), "asked twice");
    assert_eq!(numbers(&leader.voters()), [1, 2]);
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn members_leave() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(3).await;
    let leader = cluster.leader().await;
    let own = leader.status().number;
    let others: Vec<u64> = (1..=3).filter(|number| *number != own).collect();
    leader.demote(others[0]).await.expect("demotes");
    assert_eq!(numbers(&leader.learners()), [others[0]]);
    leader.remove(others[0]).await.expect("removes a learner");
    leader.remove(others[1]).await.expect("removes a voter");
    assert_eq!((numbers(&leader.voters()), leader.learners().len()), (vec![own], 0));
    assert_eq!(leader.remove(own).await, Err(MemberError::LastVoter { number: own }));
    assert_eq!(leader.remove(8).await, Err(MemberError::NotMember { number: 8 }));
    cluster.nodes.retain(|number, _| *number == own);
    cluster.write("alone").await;
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_removes_itself_hands_over() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(3).await;
    let leader = cluster.leader().await;
    let own = leader.status().number;
    leader.remove(own).await.expect("removes itself");
    cluster.nodes.remove(&own);
    cluster.write("after").await;
    assert!(!numbers(&cluster.leader().await.voters()).contains(&own));
    leader.shutdown().await;
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn leadership_is_handed_over_on_request() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(3).await;
    let leader = cluster.leader().await;
    let own = leader.status().number;
    leader.transfer_leadership(None).await.expect("hands over");
    let next = cluster.leader().await.status().number;
    assert_ne!(next, own);
    assert!(matches!(
        leader.transfer_leadership(None).await,
        Err(MemberError::NotLeader { leader: Some(peer) }) if peer.number == next
    ));
    let chosen = (1..=3).find(|number| *number != next).expect("three managers");
    cluster.leader().await.transfer_leadership(Some(chosen)).await.expect("hands over");
    assert_eq!(cluster.leader().await.status().number, chosen);
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_address_can_change() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(2).await;
    let leader = cluster.leader().await;
    let before = leader.voters()[1].clone();
    leader.set_address(2, "moved".into()).await.expect("changes");
    let after = leader.voters()[1].clone();
    assert_eq!((after.address.as_str(), after.incarnation), ("moved", before.incarnation));
    let last = cluster.write("line").await;
    cluster.settled(last).await;
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_made_once() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(1).await;
    let store = cluster.store(1).clone();
    assert_eq!(store.initialize("again").await, Err(MemberError::AlreadyInitialized));
    cluster.close().await;
    assert_eq!(store.initialize("again").await, Err(MemberError::Closed));
}
