//! The Raft library's own tests of a store, run on both backends.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::files::Files;
use super::log::disk::DiskLog;
use super::log::memory::{MemoryDisk, MemoryLog};
use super::log::{Backend, LogStore};
use super::machine::{MachineStore, View, Work};
use super::snapshot::Snapshots;
use super::types::TypeConfig;
use crate::store::Machine;

/// Counts what was applied to it.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
struct Counter(u64);

impl Machine for Counter {
    type Proposal = u64;
    type Outcome = u64;

    fn apply(&mut self, _index: u64, by: &u64) -> u64 {
        self.0 += by;
        self.0
    }
}

type Machined = MachineStore<Counter>;

struct OnDisk;

impl StoreBuilder<TypeConfig, LogStore, Machined, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, Machined), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a directory");
        let log = DiskLog::open(&dir.path().join("log")).expect("a log");
        let files = Files::Disk(dir.path().join("snapshots")).open().expect("a folder");
        let log = LogStore::new(Backend::Disk(log)).expect("a log store");
        let machine = MachineStore::new(
            Snapshots::new(files),
            View::default().into(),
            Work::OnBlockingThreads,
        );
        Ok((dir, log, machine))
    }
}

struct InMemory;

impl StoreBuilder<TypeConfig, LogStore, Machined, ()> for InMemory {
    async fn build(&self) -> Result<((), LogStore, Machined), StorageError<TypeConfig>> {
        let disk = MemoryDisk::default();
        let log = LogStore::new(Backend::Memory(MemoryLog::open(&disk))).expect("a log store");
        let snapshots = Snapshots::new(Files::Memory(disk));
        Ok(((), log, MachineStore::new(snapshots, View::default().into(), Work::InPlace)))
    }
}

// Paused: the library's tests sleep for seconds here and there.
#[tokio::test(start_paused = true)]
async fn the_library_is_content_with_the_disk() {
    Suite::test_all(OnDisk).await.expect("no storage error");
}

// Paused: the library's tests sleep for seconds here and there.
#[tokio::test(start_paused = true)]
async fn the_library_is_content_with_the_memory() {
    Suite::test_all(InMemory).await.expect("no storage error");
}
