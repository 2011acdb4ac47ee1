//! What a daemon does with its machine: it opens the manager's store and starts the worker.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinSet};
use weft_manager::{
    Manager, ManagerConfig, ManagerSlot, ManagerTimings,
    store::{self, Backend, LogLimits},
};
use weft_model::{
    Cluster, ClusterId, Command, NodeId, Proposal,
    command::NewNode,
    object::{ClusterSpec, Meta, NodeDescription, Tokens},
    spec::{NodeSpec, Role},
};
use weft_proto::tls::LiveIdentity;
use weft_worker::{Worker, worker::Membership};

use super::{
    HOSTS, MANAGERS,
    audit::Audit,
    clock::{SimClock, WallClock},
    ground::SimGround,
    home::{Home, Member},
    kernel::Plane,
    keys::Told,
    link::{Dialler, Links},
    machine::Machine,
    net::{Answer, HostId, Net, Parcel, Wire},
    request::{Call, Shown},
    runtime::FakeRuntime,
    trace::Trace,
};

/// The log is compacted often, so that snapshots are sent and read.
const LIMITS: LogLimits = LogLimits { snapshot_after: 40, keep: 20, promote_lag: 200, reserve: 0 };
/// Prefix length of networks: so few addresses that released ones are needed again at once.
const SUBNET: u8 = 29;
/// Age at which keys are rotated: the shortest there is.
pub(super) const KEY_ROTATION: Duration = Duration::from_secs(60);
/// How long the others may take to put a demoted manager out of Raft before its store is closed.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(3);
/// How long a joining machine waits for one answer.
const JOIN_PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries to join.
const JOIN_RETRY: Duration = Duration::from_millis(500);
/// Secrets of the join tokens: worker's and manager's.
const SECRETS: ([u8; 16], [u8; 16]) = ([1; 16], [2; 16]);

/// A machine and what it is connected to. Clones are the same one.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) id: HostId,
    pub(super) seed: u64,
    pub(super) clock: SimClock,
    pub(super) net: Net,
    pub(super) trace: Trace,
    pub(super) audit: Audit,
    pub(super) identity: LiveIdentity,
    pub(super) links: Links,
    /// What it knows of itself, and the manager's store.
    pub(super) home: Home,
    /// The worker's.
    pub(super) dir: Arc<TempDir>,
    pub(super) machine: Machine,
    /// What it was told of keys.
    pub(super) told: Told,
    /// Milliseconds that its wall clock is fast.
    pub(super) skew: i64,
    /// Whether the cluster was made by this host.
    pub(super) founded: Arc<AtomicBool>,
}

impl Site {
    pub(super) fn name(&self) -> String {
        host_name(self.id)
    }

    pub(super) fn note(&self, what: impl std::fmt::Display) {
        self.trace.note(&self.name(), what);
    }
}

pub(super) fn host_name(host: HostId) -> String {
    format!("n{host}")
}

/// The node that a host is in one of its lives; in the first it is one from the beginning.
pub(super) fn node_id(host: HostId, life: u8) -> NodeId {
    let mut bytes = [host; 32];
    bytes[31] = life;
    NodeId::from_bytes(bytes)
}

/// What a host is from the beginning: they are let in by their numbers.
pub(super) fn first_member(host: HostId) -> Member {
    let managers = (1..=MANAGERS).map(address).collect();
    Member { node: node_id(host, 0), number: host.into(), role: role(host), managers }
}

/// Where its control connections are taken.
pub(super) fn address(host: HostId) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 2377))
}

fn cluster_id() -> ClusterId {
    ClusterId::from_bytes([0xc1; 32])
}

fn role(host: HostId) -> Role {
    if host <= MANAGERS { Role::Manager } else { Role::Worker }
}

/// What a host says of itself.
pub(super) fn description(host: HostId) -> NodeDescription {
    NodeDescription {
        hostname: host_name(host),
        address: address(host),
        data_path: address(host).ip(),
        os: "linux".to_owned(),
        architecture: "x86_64".to_owned(),
        engine_version: "0".to_owned(),
        nano_cpus: 4_000_000_000,
        memory: 8 << 30,
        used_prefixes: [].into(),
        certificate_expires: None,
    }
}

/// Where the rest of the simulation finds what runs in a daemon.
#[derive(Clone)]
pub(super) struct Slots {
    pub(super) manager: ManagerSlot,
    pub(super) worker: Arc<ArcSwapOption<Worker>>,
}

impl Slots {
    pub(super) fn empty() -> Self {
        let (manager, worker) =
            (Arc::new(ArcSwapOption::empty()), Arc::new(ArcSwapOption::empty()));
        Self { manager, worker }
    }
}

/// One life of a daemon. Everything it starts ends with its runtime.
pub(super) async fn run(site: Site, slots: Slots, start: u64) {
    let mut random = StdRng::seed_from_u64(site.seed ^ start.rotate_left(32));
    let member = match site.home.member() {
        Some(member) => member,
        None => join(&site).await,
    };
    let boot = format!("{:032x}", random.random::<u128>());
    let seed = random.random();
    let (incarnation, raft_incarnation) = watch::channel(None);
    let mut life = Life { site, slots, random, running: JoinSet::new(), incarnation };
    if member.role == Role::Manager && !life.manage(&member).await {
        return;
    }
    // The session ends when the sender does.
    let (_described, description) = watch::channel(description(life.site.id));
    let membership = Membership {
        identity: life.site.identity.clone(),
        description,
        raft_incarnation,
        managers: member.managers.clone(),
        boot,
        seed,
    };
    let Some(worker) = life.work(&member).await else { return };
    let (links, host) = (life.site.links.clone(), life.site.id);
    let dialler = Dialler { links, host, node: member.node, told: life.site.told.clone() };
    worker.join_by(dialler, membership).await;
    life.found().await;
    life.follow(&worker).await;
}

/// One life of a daemon that is a member.
struct Life {
    site: Site,
    slots: Slots,
    random: StdRng,
    /// What runs beside the manager and ends with it.
    running: JoinSet<()>,
    /// Of the manager's store, for the session.
    incarnation: watch::Sender<Option<String>>,
}

impl Life {
    /// Opens the store and leads or follows; false when it cannot be opened.
    async fn manage(&mut self, member: &Member) -> bool {
        let opened = match open(&self.site, member, self.random.random()).await {
            Ok(opened) => opened,
            Err(error) => {
                self.site.trace.violated(&self.site.name(), format!("{error:?}"));
                return false;
            }
        };
        self.slots.manager.store(Some(Arc::new(opened.clone())));
        self.site.note(format!("has store {:.4}", opened.raft_incarnation()));
        self.incarnation.send_replace(Some(opened.raft_incarnation()));
        self.running.spawn(self.site.audit.clone().follow(self.site.name(), opened.clone()));
        self.running.spawn(leads(self.site.clone(), opened.clone()));
        self.running.spawn(dies(self.site.clone(), opened));
        true
    }

    async fn work(&self, member: &Member) -> Option<Arc<Worker>> {
        let Site { dir, machine, net, id, .. } = &self.site;
        let runtime = Arc::new(FakeRuntime::new(machine.clone()));
        let (machine, net, node) = (machine.clone(), net.clone(), member.node);
        let plane = Plane::new(machine.clone());
        let ground = Arc::new(SimGround { machine, net, host: *id, node });
        match Worker::start_on(dir.path(), runtime, plane, ground).await {
            Ok(worker) => {
                let worker = Arc::new(worker);
                self.slots.worker.store(Some(Arc::clone(&worker)));
                Some(worker)
            }
            Err(error) => {
                self.site.trace.violated(&self.site.name(), format!("{error:?}"));
                None
            }
        }
    }

    /// The first host makes the cluster.
    async fn found(&self) {
        let Some(manager) = self.slots.manager.load_full().filter(|_| self.site.id == 1) else {
            return;
        };
        if self.site.founded.load(Ordering::Relaxed) {
            return;
        }
        match found(&self.site, &manager).await {
            Ok(()) => self.site.founded.store(true, Ordering::Relaxed),
            Err(error) => {
                self.site.trace.violated(&self.site.name(), format!("no cluster: {error}"));
            }
        }
    }

    /// Becomes what the cluster wants this node to be, for ever.
    async fn follow(&mut self, worker: &Worker) {
        let mut contact = worker.contact();
        loop {
            let (managers, wanted) = {
                let now = contact.borrow_and_update();
                (now.managers.clone(), now.role)
            };
            if !managers.is_empty() {
                self.site.home.change(|member| member.managers = managers);
            }
            let Some(member) = self.site.home.member() else { return };
            match wanted.filter(|role| *role != member.role) {
                Some(Role::Manager) => self.become_manager(&member).await,
                Some(Role::Worker) => self.become_worker(&member).await,
                None => {}
            }
            if contact.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn become_manager(&mut self, member: &Member) {
        // A store of an earlier time as manager has that time's promises in it.
        self.site.home.erase_raft();
        if self.manage(member).await {
            self.site.home.change(|member| member.role = Role::Manager);
            self.site.note("is a manager now");
        }
    }

    async fn become_worker(&mut self, member: &Member) {
        if let Some(manager) = self.slots.manager.load_full() {
            let mut changes = manager.store().watch();
            let removed = async {
                while manager.store().voters().iter().any(|voter| voter.number == member.number) {
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
            };
            // The others go on without its consent if they have to.
            let _ = tokio::time::timeout(REMOVAL_DEADLINE, removed).await;
            self.slots.manager.store(None);
            self.incarnation.send_replace(None);
            self.running.shutdown().await;
            manager.shutdown().await;
        }
        self.site.home.change(|member| member.role = Role::Worker);
        self.site.home.erase_raft();
        self.site.note("is a worker now");
    }
}

/// Asks to be taken in until it is: a machine that has nothing becomes a new node.
async fn join(site: &Site) -> Member {
    let life = site.home.next_life();
    let spec = NodeSpec { role: Role::Worker, ..NodeSpec::default() };
    let node = NewNode { id: node_id(site.id, life), spec, description: description(site.id) };
    let request = format!("join-host-{:04}-life-{life:04}", site.id);
    loop {
        let manager = site.machine.lock().random.random_range(1..=HOSTS);
        let body = Call::Join { request: request.clone(), node: node.clone(), secret: SECRETS.0 };
        let parcel = |call| Parcel::Api { call, client: site.id, hops: 0, body };
        match site.net.ask(site.id, manager, parcel).answer(JOIN_PATIENCE).await {
            Some(Answer::Api(Ok(Shown::Number(number)))) => {
                site.note(format!("is a new node, number {number}"));
                let managers = vec![address(manager)];
                let member = Member { node: node.id, number, role: Role::Worker, managers };
                site.home.save(member.clone());
                return member;
            }
            // Perhaps its former self is not yet known to be gone.
            _ => tokio::time::sleep(JOIN_RETRY).await,
        }
    }
}

async fn open(
    site: &Site,
    member: &Member,
    seed: [u8; 32],
) -> Result<Manager, weft_manager::StartError> {
    let config = ManagerConfig {
        dir: "/nowhere".into(),
        node: member.node,
        number: member.number,
        cluster: cluster_id(),
        address: address(site.id),
        identity: site.identity.clone(),
        clock: Arc::new(WallClock { clock: site.clock.clone(), skew: site.skew }),
        seed,
        timings: ManagerTimings::default(),
        limits: LIMITS,
    };
    let wire = Wire { net: site.net.clone(), host: site.id, number: member.number };
    Manager::open_on(config, Backend::Memory(site.home.raft()), wire).await
}

/// Makes the cluster, and lets all hosts in.
async fn found(site: &Site, manager: &Manager) -> Result<(), String> {
    let (worker, manager_secret) = SECRETS;
    let cluster = Cluster {
        id: cluster_id(),
        meta: Meta::default(),
        spec: ClusterSpec {
            subnet_size: SUBNET,
            key_rotation: Some(KEY_ROTATION),
            ..ClusterSpec::default()
        },
        tokens: Tokens { worker, manager: manager_secret, extra: Vec::new() },
        root_certificate: String::new(),
        root_key: String::new(),
        next_number: 1,
        last_vni: None,
    };
    let (first, own) = (new_node(site.id), address(site.id).to_string());
    manager.found(own, cluster, first).await.map_err(|error| format!("{error:?}"))?;
    for host in 2..=HOSTS {
        let secret = if role(host) == Role::Manager { manager_secret } else { worker };
        let commands = vec![Command::AddNode { node: new_node(host), secret }];
        let proposal = Proposal { request: None, now: manager.view().now(), commands };
        let (_, outcome) =
            manager.store().propose(proposal).await.map_err(|error| error.to_string())?;
        outcome.into_result().map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn new_node(host: HostId) -> NewNode {
    let spec = NodeSpec { role: role(host), ..NodeSpec::default() };
    NewNode { id: node_id(host, 0), spec, description: description(host) }
}

/// Notes when this manager begins and ends to lead, and whom it takes for members.
async fn leads(site: Site, manager: Manager) {
    let (mut leadership, mut changes) = (manager.store().leadership(), manager.store().watch());
    let (mut led, mut known) = (None, None);
    loop {
        let now = leadership.borrow_and_update().clone();
        let leads = now.is_leader().then_some(now.term);
        if leads != led {
            site.note(match leads {
                Some(term) => format!("leads in term {term}"),
                None => "leads no more".to_owned(),
            });
            led = leads;
        }
        let store = manager.store();
        let members = (store.voters(), store.status().learners);
        if known.as_ref() != Some(&members) {
            site.note(format!("voters {}, learners {}", listed(&members.0), listed(&members.1)));
            known = Some(members);
        }
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

/// The numbers of members and the beginnings of their stores' names.
fn listed(members: &[store::Member]) -> String {
    let member =
        |member: &store::Member| format!("{}:{:.4}", member.number, member.incarnation.to_string());
    let members: Vec<_> = members.iter().map(member).collect();
    format!("[{}]", members.join(" "))
}

/// An engine that dies although its disk is well has a bug.
async fn dies(site: Site, manager: Manager) {
    let error = manager.fatal().await;
    site.trace.violated(&site.name(), format!("{error}"));
}
