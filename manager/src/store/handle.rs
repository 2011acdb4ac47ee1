//! The handle that everybody holds.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    Backend, Boot, FatalError, Leadership, Machine, Member, MemberError, OpenError, Proposals,
    ProposeError, ReadError, RecoverError, Refusal, Status, StoreConfig, Transport,
};
use crate::raft::engine::Engine;

/// A replicated store. Clones are the same store; it stops when the last one is dropped, and
/// properly with [`Store::shutdown`].
pub struct Store<M: Machine = weft_model::State> {
    engine: Arc<Engine<M>>,
}

impl<M: Machine> Clone for Store<M> {
    fn clone(&self) -> Self {
        Store { engine: self.engine.clone() }
    }
}

impl<M: Machine> fmt::Debug for Store<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("boot", &self.engine.boot()).finish_non_exhaustive()
    }
}

impl<M: Machine> Store<M> {
    /// Opens the store in `config.dir`; makes it when there is none. A new store is in no
    /// cluster: the first one is [`Store::initialize`]d, the others are let in by its leader.
    ///
    /// # Errors
    /// [`OpenError`] when the directory is in use, belongs to another cluster or manager, or
    /// holds damaged data.
    pub async fn open<T: Transport>(config: StoreConfig, transport: T) -> Result<Self, OpenError> {
        let backend = Backend::Disk(config.dir.clone());
        Self::open_with(config, backend, transport).await
    }

    /// Opens the store on another backend.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_with<T: Transport>(
        config: StoreConfig,
        backend: Backend,
        transport: T,
    ) -> Result<Self, OpenError> {
        Ok(Store { engine: Arc::new(Engine::open(config, backend, transport).await?) })
    }

    /// Makes a closed store the only member of a new cluster, when the majority of the old one
    /// is lost for good. All of its log counts as committed then, also what never was; what only
    /// the lost managers had is gone. `config.cluster_id` is the name of the new cluster and must
    /// differ from the old one, so that managers of the old cluster are refused when they come
    /// back. When it was interrupted, it is done again.
    ///
    /// # Errors
    /// [`RecoverError`].
    pub async fn recover(
        config: StoreConfig,
        backend: Backend,
        address: impl Into<String>,
    ) -> Result<(), RecoverError> {
        crate::raft::recover::recover(config, backend, address.into()).await
    }

    /// Makes this store the first and only member of a new cluster; others reach it at
    /// `address`.
    ///
    /// # Errors
    /// [`MemberError::AlreadyInitialized`] when it is in a cluster already.
    pub async fn initialize(&self, address: impl Into<String>) -> Result<(), MemberError> {
        self.engine.initialize(address.into()).await
    }

    /// The state as last applied here. It never waits, and may be behind the leader's.
    pub fn view(&self) -> Arc<M> {
        self.engine.view()
    }

    /// Tells the index of the last applied log entry. When it changed, `view` has the effect.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.engine.applied()
    }

    /// Tells who leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.engine.leadership()
    }

    /// Asks the majority to add a command; gives its index and what applying it gave. The view
    /// of this manager has it then.
    ///
    /// # Errors
    /// [`ProposeError`] says for each case whether the command may still take effect.
    pub async fn propose(&self, proposal: M::Proposal) -> Result<(u64, M::Outcome), ProposeError> {
        self.engine.propose(&proposal).await
    }

    /// How many commands were proposed here, and how many of them came to nothing.
    pub fn proposals(&self) -> Proposals {
        self.engine.proposals()
    }

    /// Waits until `view` has everything that was committed anywhere before this call, by asking
    /// a majority whether this manager still leads. Gives the index up to which it is current.
    ///
    /// # Errors
    /// [`ReadError`]; nothing is known about the view then.
    pub async fn read_barrier(&self) -> Result<u64, ReadError> {
        self.engine.read_barrier().await
    }

    /// Takes a message that another manager gave to its transport. `from` is the number the
    /// connection has proved. The bytes returned go back as the answer, whatever they are.
    pub async fn handle(&self, from: u64, request: Bytes) -> Bytes {
        self.engine.handle(from, request).await
    }

    /// Lets a manager in without a vote; it begins to get the log. Doing it twice is no error.
    /// Only on the leader.
    ///
    /// # Errors
    /// [`MemberError`].
    pub async fn add_learner(&self, member: Member) -> Result<(), MemberError> {
        self.engine.add_learner(member).await
    }

    /// Gives a learner a vote once it has caught up. Only on the leader.
    ///
    /// # Errors
    /// [`MemberError::NotCaughtUp`] names how far it is.
    pub async fn promote(&self, number: u64) -> Result<(), MemberError> {
        self.engine.promote(number).await
    }

    /// Takes the vote of a manager; it stays as a learner. Only on the leader.
    ///
    /// # Errors
    /// [`MemberError`].
    pub async fn demote(&self, number: u64) -> Result<(), MemberError> {
        self.engine.demote(number).await
    }

    /// Puts a manager out. Its number must never be given again. Only on the leader, who may put
    /// itself out and hands over then.
    ///
    /// # Errors
    /// [`MemberError`].
    pub async fn remove(&self, number: u64) -> Result<(), MemberError> {
        self.engine.remove(number).await
    }

    /// Changes where a member is reached. Only on the leader.
    ///
    /// # Errors
    /// [`MemberError`].
    pub async fn set_address(&self, number: u64, address: String) -> Result<(), MemberError> {
        self.engine.set_address(number, address).await
    }

    /// Hands leadership to `to`, or to the voter that is furthest; waits until another one
    /// leads. Only on the leader.
    ///
    /// # Errors
    /// [`MemberError`]; this manager may go on leading then.
    pub async fn transfer_leadership(&self, to: Option<u64>) -> Result<(), MemberError> {
        self.engine.transfer_leadership(to).await
    }

    /// Managers with a vote, as last committed in the log that this manager has.
    pub fn voters(&self) -> Vec<Member> {
        self.engine.voters()
    }

    /// Managers without a vote.
    pub fn learners(&self) -> Vec<Member> {
        self.engine.learners()
    }

    /// This start of this store; its incarnation is what a leader is told to let it in.
    pub fn boot(&self) -> Boot {
        self.engine.boot()
    }

    /// Waits until the Raft engine has died. The process must start again then: the engine never
    /// recovers in place. Does not end on a proper shutdown.
    pub async fn fatal(&self) -> FatalError {
        self.engine.fatal().await
    }

    /// Tells when this store must not take part any more, because it was wiped, rolled back or
    /// copied. It stays readable and refuses everything else.
    pub fn condemned(&self) -> watch::Receiver<Option<Refusal>> {
        self.engine.condemned()
    }

    /// Bytes that are free on the store's disk and bytes that should be, while it is nearly full:
    /// nothing is written for callers then, and another manager leads if one has room.
    pub fn no_room(&self) -> Option<(u64, u64)> {
        self.engine.no_room()
    }

    /// Everything about the store, for showing.
    pub fn status(&self) -> Status {
        self.engine.status()
    }

    /// Has a snapshot made now, whatever the limits say. It is made in the background.
    ///
    /// # Errors
    /// When the engine has stopped.
    pub async fn snapshot_now(&self) -> Result<(), FatalError> {
        self.engine.snapshot_now().await
    }

    /// Stops the store and waits until its files are closed.
    pub async fn shutdown(&self) {
        self.engine.shutdown().await;
    }
}
