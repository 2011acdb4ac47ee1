//! The state machine: applies committed commands to the state and shows it to readers.
//!
//! The state is a persistent value. Applying changes the machine's own copy, and once a batch
//! is through, a clone of it is swapped in for the readers, who never wait.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::watch;

use super::codec;
use super::log::invalid;
use super::snapshot::{self, Snapshots};
use super::types::{Blob, Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::store::Machine;

/// What readers of the state share with the machine.
#[derive(Debug)]
pub(crate) struct View<M> {
    pub(crate) state: ArcSwap<M>,
    /// Index of the last applied log entry; moves after `state`.
    pub(crate) applied: watch::Sender<u64>,
}

impl<M: Machine> Default for View<M> {
    fn default() -> Self {
        View { state: ArcSwap::from_pointee(M::default()), applied: watch::Sender::new(0) }
    }
}

/// The machine the Raft library drives.
#[derive(Clone, Debug)]
pub(crate) struct MachineStore<M> {
    state: M,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshots: Snapshots,
    view: Arc<View<M>>,
    /// In a simulation all work stays on the one thread, or it would not repeat itself.
    work: Work,
}

/// Where slow work runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    OnBlockingThreads,
    InPlace,
}

impl Work {
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Work::OnBlockingThreads => {
                tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
            }
            Work::InPlace => work(),
        }
    }
}

impl<M: Machine> MachineStore<M> {
    pub(crate) fn new(snapshots: Snapshots, view: Arc<View<M>>, work: Work) -> Self {
        MachineStore {
            state: M::default(),
            applied: None,
            membership: StoredMembership::default(),
            snapshots,
            view,
            work,
        }
    }

    /// Applies one entry; gives the encoded outcome when somebody waits for it.
    fn apply_entry(&mut self, entry: &Entry, wanted: Wanted) -> io::Result<Blob> {
        let log_id = entry.log_id;
        let mut outcome = Blob::default();
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(command) => {
                let proposal: M::Proposal =
                    codec::decode("a command", &command.0).map_err(invalid)?;
                let result = self.apply_proposal(log_id.index, &proposal)?;
                if wanted == Wanted::Yes {
                    let bytes = codec::encode("an outcome", &result).map_err(invalid)?;
                    outcome = Blob(Bytes::from(bytes));
                }
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(log_id), membership.clone());
            }
        }
        self.applied = Some(log_id);
        Ok(outcome)
    }

    /// Applies a proposal. A panic in it, which must not be, becomes an error that names the
    /// place in the log, and the engine dies of it; the half changed state is shown to nobody.
    fn apply_proposal(&mut self, index: u64, proposal: &M::Proposal) -> io::Result<M::Outcome> {
        let state = &mut self.state;
        catch_unwind(AssertUnwindSafe(|| state.apply(index, proposal)))
            .map_err(|_| io::Error::other(format!("applying log entry {index} panicked")))
    }

    /// Shows the state as it is now to the readers.
    fn publish(&self) {
        self.view.state.store(Arc::new(self.state.clone()));
        let applied = self.applied.map_or(0, |id| id.index);
        self.view.applied.send_if_modified(|seen| {
            let moved = *seen != applied;
            *seen = applied;
            moved
        });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Yes,
    No,
}

impl<M: Machine> RaftStateMachine<TypeConfig> for MachineStore<M> {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder<M>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut answers = Vec::new();
        while let Some((entry, responder)) = entries.try_next().await? {
            let wanted = if responder.is_some() { Wanted::Yes } else { Wanted::No };
            let outcome = self.apply_entry(&entry, wanted)?;
            answers.extend(responder.map(|responder| (responder, outcome)));
        }
        // Readers first: whoever gets an answer finds its effect in the view.
        self.publish();
        for (responder, outcome) in answers {
            responder.send(outcome);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder<M> {
        Builder {
            state: self.state.clone(),
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
            snapshots: self.snapshots.clone(),
            work: self.work,
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        data: Bytes,
    ) -> Result<(), io::Error> {
        let (snapshots, expected) = (self.snapshots.clone(), meta.clone());
        let state = self
            .work
            .run(move || {
                let (found, bytes) = snapshot::unpack(&data).map_err(invalid)?;
                if found != expected {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the snapshot is of another place in the log than announced",
                    ));
                }
                let state = codec::decode::<M>("the state", &bytes).map_err(invalid)?;
                snapshots.keep(&found, &data)?;
                Ok(state)
            })
            .await?;
        self.state = state;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let snapshots = self.snapshots.clone();
        self.work.run(move || snapshots.newest()).await
    }
}

/// Makes one snapshot of the state as it was when the builder was.
#[derive(Debug)]
pub(crate) struct Builder<M> {
    state: M,
    meta: SnapshotMeta,
    snapshots: Snapshots,
    work: Work,
}

impl<M: Machine> RaftSnapshotBuilder<TypeConfig> for Builder<M> {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (state, meta) = (self.state.clone(), self.meta.clone());
        let snapshots = self.snapshots.clone();
        self.work
            .run(move || {
                let body = codec::encode("the state", &state).map_err(invalid)?;
                let sealed = snapshot::pack(&meta, body).map_err(invalid)?;
                snapshots.keep(&meta, &sealed)?;
                Ok(Snapshot { meta, snapshot: sealed })
            })
            .await
    }
}
