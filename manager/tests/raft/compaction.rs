//! Snapshots, purging, and starting again after both.

use std::time::Duration;

use weft_manager::store::StoreConfig;

use crate::support::{Cluster, PATIENCE, Write, eventually};

/// Compacts after every few entries and keeps next to nothing.
fn eager(config: &mut StoreConfig) {
    config.limits.snapshot_after = 20;
    config.limits.keep = 5;
}

/// Writes until the leader has purged part of its log.
async fn write_past_a_purge(cluster: &Cluster, tag: &str) -> u64 {
    let start = cluster.leader().await.status().purged;
    let until = tokio::time::Instant::now() + PATIENCE;
    for n in 0.. {
        assert!(tokio::time::Instant::now() < until, "nothing is purged");
        let leader = cluster.leader().await;
        let lines = (0..50).map(|m| leader.propose(Write(format!("{tag} {n} {m}"))));
        futures::future::join_all(lines).await;
        if leader.status().purged > start + 300 {
            break;
        }
    }
    let status = cluster.leader().await.status();
    assert!(status.snapshot > 0 && status.purged <= status.snapshot);
    cluster.write(&format!("{tag} last")).await
}

#[tokio::test]
async fn a_lagging_manager_and_a_new_one_get_the_snapshot() {
    let mut cluster = Cluster::in_memory(eager);
    cluster.grow(3).await;
    let lagging = if cluster.leader().await.status().number == 3 { 2 } else { 3 };
    cluster.net.isolate(lagging);
    let last = write_past_a_purge(&cluster, "line").await;
    cluster.net.heal();
    cluster.learn(4).await;
    cluster.settled(last).await;
    let expected = cluster.leader().await.view().texts();
    for number in [lagging, 4] {
        assert_eq!(cluster.store(number).view().texts(), expected, "manager {number}");
        assert!(cluster.store(number).status().snapshot > 0, "manager {number} got a snapshot");
    }
    cluster.close().await;
}

#[tokio::test]
async fn all_restart_after_compaction() {
    let mut cluster = Cluster::on_disk(eager);
    cluster.grow(3).await;
    write_past_a_purge(&cluster, "line").await;
    // Twice: what the first restart leaves behind must be good for another one.
    for round in 0..2 {
        let expected = {
            let last = cluster.write(&format!("round {round}")).await;
            cluster.settled(last).await;
            cluster.leader().await.view().texts()
        };
        for number in 1..=3 {
            cluster.kill(number).await;
        }
        for number in 1..=3 {
            let store = cluster.start(number).await;
            eventually("the purge point was kept", || store.status().purged > 0).await;
        }
        let last = cluster.write("again").await;
        cluster.settled(last).await;
        for number in 1..=3 {
            let texts = cluster.store(number).view().texts();
            assert_eq!(texts[..texts.len() - 1], expected, "manager {number}");
        }
    }
    cluster.close().await;
}

#[tokio::test]
async fn a_manager_that_loses_power_while_it_installs_a_snapshot_comes_back() {
    let mut cluster = Cluster::in_memory(eager);
    cluster.grow(3).await;
    let lagging = if cluster.leader().await.status().number == 3 { 2 } else { 3 };
    cluster.net.isolate(lagging);
    let last = write_past_a_purge(&cluster, "line").await;
    // Slow syncs widen every window between installing, purging and saving the commit point.
    cluster.memory(lagging).set_sync_time(Duration::from_millis(3));
    cluster.net.heal();
    for _ in 0..4 {
        cluster.kill(lagging).await;
        let store = cluster.start(lagging).await;
        eventually("it comes a little further", || *store.watch().borrow() > 0).await;
    }
    cluster.settled(last).await;
    let expected = cluster.leader().await.view().texts();
    assert_eq!(cluster.store(lagging).view().texts(), expected);
    cluster.close().await;
}

/// openraft #2116 and #1761: entries purged while they are applied, and writes stranded by a
/// snapshot, must not kill the engine.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_dies_when_applying_races_with_purging() {
    let mut cluster = Cluster::in_memory(|config| {
        config.limits.snapshot_after = 50;
        config.limits.keep = 1000;
    });
    cluster.grow(3).await;
    let leader = cluster.leader().await;
    let follower = if leader.status().number == 3 { 2 } else { 3 };
    for round in 0..3 {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..32 {
            let leader = leader.clone();
            writers.spawn(async move {
                for n in 0..50 {
                    let line = format!("{round} {writer} {n}");
                    // Elections under load are allowed, dying is not.
                    let _ = leader.propose(Write(line)).await;
                }
            });
        }
        cluster.net.isolate(follower);
        tokio::time::sleep(Duration::from_millis(30)).await;
        cluster.net.heal();
        writers.join_all().await;
    }
    let last = cluster.write("the end").await;
    cluster.settled(last).await;
    assert!(cluster.leader().await.status().purged > 0, "nothing was purged: no race was run");
    for node in cluster.nodes.values() {
        assert!(tokio::time::timeout(Duration::ZERO, node.store.fatal()).await.is_err());
    }
    cluster.close().await;
}
