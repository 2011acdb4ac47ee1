//! The two backends are one log: whatever is done to them, they show the same, also after they
//! were opened again; and of the memory one, a power cut takes nothing that was synced.

use std::time::Duration;

use openraft::RaftLogReader;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use proptest::prelude::*;

use super::disk::DiskLog;
use super::memory::{MemoryDisk, MemoryLog};
use super::{Backend, LogStore, LogSummary};
use crate::raft::mark::Mark;
use crate::raft::types::{Blob, Entry, Payload, TypeConfig, Vote, log_id};

/// What a leader or follower does to its log; numbers are relative, so that each step is one
/// that Raft could do.
#[derive(Clone, Debug)]
enum Step {
    /// Votes in a term that is so much later.
    Vote(u64),
    /// Adds so many entries of so many bytes.
    Append(usize, usize),
    /// Commits so many entries more.
    Commit(u64),
    /// Follows a new leader, who cuts off so many entries that are not committed.
    Truncate(u64),
    /// Forgets so many committed entries.
    Purge(u64),
    /// A snapshot replaces everything, so far beyond the end.
    Jump(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (1_u64..3).prop_map(Step::Vote),
        4 => (1_usize..6, 0_usize..300).prop_map(|(n, size)| Step::Append(n, size)),
        2 => (1_u64..5).prop_map(Step::Commit),
        1 => (1_u64..4).prop_map(Step::Truncate),
        1 => (1_u64..6).prop_map(Step::Purge),
        1 => (1_u64..6).prop_map(Step::Jump),
        1 => Just(Step::Reopen),
    ]
}

async fn append(store: &mut LogStore, entries: Vec<Entry>) {
    let (tell, told) = <openraft::type_config::alias::OneshotOf<TypeConfig> as openraft::async_runtime::Oneshot>::channel();
    store.append(entries, IOFlushed::signal(tell)).await.expect("appends");
    told.await.expect("called").expect("synced");
}

/// Does one step; steps that make no sense now are left out.
async fn apply(store: &mut LogStore, step: &Step) {
    let now = store.summary().expect("reads");
    let term = now.vote.map_or(0, |vote| vote.leader_id.term);
    let last = now.last.map_or(0, |id| id.index);
    let committed = now.committed.map_or(0, |id| id.index).max(now.purged.map_or(0, |id| id.index));
    let id_at = async |store: &mut LogStore, index: u64| {
        let found = store.try_get_log_entries(index..=index).await.expect("reads");
        found.first().map(|entry| entry.log_id)
    };
    match step {
        Step::Vote(later) => store.save_vote(&Vote::new(term + later, 1)).await.expect("saves"),
        Step::Append(n, size) => {
            let payload = |n: usize| Payload::Normal(Blob(vec![n as u8; *size].into()));
            let entry = |n| Entry::new(log_id(term, last + 1 + n as u64), payload(n));
            append(store, (0..*n).map(entry).collect()).await;
        }
        Step::Commit(by) => {
            if let Some(id) = id_at(store, (committed + by).min(last)).await {
                store.save_committed(Some(id)).await.expect("saves");
            }
        }
        Step::Truncate(by) => {
            if let Some(keep) = id_at(store, last.saturating_sub(*by).max(committed)).await {
                store.save_vote(&Vote::new_committed(term + 1, 2)).await.expect("saves");
                store.truncate_after(Some(keep)).await.expect("cuts");
            }
        }
        Step::Purge(by) => {
            let purged = now.purged.map_or(0, |id| id.index);
            if let Some(id) = id_at(store, (purged + by).min(committed)).await {
                store.purge(id).await.expect("purges");
            }
        }
        Step::Jump(by) => store.purge(log_id(term, last + by)).await.expect("purges"),
        Step::Reopen => {}
    }
}

/// Everything a log shows.
async fn shown(store: &mut LogStore) -> (LogSummary, Vec<Entry>, Mark) {
    let entries = store.try_get_log_entries(..).await.expect("reads");
    (store.summary().expect("reads"), entries, store.mark().get())
}

fn on_runtime<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn disk_and_memory_are_one_log(steps in prop::collection::vec(step(), 1..40)) {
        on_runtime(async {
            let home = tempfile::tempdir().expect("a directory");
            let on_disk = || LogStore::new(Backend::Disk(DiskLog::open(home.path()).expect("opens")));
            let disk = MemoryDisk::default();
            let in_memory = || LogStore::new(Backend::Memory(MemoryLog::open(&disk)));
            let mut real = on_disk().expect("opens");
            let mut model = in_memory().expect("opens");
            for (n, step) in steps.iter().enumerate() {
                apply(&mut real, step).await;
                apply(&mut model, step).await;
                let before = shown(&mut real).await;
                assert_eq!(before, shown(&mut model).await, "after step {n}, {step:?}");
                if matches!(step, Step::Reopen) {
                    // Its lock on the directory goes with it.
                    drop(real);
                    real = on_disk().expect("opens again");
                    let after = shown(&mut real).await;
                    assert_eq!((&after.0, &after.1), (&before.0, &before.1), "opened again");
                    assert!(after.2 >= before.2, "the mark went back: {before:?} {after:?}");
                    model = in_memory().expect("opens again");
                }
            }
        });
    }

    #[test]
    fn a_power_cut_takes_nothing_that_was_synced(
        steps in prop::collection::vec(step(), 1..30),
        unsynced in 1_usize..5,
    ) {
        on_runtime(async {
            let disk = MemoryDisk::default();
            let mut store =
                LogStore::new(Backend::Memory(MemoryLog::open(&disk))).expect("opens");
            store.save_vote(&Vote::new(1, 1)).await.expect("saves");
            for step in &steps {
                apply(&mut store, step).await;
            }
            let synced = shown(&mut store).await;
            // These never see their sync.
            disk.set_sync_time(Duration::from_secs(3600));
            let last = synced.0.last.map_or(0, |id| id.index);
            let term = synced.0.vote.map_or(0, |vote| vote.leader_id.term);
            let late = (0..unsynced).map(|n| Entry::new_blank(log_id(term, last + 1 + n as u64)));
            store.append(late, IOFlushed::noop()).await.expect("appends");
            assert_eq!(store.mark().get(), synced.2, "what is not synced does not count");
            disk.crash();
            let mut again = LogStore::new(Backend::Memory(MemoryLog::open(&disk))).expect("opens");
            let after = shown(&mut again).await;
            assert_eq!((&after.0.vote, &after.0.last, &after.1), (&synced.0.vote, &synced.0.last, &synced.1));
            assert!(after.2 >= synced.2, "the mark went back");
        });
    }
}
