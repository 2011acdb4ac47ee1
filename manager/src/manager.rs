//! A node's part as a manager, as one cheap handle.
//!
//! [`Manager`] opens the replicated store, follows who leads, and runs what only the leader runs
//! while it leads. The services of [`crate::api`] find it in a [`ManagerSlot`], because a node may
//! become a manager, or stop being one, while its listeners go on.

mod channels;
mod config;
mod decide;
mod founding;
mod ledger;
mod named;
mod status;
mod transport;

use std::{
    future::Future,
    sync::{Arc, Mutex},
};

use arc_swap::ArcSwapOption;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_model::{
    Cluster, ClusterId, Command, NodeId, Proposal, Rejected, State, command::NewNode,
};
use weft_proto::tls::LiveIdentity;

use crate::{
    api::history::History,
    ca::Throttle,
    clock::Clock,
    dispatcher::Sessions,
    ids::{IdSource, SeededIds},
    leader,
    store::{
        Backend, FatalError, Leadership, MemberError, OpenError, ProposeError, Store, StoreConfig,
        Transport,
    },
};

pub(crate) use channels::Channels;
pub use config::{ManagerConfig, ManagerTimings};
pub(crate) use decide::parse_request_id;
pub use founding::new_cluster;
pub use ledger::Ledger;
pub(crate) use named::named;
pub(crate) use status::{no_leader, read_failed, write_failed};

/// Where the services find the manager, if this node is one now.
pub type ManagerSlot = Arc<ArcSwapOption<Manager>>;

/// Why a manager did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be opened.
    #[error("cannot open the replicated store")]
    Open(#[from] OpenError),
    /// The store is in a cluster already.
    #[error("cannot make the first manager of a cluster")]
    Initialize(#[from] MemberError),
    /// The cluster could not be written.
    #[error("cannot write the new cluster")]
    Write(#[from] ProposeError),
    /// What was to be written is not allowed.
    #[error("the new cluster was refused")]
    Refused(#[from] Rejected),
    /// The store stopped before it led.
    #[error("the store stopped before it led")]
    Stopped,
}

/// A manager. Clones are the same one; it stops when the last is dropped, and properly with
/// [`Manager::shutdown`].
#[derive(Clone)]
pub struct Manager {
    pub(crate) core: Arc<Core>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

/// What the manager's tasks and the services share.
pub(crate) struct Core {
    pub(crate) store: Store<State>,
    pub(crate) node: NodeId,
    pub(crate) number: u64,
    pub(crate) cluster: ClusterId,
    pub(crate) identity: LiveIdentity,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) timings: ManagerTimings,
    pub(crate) sessions: Sessions,
    pub(crate) history: History,
    pub(crate) channels: Channels,
    pub(crate) wrong_tokens: Mutex<Throttle>,
    /// Cancelled when the manager shuts down; open streams end then.
    pub(crate) closing: CancellationToken,
    ids: Mutex<SeededIds>,
    /// Held from looking to writing, so that two calls do not choose the same thing.
    deciding: tokio::sync::Mutex<()>,
}

impl Manager {
    /// Makes a cluster with this node as its first manager: its store becomes the only voter, and
    /// `cluster` and `node` are the first entry.
    ///
    /// # Errors
    /// [`StartError`]; the directory is then to be removed before another try.
    pub async fn bootstrap(
        config: ManagerConfig,
        cluster: Cluster,
        node: NewNode,
    ) -> Result<Self, StartError> {
        let address = config.address.to_string();
        let manager = Self::open(config).await?;
        manager.found(address, cluster, node).await?;
        Ok(manager)
    }

    /// Makes this store, which is in no cluster, the only voter of a new one; others reach it at
    /// `address`. `cluster` and `node` are the first entry.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn found(
        &self,
        address: String,
        cluster: Cluster,
        node: NewNode,
    ) -> Result<(), StartError> {
        let store = &self.core.store;
        store.initialize(address).await?;
        let mut leadership = store.leadership();
        leadership.wait_for(Leadership::is_leader).await.map_err(|_| StartError::Stopped)?;
        let command = Command::CreateCluster { cluster: Box::new(cluster), node };
        let now = self.core.clock.now();
        let proposal = Proposal { request: None, now, commands: vec![command] };
        let (_, outcome) = store.propose(proposal).await?;
        outcome.into_result()?;
        Ok(())
    }

    /// Opens the store in `config.dir`, or makes an empty one that waits to be let in.
    ///
    /// # Errors
    /// [`StartError::Open`].
    pub async fn open(config: ManagerConfig) -> Result<Self, StartError> {
        let channels = Channels::new(config.identity.clone());
        let transport = transport::RaftTransport::new(config.number, channels.clone());
        let backend = Backend::Disk(config.dir.clone());
        Self::assemble(config, channels, backend, transport).await
    }

    /// The same on another disk and over another network, as a simulation has them.
    ///
    /// # Errors
    /// [`StartError::Open`].
    pub async fn open_on(
        config: ManagerConfig,
        backend: Backend,
        transport: impl Transport,
    ) -> Result<Self, StartError> {
        let channels = Channels::new(config.identity.clone());
        Self::assemble(config, channels, backend, transport).await
    }

    async fn assemble(
        config: ManagerConfig,
        channels: Channels,
        backend: Backend,
        transport: impl Transport,
    ) -> Result<Self, StartError> {
        let store = Store::open_with(store_config(&config), backend, transport).await?;
        let core = Arc::new(Core {
            history: History::new(store.view()),
            store,
            node: config.node,
            number: config.number,
            cluster: config.cluster,
            identity: config.identity,
            clock: config.clock,
            timings: config.timings,
            sessions: Sessions::default(),
            channels,
            wrong_tokens: Mutex::default(),
            closing: CancellationToken::new(),
            ids: Mutex::new(SeededIds::new(config.seed)),
            deciding: tokio::sync::Mutex::new(()),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(leader::follow(Arc::clone(&core)));
        tasks.spawn(crate::api::history::record(Arc::clone(&core)));
        Ok(Self { core, tasks: Arc::new(Mutex::new(tasks)) })
    }

    /// The state as last applied here; may be behind the leader's.
    pub fn view(&self) -> Arc<State> {
        self.core.store.view()
    }

    /// The replicated store, for showing what it does.
    pub fn store(&self) -> &Store<State> {
        &self.core.store
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.core.node
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.core.cluster
    }

    /// Whether this manager leads.
    pub fn is_leader(&self) -> bool {
        self.core.store.leadership().borrow().is_leader()
    }

    /// What this node's own session must say in its hello, so that the leader lets its store in.
    pub fn raft_incarnation(&self) -> String {
        self.core.store.boot().incarnation.to_string()
    }

    /// The revision of the assignments that `node` has last applied, as far as this leader was
    /// told; none while the node has no session.
    pub fn applied(&self, node: NodeId) -> Option<u64> {
        self.core.sessions.applied(node)
    }

    /// Waits until the Raft engine has died; the process must start again then.
    pub async fn fatal(&self) -> FatalError {
        self.core.store.fatal().await
    }

    /// Runs `task` until it ends or this manager does.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().expect("no holder panics");
        // Those that have ended are taken out here; they have reported for themselves.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Ends the sessions and streams, stops everything, and waits until the store's files are
    /// closed.
    pub async fn shutdown(&self) {
        self.core.closing.cancel();
        let mut tasks = std::mem::take(&mut *self.tasks.lock().expect("no holder panics"));
        tasks.shutdown().await;
        self.core.store.shutdown().await;
    }
}

impl Core {
    /// 32 bytes for the ID of a new object.
    pub(crate) fn with_ids<T>(&self, make: impl FnOnce(&mut dyn IdSource) -> T) -> T {
        make(&mut *self.ids.lock().expect("drawing an ID does not panic"))
    }
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Core { node, number, cluster, .. } = &*self.core;
        f.debug_struct("Manager")
            .field("node", node)
            .field("number", number)
            .field("cluster", cluster)
            .finish_non_exhaustive()
    }
}

fn store_config(config: &ManagerConfig) -> StoreConfig {
    // Any part of the seed does: the store needs another one at each start, as the seed is.
    let mut seed = [0; 8];
    seed.copy_from_slice(&config.seed[..8]);
    let id = config.cluster.to_string();
    let mut store =
        StoreConfig::new(config.dir.clone(), config.number, id, u64::from_le_bytes(seed));
    store.timings = config.timings.raft;
    store.limits = config.limits;
    store
}
