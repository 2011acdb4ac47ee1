//! Going on after the majority is lost.

use weft_manager::store::{Backend, RecoverError, Refusal, StoreConfig};

use crate::support::{BookStore, Cluster, eventually};

fn config(number: u64, cluster_id: &str) -> StoreConfig {
    StoreConfig::new("/nowhere".into(), number, cluster_id, 4711)
}

#[tokio::test]
async fn one_survivor_goes_on_and_the_old_ones_are_strangers() {
    let mut cluster = Cluster::on_disk(|_| {});
    cluster.grow(3).await;
    let last = cluster.write("before").await;
    cluster.settled(last).await;
    let mut old = Cluster::on_disk(|_| {});
    for number in 1..=3 {
        cluster.kill(number).await;
    }
    let survivor = cluster.backend(2);
    BookStore::recover(config(2, "test-2"), survivor.clone(), "host-2").await.expect("recovers");
    let again = BookStore::recover(config(2, "test-2"), survivor, "host-2").await;
    assert!(matches!(again, Err(RecoverError::SameCluster { .. })), "{again:?}");

    old.net = cluster.net.clone();
    old.disks = cluster.disks.clone();
    cluster.tune = |config| config.cluster_id = "test-2".into();
    cluster.start(2).await;
    let last = cluster.write("after").await;
    assert_eq!(cluster.store(2).view().texts(), ["before", "after"]);
    // A new manager joins, and the old ones come back in vain.
    cluster.join(4).await;
    cluster.settled(last).await;
    let back = [old.start(1).await, old.start(3).await];
    // They are two of three and elect a leader, who still counts the survivor as a follower.
    eventually("an old manager is told why", || {
        back.iter().any(|store| {
            let refusals = store.status().refusals;
            matches!(refusals.get(&2), Some(Refusal::WrongCluster { own, .. }) if own == "test-2")
        })
    })
    .await;
    let last = cluster.write("undisturbed").await;
    cluster.settled(last).await;
    assert_eq!(cluster.store(4).view().texts(), ["before", "after", "undisturbed"]);
    old.close().await;
    cluster.close().await;
}

#[tokio::test(start_paused = true)]
async fn there_must_be_something_to_recover() {
    let mut cluster = Cluster::in_memory(|_| {});
    let nothing = cluster.backend(1);
    let refused = BookStore::recover(config(1, "new"), nothing, "host-1").await;
    assert!(matches!(refused, Err(RecoverError::Open(_))), "{refused:?}");
    let store = cluster.start(1).await;
    store.shutdown().await;
    let Backend::Memory(disk) = cluster.backend(1) else { panic!("a memory disk") };
    let refused = BookStore::recover(config(1, "new"), Backend::Memory(disk), "host-1").await;
    assert!(matches!(refused, Err(RecoverError::Empty { .. })), "{refused:?}");
    let refused = BookStore::recover(config(2, "new"), cluster.backend(1), "host-2").await;
    assert!(matches!(refused, Err(RecoverError::Open(_))), "another manager's store: {refused:?}");
}
