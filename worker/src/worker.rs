//! The worker put together: started by the daemon, ended with it, and with nothing undone.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet};
use weft_dns::{Elsewhere, Server, Synced, Zones};
use weft_model::{Assignments, object::NodeDescription};
use weft_overlay::Reconciler;
use weft_proto::tls::LiveIdentity;

use crate::{
    attach::{self, Book, BookError, Ground, Keeper, LiveGround},
    cache::Cache,
    container::{self, Embedded, EmbeddedConfig, Holders, Runtime},
    health::HealthBook,
    local::{self, Defaults, Local},
    plumbing::{Assigned, HostKernel, LiveKernel, Plumbing, Source, Standing},
    report::ReportBook,
    session::{Contact, Dial, Session, grpc::GrpcDial},
    tasks::{self, Context},
    tunnel::{Choice, KeyBook, KeyError, Links, NoWireguard, Wish},
};

/// How long the removal of everything may take when the node leaves its cluster.
const LEAVE_DEADLINE: Duration = Duration::from_secs(60);

/// Between looks at what is still there while the node leaves.
const LEAVE_POLL: Duration = Duration::from_millis(50);

/// What a worker needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// What must outlive the machine's restart.
    pub state_dir: PathBuf,
    /// What need not.
    pub run_dir: PathBuf,
    /// What new networks and containers of this node get when nothing else is said.
    pub defaults: Defaults,
    /// What is to carry encrypted links.
    pub wireguard: Wish,
}

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The container runtime.
    #[error("the container runtime cannot start")]
    Runtime(#[from] container::Error),
    /// What is known of namespaces of others.
    #[error("what is attached here cannot be read")]
    Book(#[from] BookError),
    /// The thread that answers names.
    #[error("the resolver cannot start")]
    Names(#[source] std::io::Error),
    /// The node's own networks and containers.
    #[error("the local engine cannot start")]
    Local(#[from] local::StartError),
    /// What was to carry encrypted links.
    #[error(transparent)]
    Wireguard(#[from] NoWireguard),
    /// This node's keys of them.
    #[error("the keys of encrypted links cannot be read")]
    Keys(#[from] KeyError),
    /// The data plane.
    #[error("the data plane cannot start")]
    DataPlane(#[from] weft_overlay::ReconcilerError),
}

/// What a worker needs to be in a cluster.
pub struct Membership {
    /// The node's certificate.
    pub identity: LiveIdentity,
    /// What it says of itself.
    pub description: watch::Receiver<NodeDescription>,
    /// The incarnation of its Raft store, on a manager.
    pub raft_incarnation: watch::Receiver<Option<String>>,
    /// Managers known so far.
    pub managers: Vec<SocketAddr>,
    /// Random for each start of the daemon.
    pub boot: String,
    /// For the order of managers and the back-off.
    pub seed: [u8; 32],
}

/// The worker. Dropping it ends its tasks; containers, links and names stay as they are.
pub struct Worker {
    context: Arc<Context>,
    state_dir: PathBuf,
    cache: Cache,
    assigned: watch::Sender<Assigned>,
    contact: watch::Sender<Contact>,
    keeper: Arc<Keeper>,
    local: Option<Arc<Local>>,
    keys: Arc<KeyBook>,
    links: Option<Links>,
    running: tokio::sync::Mutex<JoinSet<()>>,
    session: tokio::sync::Mutex<JoinSet<()>>,
}

impl Worker {
    /// Starts in the calling thread's network namespace, and adopts what an earlier run left.
    ///
    /// # Errors
    /// When the runtime or the data plane cannot start.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let runtime = EmbeddedConfig::new(&config.run_dir, &config.state_dir);
        let runtime: Arc<dyn Runtime> = Arc::new(Embedded::new(runtime)?);
        let holders = Holders::new(&config.run_dir, &config.state_dir)?;
        let ground = |contact| -> Arc<dyn Ground> { LiveGround::new(holders, contact) };
        let own = local::Opened::open(&config.state_dir, config.defaults.clone())?;
        let choice = choose(config.wireguard, config.run_dir.clone()).await?;
        let kernel = LiveKernel::open(&config.run_dir)?;
        let carrier = Carrier { choice, kernel: Some(kernel.reconciler()) };
        Self::start_with(&config.state_dir, runtime, kernel, ground, Some(own), carrier).await
    }

    /// Starts over this runtime and this kernel, and adopts what an earlier run left there;
    /// `ground` has the namespaces of others.
    ///
    /// # Errors
    /// When the runtime does not tell what there is.
    pub async fn start_on(
        state_dir: &Path,
        runtime: Arc<dyn Runtime>,
        kernel: impl HostKernel,
        ground: Arc<dyn Ground>,
    ) -> Result<Self, StartError> {
        let carrier = Carrier::in_memory();
        Self::start_with(state_dir, runtime, kernel, |_| ground, None, carrier).await
    }

    /// The same with networks and containers of the node's own.
    ///
    /// # Errors
    /// Also when what is kept of them cannot be read.
    pub async fn start_local_on(
        state_dir: &Path,
        runtime: Arc<dyn Runtime>,
        kernel: impl HostKernel,
        ground: Arc<dyn Ground>,
        defaults: Defaults,
    ) -> Result<Self, StartError> {
        let own = local::Opened::open(state_dir, defaults)?;
        let carrier = Carrier::in_memory();
        Self::start_with(state_dir, runtime, kernel, |_| ground, Some(own), carrier).await
    }

    async fn start_with(
        state_dir: &Path,
        runtime: Arc<dyn Runtime>,
        kernel: impl HostKernel,
        ground: impl FnOnce(watch::Receiver<Contact>) -> Arc<dyn Ground>,
        own: Option<local::Opened>,
        carrier: Carrier,
    ) -> Result<Self, StartError> {
        let found = runtime.list().await?;
        let (own_leftovers, own_strangers, found) = match &own {
            Some(own) => own.sort_found(found),
            None => (local::Leftovers::new(), Vec::new(), found),
        };
        let (leftovers, mut strangers) = tasks::sort_found(found);
        strangers.extend(own_strangers);
        for stranger in strangers {
            if let Err(error) = runtime.remove(&stranger.id).await {
                tracing::warn!(container = %stranger.id, %error, "left over and not removed");
            }
        }
        let cache = Cache::new(state_dir);
        let kept = match cache.load() {
            Some(assignments) => (Source::Kept, Arc::new(assignments)),
            None => (Source::None, Arc::new(Assignments::default())),
        };
        let keys = Arc::new(KeyBook::open(state_dir, carrier.choice)?);
        let (assigned, told) = watch::channel(kept);
        let zones = Zones::new([], Elsewhere::default(), Synced::NotYet);
        let names = Arc::new(Server::start(zones).map_err(StartError::Names)?);
        let mut adopted = tasks::adopted(&leftovers);
        let book = Book::open(state_dir)?;
        let contact = watch::Sender::<Contact>::default();
        let ground = ground(contact.subscribe());
        adopted.extend(attach::adopted(&book, &*ground).await);
        adopted.extend(own.iter().flat_map(|own| own.adopted(&own_leftovers)));
        let of_own = own.as_ref().map(local::Opened::own);
        let plumbing =
            Plumbing::start(kernel, told.clone(), of_own, keys.end(), Arc::clone(&names), adopted);
        let reports = Arc::new(ReportBook::default());
        let health = Arc::default();
        let context =
            Arc::new(Context { runtime, plumbing, names, reports, health, assigned: told.clone() });
        let local = own.map(|own| own.into_local(Arc::clone(&context), Arc::clone(&ground)));
        let keeper = Keeper::new(book, ground, &context, local.clone());
        let mut running = JoinSet::new();
        if let Some(local) = &local {
            running.spawn(Arc::clone(local).run(own_leftovers));
        }
        running.spawn(Arc::clone(&keys).follow(told.clone(), context.plumbing.standing()));
        running.spawn(Arc::clone(&keys).follow_place(contact.subscribe()));
        let links = |kernel| Links { kernel, end: keys.end(), assigned: told.clone() };
        let links = carrier.kernel.map(links);
        running.spawn(tasks::run(Arc::clone(&context), told, leftovers));
        running.spawn(Arc::clone(&keeper).run());
        Ok(Self {
            context,
            state_dir: state_dir.to_owned(),
            cache,
            assigned,
            contact,
            keeper,
            local,
            keys,
            links,
            running: running.into(),
            session: JoinSet::new().into(),
        })
    }

    /// Opens a session with the managers, and keeps it open.
    pub async fn join(&self, membership: Membership) {
        let dial = GrpcDial::new(membership.identity.clone());
        self.keeper.show(Some(membership.identity.clone()));
        self.join_by(dial, membership).await;
    }

    /// The same by another way to them.
    pub async fn join_by(&self, dial: impl Dial, membership: Membership) {
        self.contact.send_modify(|contact| contact.managers = membership.managers.clone());
        let kept = self.assigned.borrow().1.clone();
        self.keys.begin(&kept);
        let session = Session {
            dial,
            description: membership.description,
            raft_incarnation: membership.raft_incarnation,
            boot: membership.boot,
            reports: Arc::clone(&self.context.reports),
            end: self.keys.end(),
            standing: self.context.plumbing.standing(),
            assigned: self.assigned.clone(),
            cache: self.cache.clone(),
            contact: self.contact.clone(),
            seed: membership.seed,
        };
        let mut sessions = self.session.lock().await;
        sessions.shutdown().await;
        sessions.spawn(session.run());
    }

    /// Ends the session and everything that came of it: containers, links, names.
    pub async fn leave(&self) {
        self.session.lock().await.shutdown().await;
        if !self.clear().await {
            tracing::error!("not everything of the cluster could be removed");
        }
        self.cache.erase();
        self.keys.erase();
        self.assigned.send_replace((Source::Alone, Arc::new(Assignments::default())));
        self.contact.send_replace(Contact::default());
        self.keeper.show(None);
    }

    /// Notes that a manager has said elsewhere than in a session that this node is no member.
    pub fn was_removed(&self) {
        self.contact.send_modify(|contact| contact.removed = true);
    }

    /// Ends everything that came of the session; says whether nothing of it is left.
    pub async fn clear(&self) -> bool {
        // An empty set from the managers means: nothing is wanted.
        self.assigned.send_replace((Source::Managers, Arc::new(Assignments::default())));
        let mut standing = self.context.plumbing.standing();
        let empty = async {
            loop {
                match self.tasks_left().await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "containers are not listed"),
                }
                tokio::time::sleep(LEAVE_POLL).await;
            }
            // The look that is going on may have begun before the last container was gone.
            for _ in 0..2 {
                let looks = standing.borrow_and_update().looks;
                self.context.plumbing.look_again();
                if standing.wait_for(|standing| standing.looks > looks).await.is_err() {
                    return;
                }
            }
            self.keeper.empty().await;
        };
        let cleared = tokio::time::timeout(LEAVE_DEADLINE, empty).await.is_ok();
        if cleared {
            self.cache.erase();
        }
        cleared
    }

    /// Containers of tasks that the runtime has.
    async fn tasks_left(&self) -> Result<usize, container::Error> {
        let found = self.context.runtime.list().await?;
        let state = self.local.as_ref().map(|local| local.state());
        let own = |found: &&container::Found| {
            let id = found.id.as_str().parse().ok();
            id.zip(state.as_ref()).is_some_and(|(id, state)| state.container(id).is_some())
        };
        Ok(found.iter().filter(|found| !own(found)).count())
    }

    /// The node is in no cluster: removes what a member left that is none any more, since a leave may
    /// have been cut short, and what else is of a cluster in the kernel.
    pub async fn leave_leftovers(&self) {
        let kept = self.assigned.borrow().0 == Source::Kept;
        let containers = self.tasks_left().await.is_ok_and(|left| left > 0);
        let attached = self.keeper.holds_any();
        if kept || containers || attached {
            self.leave().await;
        } else {
            self.keys.erase();
            self.assigned.send_replace((Source::Alone, Arc::new(Assignments::default())));
        }
    }

    /// The state of the contact with the managers.
    pub fn contact(&self) -> watch::Receiver<Contact> {
        self.contact.subscribe()
    }

    /// Where the data plane stands.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.context.plumbing.standing()
    }

    /// What the managers told.
    pub fn assigned(&self) -> watch::Receiver<Assigned> {
        self.assigned.subscribe()
    }

    /// The containers' runtime.
    pub fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.context.runtime)
    }

    /// What answers the containers' questions for names.
    pub fn names(&self) -> Arc<Server> {
        Arc::clone(&self.context.names)
    }

    /// Namespaces of others.
    pub fn keeper(&self) -> Arc<Keeper> {
        Arc::clone(&self.keeper)
    }

    /// The node's own containers and networks.
    pub fn local(&self) -> Option<Arc<Local>> {
        self.local.clone()
    }

    /// How well the containers of tasks are.
    pub fn health(&self) -> Arc<HealthBook> {
        Arc::clone(&self.context.health)
    }

    /// What carries the encrypted links of this node.
    pub fn carrier(&self) -> Choice {
        self.keys.end().borrow().choice.clone()
    }

    /// How the encrypted links do; none over a machine in memory.
    pub fn links(&self) -> Option<Links> {
        self.links.clone()
    }

    /// Where what outlives the machine's restart is kept.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Ends all loops, in order, before the process ends. Nothing in the kernel changes.
    pub async fn shutdown(&self) {
        self.session.lock().await.shutdown().await;
        self.running.lock().await.shutdown().await;
    }
}

/// What carries encrypted links.
struct Carrier {
    choice: Choice,
    /// Who can be asked how they do.
    kernel: Option<Arc<Reconciler>>,
}

impl Carrier {
    fn in_memory() -> Self {
        Self { choice: Choice::in_memory(), kernel: None }
    }
}

async fn choose(wish: Wish, run_dir: PathBuf) -> Result<Choice, StartError> {
    let chosen = move || Choice::new(wish).map(|choice| choice.keeping_lanes(&run_dir));
    let chosen = tokio::task::spawn_blocking(chosen).await;
    // It can only have panicked, which ends the daemon here, too.
    let choice = chosen.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    tracing::info!(
        engine = choice.engine.word(),
        reason = choice.reason,
        lanes = choice.lanes,
        "WireGuard"
    );
    Ok(choice)
}
