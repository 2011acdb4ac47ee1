//! What a machine's disk says of its part in the cluster, and its store as a manager.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use weft_manager::store::MemoryDisk;
use weft_model::{NodeId, spec::Role};

/// What a member knows of itself.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) node: NodeId,
    /// Its number in the cluster.
    pub(super) number: u64,
    pub(super) role: Role,
    /// The managers it has heard of last.
    pub(super) managers: Vec<SocketAddr>,
}

/// The disk. Clones are the same one.
#[derive(Clone)]
pub(super) struct Home(Arc<Mutex<Kept>>);

struct Kept {
    member: Option<Member>,
    raft: MemoryDisk,
    /// How long the disk takes to sync.
    syncs_in: Duration,
    /// How many nodes this machine has been or has tried to be.
    lives: u8,
}

impl Home {
    /// Of a machine that is a member from the beginning.
    pub(super) fn new(member: Member) -> Self {
        let (raft, syncs_in) = (MemoryDisk::default(), Duration::ZERO);
        Self(Arc::new(Mutex::new(Kept { member: Some(member), raft, syncs_in, lives: 0 })))
    }

    pub(super) fn member(&self) -> Option<Member> {
        self.lock().member.clone()
    }

    /// Whether the disk says that this machine is that node.
    pub(super) fn is(&self, node: NodeId) -> bool {
        self.lock().member.as_ref().is_some_and(|member| member.node == node)
    }

    pub(super) fn save(&self, member: Member) {
        self.lock().member = Some(member);
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Member)) {
        if let Some(member) = &mut self.lock().member {
            change(member);
        }
    }

    /// Another number for another node on this machine.
    pub(super) fn next_life(&self) -> u8 {
        let mut kept = self.lock();
        kept.lives += 1;
        kept.lives
    }

    /// The store of the manager.
    pub(super) fn raft(&self) -> MemoryDisk {
        self.lock().raft.clone()
    }

    pub(super) fn set_sync_time(&self, takes: Duration) {
        let mut kept = self.lock();
        kept.syncs_in = takes;
        kept.raft.set_sync_time(takes);
    }

    /// The store of the manager is gone.
    pub(super) fn erase_raft(&self) {
        let mut kept = self.lock();
        kept.raft = MemoryDisk::default();
        kept.raft.set_sync_time(kept.syncs_in);
    }

    /// There is nothing any more.
    pub(super) fn erase(&self) {
        self.lock().member = None;
        self.erase_raft();
    }

    /// Each change is whole before anything in it can panic.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
