//! What a daemon does with its machine: it opens the manager's store and starts the worker.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinSet};
use weft_manager::{
    Manager, ManagerConfig, ManagerSlot, ManagerTimings,
    store::{Backend, LogLimits, MemoryDisk},
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
    kernel::Plane,
    link::{Dialler, Links},
    machine::Machine,
    net::{HostId, Net, Wire},
    runtime::FakeRuntime,
    trace::Trace,
};

/// The log is compacted often, so that snapshots are sent and read.
const LIMITS: LogLimits = LogLimits { snapshot_after: 40, keep: 20, promote_lag: 200 };
/// Prefix length of networks: so few addresses that released ones are needed again at once.
const SUBNET: u8 = 28;
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
    /// The manager's.
    pub(super) disk: MemoryDisk,
    /// The worker's.
    pub(super) dir: Arc<TempDir>,
    pub(super) machine: Machine,
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

/// The node of a host.
pub(super) fn node_id(host: HostId) -> NodeId {
    NodeId::from_bytes([host; 32])
}

/// Where its control connections are taken.
pub(super) fn address(host: HostId) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 2377))
}

fn cluster_id() -> ClusterId {
    ClusterId::from_bytes([0xc1; 32])
}

pub(super) fn role(host: HostId) -> Role {
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
    let mut running = JoinSet::new();
    let mut manager = None;
    if role(site.id) == Role::Manager {
        match open(&site, random.random()).await {
            Ok(opened) => {
                slots.manager.store(Some(Arc::new(opened.clone())));
                running.spawn(site.audit.clone().follow(site.name(), opened.clone()));
                running.spawn(leads(site.clone(), opened.clone()));
                running.spawn(dies(site.clone(), opened.clone()));
                manager = Some(opened);
            }
            Err(error) => return site.trace.violated(&site.name(), format!("{error:?}")),
        }
    }
    let incarnation = manager.as_ref().map(Manager::raft_incarnation);
    let boot = format!("{:032x}", random.random::<u128>());
    // The session ends when the senders do.
    let (_described, description) = watch::channel(description(site.id));
    let (_incarnated, raft_incarnation) = watch::channel(incarnation);
    let membership = Membership {
        identity: site.identity.clone(),
        description,
        raft_incarnation,
        managers: (1..=MANAGERS).map(address).collect(),
        boot,
        seed: random.random(),
    };
    let runtime = Arc::new(FakeRuntime::new(site.machine.clone()));
    let ground = Arc::new(SimGround {
        machine: site.machine.clone(),
        net: site.net.clone(),
        host: site.id,
        node: node_id(site.id),
    });
    let plane = Plane::new(site.machine.clone());
    match Worker::start_on(site.dir.path(), runtime, plane, ground).await {
        Ok(worker) => {
            let worker = Arc::new(worker);
            slots.worker.store(Some(Arc::clone(&worker)));
            let node = node_id(site.id);
            let dialler = Dialler { links: site.links.clone(), host: site.id, node };
            worker.join_by(dialler, membership).await;
        }
        Err(error) => return site.trace.violated(&site.name(), format!("{error:?}")),
    }
    if let Some(manager) = manager.filter(|_| site.id == 1)
        && !site.founded.load(Ordering::Relaxed)
    {
        match found(&site, &manager).await {
            Ok(()) => site.founded.store(true, Ordering::Relaxed),
            Err(error) => site.trace.violated(&site.name(), format!("no cluster: {error}")),
        }
    }
    while running.join_next().await.is_some() {}
    // A worker's host has nothing to wait for, and keeps its session all the same.
    std::future::pending::<()>().await;
}

async fn open(site: &Site, seed: [u8; 32]) -> Result<Manager, weft_manager::StartError> {
    let config = ManagerConfig {
        dir: "/nowhere".into(),
        node: node_id(site.id),
        number: u64::from(site.id),
        cluster: cluster_id(),
        address: address(site.id),
        identity: site.identity.clone(),
        clock: Arc::new(WallClock { clock: site.clock.clone(), skew: site.skew }),
        seed,
        timings: ManagerTimings::default(),
        limits: LIMITS,
    };
    let wire = Wire { net: site.net.clone(), host: site.id };
    Manager::open_on(config, Backend::Memory(site.disk.clone()), wire).await
}

/// Makes the cluster, and lets all hosts in.
async fn found(site: &Site, manager: &Manager) -> Result<(), String> {
    let (worker, manager_secret) = SECRETS;
    let cluster = Cluster {
        id: cluster_id(),
        meta: Meta::default(),
        spec: ClusterSpec { subnet_size: SUBNET, ..ClusterSpec::default() },
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
    NewNode { id: node_id(host), spec, description: description(host) }
}

/// Notes when this manager begins and ends to lead.
async fn leads(site: Site, manager: Manager) {
    let mut leadership = manager.store().leadership();
    let mut led = None;
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
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// An engine that dies although its disk is well has a bug.
async fn dies(site: Site, manager: Manager) {
    let error = manager.fatal().await;
    site.trace.violated(&site.name(), format!("{error}"));
}
