//! The running node: a worker always, a manager sometimes, in a cluster or in none.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use arc_swap::ArcSwapOption;
use tokio::{
    net::TcpListener,
    sync::{Mutex, watch},
    task::JoinSet,
};
use weft_manager::manager::{Manager, ManagerConfig, ManagerSlot};
use weft_model::{object::NodeDescription, spec::Role};
use weft_proto::tls::LiveIdentity;
use weft_worker::{Config, Worker, facts, worker::Membership};

use super::{
    Settings,
    membership::{Home, Member},
    removed, renewal, roles,
    serve::{self, Listening},
};

/// How often the machine's routes and resolvers are looked at again.
const FACTS_EVERY: Duration = Duration::from_secs(15);

/// The running node.
pub struct Node {
    settings: Settings,
    home: Home,
    worker: Arc<Worker>,
    slot: ManagerSlot,
    managers: watch::Sender<Option<Manager>>,
    joined: watch::Sender<Option<Arc<Joined>>>,
    /// Held while the node enters or leaves a cluster or changes its role.
    pub(super) changing: Mutex<()>,
}

/// What a node that is in a cluster has beside.
pub struct Joined {
    member: watch::Sender<Member>,
    /// The certificate in force.
    pub identity: LiveIdentity,
    description: watch::Sender<NodeDescription>,
    incarnation: watch::Sender<Option<String>>,
    listening: Listening,
    tasks: Mutex<JoinSet<()>>,
}

impl Joined {
    /// What is remembered of the cluster.
    pub fn member(&self) -> Member {
        self.member.borrow().clone()
    }
}

impl Node {
    /// Starts the worker, adopts what an earlier run left, and goes back into its cluster if the
    /// node is a member of one.
    ///
    /// # Errors
    /// When a part cannot start.
    pub async fn start(settings: Settings) -> anyhow::Result<Arc<Self>> {
        let home = Home::new(&settings.state_dir);
        let found = home.load().context("what is known of the cluster cannot be read")?;
        let config = Config {
            state_dir: settings.state_dir.clone(),
            run_dir: settings.run_dir.clone(),
            defaults: settings.defaults(),
            wireguard: settings.wireguard,
        };
        let worker = Arc::new(Worker::start(&config).await.map_err(chain)?);
        let node = Arc::new(Self {
            settings,
            home,
            worker,
            slot: Arc::new(ArcSwapOption::empty()),
            managers: watch::Sender::new(None),
            joined: watch::Sender::new(None),
            changing: Mutex::new(()),
        });
        match found {
            Some((member, identity)) => {
                let listener = node.listen().await?;
                let identity = LiveIdentity::new(identity);
                let manager = match member.role {
                    Role::Manager => Some(node.open_manager(&member, &identity).await?),
                    Role::Worker => None,
                };
                if let Some(manager) = &manager {
                    renewal::revive(&node.home, manager, &identity);
                }
                node.enter(member, identity, listener, manager).await.map_err(chain)?;
            }
            None => {
                node.home.clear().context("leftovers of a cluster cannot be removed")?;
                node.worker.leave_leftovers().await;
            }
        }
        Ok(node)
    }

    /// Binds the cluster's port.
    pub(super) async fn listen(&self) -> anyhow::Result<TcpListener> {
        let address = self.settings.listen;
        TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} for the cluster"))
    }

    /// Opens the replicated store of a manager that is a member already.
    pub(super) async fn open_manager(
        &self,
        member: &Member,
        identity: &LiveIdentity,
    ) -> anyhow::Result<Manager> {
        Manager::open(self.manager_config(member, identity)).await.map_err(chain)
    }

    pub(super) fn manager_config(&self, member: &Member, identity: &LiveIdentity) -> ManagerConfig {
        ManagerConfig::new(
            self.home.raft(),
            member.node,
            member.number,
            member.cluster,
            member.address,
            identity.clone(),
        )
    }

    /// Starts everything that a member has, with the listener bound already.
    pub(super) async fn enter(
        self: &Arc<Self>,
        member: Member,
        identity: LiveIdentity,
        listener: TcpListener,
        manager: Option<Manager>,
    ) -> Result<(), facts::FactError> {
        let description = self.description(member.address, member.data_path, Some(&identity))?;
        let listening = serve::tcp(self, listener, &identity);
        let joined = Arc::new(Joined {
            member: watch::Sender::new(member.clone()),
            identity: identity.clone(),
            description: watch::Sender::new(description),
            incarnation: watch::Sender::new(None),
            listening,
            tasks: JoinSet::new().into(),
        });
        self.joined.send_replace(Some(Arc::clone(&joined)));
        self.set_manager(manager);
        self.worker
            .join(Membership {
                identity,
                description: joined.description.subscribe(),
                raft_incarnation: joined.incarnation.subscribe(),
                managers: member.managers,
                boot: format!("{:032x}", rand::random::<u128>()),
                seed: rand::random(),
            })
            .await;
        let mut tasks = joined.tasks.lock().await;
        tasks.spawn(renewal::run(Arc::clone(self), Arc::clone(&joined)));
        tasks.spawn(roles::run(Arc::downgrade(self)));
        tasks.spawn(removed::run(Arc::downgrade(self), Arc::clone(&joined)));
        tasks.spawn(refresh_facts(Arc::downgrade(self), Arc::clone(&joined)));
        Ok(())
    }

    /// Makes the node a manager for the services and the session, or no longer one.
    pub(super) fn set_manager(&self, manager: Option<Manager>) {
        let incarnation = manager.as_ref().map(Manager::raft_incarnation);
        self.slot.store(manager.clone().map(Arc::new));
        self.managers.send_replace(manager);
        if let Some(joined) = self.joined() {
            joined.incarnation.send_if_modified(|present| {
                let changed = *present != incarnation;
                *present = incarnation;
                changed
            });
        }
    }

    /// Ends everything that a member has beside. Files and containers are the caller's.
    pub(super) async fn exit(&self) {
        let Some(joined) = self.joined.send_replace(None) else { return };
        joined.tasks.lock().await.abort_all();
        joined.listening.stop().await;
        let manager = self.managers.send_replace(None);
        self.slot.store(None);
        if let Some(manager) = manager {
            manager.shutdown().await;
        }
    }

    /// Remembers something new of the cluster.
    pub(super) fn remember(
        &self,
        joined: &Joined,
        change: impl FnOnce(&mut Member),
    ) -> std::io::Result<()> {
        let mut next = joined.member();
        change(&mut next);
        if next != joined.member() {
            self.home.save(&next)?;
            joined.member.send_replace(next);
        }
        Ok(())
    }

    /// What the node says of itself; one that is just joining has no certificate yet.
    pub(super) fn description(
        &self,
        address: SocketAddr,
        data_path: IpAddr,
        identity: Option<&LiveIdentity>,
    ) -> Result<NodeDescription, facts::FactError> {
        let facts = facts::read()?;
        Ok(NodeDescription {
            hostname: self.hostname(&facts),
            address,
            data_path,
            os: std::env::consts::OS.to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            engine_version: env!("CARGO_PKG_VERSION").to_owned(),
            nano_cpus: facts.nano_cpus,
            memory: facts.memory,
            used_prefixes: facts.used_prefixes,
            certificate_expires: identity.map(renewal::expires),
        })
    }

    /// The node's name: given, or the machine's.
    pub fn hostname(&self, facts: &facts::Facts) -> String {
        self.settings.node_name.clone().unwrap_or_else(|| facts.hostname.clone())
    }

    /// Waits until the Raft engine of this node has died; returns why.
    pub async fn fatal(&self) -> String {
        let mut managers = self.managers.subscribe();
        loop {
            let manager = managers.borrow_and_update().clone();
            let fatal = async {
                match &manager {
                    Some(manager) => manager.fatal().await.to_string(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                why = fatal => return why,
                changed = managers.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Ends the loops and closes the files. Nothing in the kernel and no container changes.
    pub async fn shutdown(&self) {
        self.exit().await;
        self.worker.shutdown().await;
    }

    /// What the daemon was told.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is kept on disk.
    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    /// The worker.
    pub fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// Where the services find the manager.
    pub fn slot(&self) -> &ManagerSlot {
        &self.slot
    }

    /// The manager, if the node is one.
    pub fn manager(&self) -> Option<Arc<Manager>> {
        self.slot.load_full()
    }

    /// The membership, if there is one.
    pub fn joined(&self) -> Option<Arc<Joined>> {
        self.joined.borrow().clone()
    }

    /// Where managers are, as far as this node knows.
    pub fn known_managers(&self) -> Vec<SocketAddr> {
        let contact = self.worker.contact().borrow().managers.clone();
        match (contact.is_empty(), self.joined()) {
            (true, Some(joined)) => joined.member().managers,
            (true, None) | (false, _) => contact,
        }
    }
}

/// Routes and resolvers come and go; the leader must know, so that no subnet it chooses is over one
/// of them.
async fn refresh_facts(node: std::sync::Weak<Node>, joined: Arc<Joined>) {
    let mut every = tokio::time::interval(FACTS_EVERY);
    loop {
        every.tick().await;
        let Some(node) = node.upgrade() else { return };
        let member = joined.member();
        match node.description(member.address, member.data_path, Some(&joined.identity)) {
            Ok(next) => {
                joined.description.send_if_modified(|present| {
                    let changed = *present != next;
                    *present = next;
                    changed
                });
            }
            Err(error) => tracing::warn!(%error, "facts of this machine cannot be read"),
        }
    }
}

/// An error of a part with its causes.
pub(super) fn chain(error: impl std::error::Error + Send + Sync + 'static) -> anyhow::Error {
    anyhow::Error::new(error)
}
