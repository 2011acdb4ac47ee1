//! The objects of the cluster. Specs are the user's; statuses are the observers'; all else was
//! decided by the leader and is carried by commands.

mod container;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use container::{Container, Endpoint, HealthState, LastRun, PortBinding, Wanted};

use crate::{
    id::{AttachmentId, ClusterId, ContainerId, NetworkId, NodeId, ServiceId, TaskId},
    spec::{ContainerSpec, NetworkSpec, NetworkUse, NodeSpec, Role, ServiceSpec},
    task_state::{Desired, TaskState},
    time::Time,
    tunnel::{Tunnel, WIREGUARD_PORT},
};

/// What every object carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Number of changes, the making included.
    pub version: u64,
    /// When it was made.
    pub created: Time,
    /// When it was last changed.
    pub updated: Time,
}

impl Meta {
    /// Of an object that is made now.
    pub fn new(now: Time) -> Self {
        Self { version: 1, created: now, updated: now }
    }

    /// Notes a change.
    pub fn touch(&mut self, now: Time) {
        self.version += 1;
        self.updated = now;
    }
}

/// Why something is not yet as wished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stuck {
    /// What is in the way.
    pub reason: String,
    /// What can be done; may be empty.
    pub hint: String,
    /// Since when.
    pub since: Time,
}

// ---- cluster

/// What operators set for the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// Where subnets are cut from when none is given.
    pub pools: Vec<IpNet>,
    /// Prefix length of such subnets.
    pub subnet_size: u8,
    /// UDP port of the overlays' outer packets.
    pub data_path_port: u16,
    /// Life of node certificates.
    pub certificate_expiry: Duration,
    /// Ended tasks kept for each slot, the present one included.
    pub task_history_limit: u32,
    /// Overlays are encrypted unless they say otherwise.
    #[serde(default)]
    pub encrypt_overlays: bool,
    /// First UDP port of WireGuard.
    #[serde(default = "wireguard_port")]
    pub wireguard_port: u16,
    /// Age at which a node's WireGuard key is replaced; none leaves that to operators.
    #[serde(default)]
    pub key_rotation: Option<Duration>,
}

fn wireguard_port() -> u16 {
    WIREGUARD_PORT
}

impl Default for ClusterSpec {
    /// Docker's values.
    fn default() -> Self {
        Self {
            pools: vec!["10.0.0.0/8".parse().expect("a prefix")],
            subnet_size: 24,
            data_path_port: 4789,
            certificate_expiry: Duration::from_secs(24 * 3600),
            task_history_limit: 5,
            encrypt_overlays: false,
            wireguard_port: WIREGUARD_PORT,
            key_rotation: Some(Duration::from_secs(24 * 3600)),
        }
    }
}

/// The secret half of a join token.
pub type Secret = [u8; 16];

/// A join token beside the standing ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraToken {
    /// What the joining node shows.
    pub secret: Secret,
    /// What it becomes.
    pub role: Role,
    /// Not valid from then on.
    pub expires: Option<Time>,
    /// How many more nodes may join with it.
    pub uses: Option<u32>,
}

/// What nodes join with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// The standing token for workers.
    pub worker: Secret,
    /// The standing token for managers.
    pub manager: Secret,
    /// Those that expire.
    pub extra: Vec<ExtraToken>,
}

/// The cluster itself; there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its name in certificates.
    pub id: ClusterId,
    /// Versions and times.
    pub meta: Meta,
    /// What operators set.
    pub spec: ClusterSpec,
    /// What nodes join with.
    pub tokens: Tokens,
    /// PEM of the root certificate.
    pub root_certificate: String,
    /// PEM of its private key.
    pub root_key: String,
    /// The number the next node gets; never goes back.
    pub next_number: u64,
    /// The VNI given out last.
    pub last_vni: Option<u32>,
}

// ---- nodes

/// Whether a node is heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// It has joined and has not yet spoken.
    Unknown,
    /// It is in touch.
    Ready,
    /// Not heard of for a few seconds: its tasks are hidden.
    Silent,
    /// Not heard of for longer: its tasks are replaced.
    Down,
}

impl NodeState {
    /// The word in tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ready => "ready",
            Self::Silent => "silent",
            Self::Down => "down",
        }
    }
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDescription {
    /// Its name; need not be unique.
    pub hostname: String,
    /// Where its control connections are taken.
    pub address: SocketAddr,
    /// Where its overlays' outer packets come from and go to (VTEP).
    pub data_path: IpAddr,
    /// "linux"
    pub os: String,
    /// "x86_64"
    pub architecture: String,
    /// Version of its daemon.
    pub engine_version: String,
    /// 1e9 is one CPU.
    pub nano_cpus: u64,
    /// Bytes.
    pub memory: u64,
    /// Prefixes of its routes and resolvers, that no chosen subnet may overlap.
    pub used_prefixes: BTreeSet<IpNet>,
    /// Until when its certificate is good; a node that joins has none yet.
    #[serde(default)]
    pub certificate_expires: Option<Time>,
}

/// Between the serial numbers that a revocation answers with.
pub const SERIALS_BETWEEN: &str = " ";

/// A certificate of a client of the API, remembered until it expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate {
    /// In lower-case hexadecimal: the name of this one certificate.
    pub serial: String,
    /// Whose it is; a client may have several.
    pub name: String,
    /// When it was signed.
    pub issued: Time,
    /// Until when it is good.
    pub expires: Time,
    /// From when on it counts for nothing.
    pub revoked: Option<Time>,
}

/// A node that was put out while nobody could say what still runs on it. What it held stays held
/// until it has said that nothing is left, or somebody says so by force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedNode {
    /// What it was named.
    pub id: NodeId,
    /// Its name.
    pub hostname: String,
    /// Where it was.
    pub address: SocketAddr,
    /// Its VTEP.
    pub data_path: IpAddr,
    /// When it was removed.
    pub since: Time,
}

/// A machine in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name in certificates.
    pub id: NodeId,
    /// Versions and times.
    pub meta: Meta,
    /// Its number in Raft and in derived addresses; never reused.
    pub number: u64,
    /// What operators set.
    pub spec: NodeSpec,
    /// What it says of itself.
    pub description: NodeDescription,
    /// Whether it is heard of.
    pub state: NodeState,
    /// Since when.
    pub since: Time,
    /// Why it is in that state.
    pub message: String,
    /// Whether it is down because it has left: nothing of the cluster is on it then.
    #[serde(default)]
    pub left: bool,
    /// For managers: the incarnation of its Raft store, that others check.
    pub raft_incarnation: Option<String>,
    /// Its end of the encrypted links, once it has said what it has.
    #[serde(default)]
    pub tunnel: Option<Tunnel>,
}

impl Node {
    /// Whether its running tasks are to be found by name.
    pub fn in_touch(&self) -> bool {
        match self.state {
            NodeState::Ready => true,
            NodeState::Unknown | NodeState::Silent | NodeState::Down => false,
        }
    }
}

// ---- networks

/// A subnet of a network, as decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The prefix.
    pub cidr: IpNet,
    /// The same on every node.
    pub gateway: IpAddr,
    /// The part that addresses are chosen from.
    pub range: IpNet,
    /// Never given out.
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// The address given out last.
    pub cursor: Option<IpAddr>,
    /// Addresses released a short while ago, and when.
    pub resting: BTreeMap<IpAddr, Time>,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name for ever.
    pub id: NetworkId,
    /// Versions and times.
    pub meta: Meta,
    /// The user's words.
    pub spec: NetworkSpec,
    /// Of an overlay, and of nothing else: its identifier on the wire.
    pub vni: Option<u32>,
    /// Its subnets, of either family; at least one, but for `host` and `none`.
    pub subnets: Vec<Subnet>,
    /// Of an overlay: what travels between nodes is encrypted.
    #[serde(default)]
    pub encrypted: bool,
}

/// Who holds an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Holder {
    /// The container of a task.
    Task(TaskId),
    /// A namespace that somebody else owns: the [`Foreign`] of the attachment's own ID.
    Foreign(AttachmentId),
    /// A container of this node.
    Container(ContainerId),
}

/// A network namespace that somebody else owns (another runtime's, a test's), put on an attachable
/// network by an administrator of its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// Its name for ever, and its attachment's.
    pub id: AttachmentId,
    /// Versions and times.
    pub meta: Meta,
    /// What it is found by; no other member of the network has it.
    pub name: String,
    /// What else it is found by; others may have the same.
    pub aliases: Vec<String>,
    /// The network.
    pub network: NetworkId,
    /// The node that the namespace is on.
    pub node: NodeId,
    /// The service it answers for beside the service's own tasks.
    pub service: Option<ServiceId>,
    /// The node has seen the kernel carry it.
    pub ready: bool,
}

/// One network namespace's membership in one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its name.
    pub id: AttachmentId,
    /// The network.
    pub network: NetworkId,
    /// Whose it is.
    pub holder: Holder,
    /// One of each family of the network.
    pub addresses: Vec<IpAddr>,
    /// Derived from the addresses, unless a container asked for another.
    pub mac: [u8; 6],
    /// The node it is on, once that is decided. On a network of the node itself there is none to
    /// name.
    pub node: Option<NodeId>,
}

// ---- services and tasks

/// How far a change of a service has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// What is going on.
    pub state: UpdateState,
    /// When it began.
    pub started: Time,
    /// When it ended, if so.
    pub completed: Option<Time>,
    /// In words.
    pub message: String,
}

/// Phases of a change of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateState {
    /// Tasks are being replaced.
    Updating,
    /// A task failed; nothing more is replaced.
    Paused,
    /// All tasks are as the spec says.
    Completed,
    /// The former spec is coming back.
    RollbackStarted,
    /// That failed, too.
    RollbackPaused,
    /// The former spec is back.
    RollbackCompleted,
}

impl UpdateState {
    /// The word in JSON, as in Docker.
    pub fn word(self) -> &'static str {
        match self {
            Self::Updating => "updating",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::RollbackStarted => "rollback_started",
            Self::RollbackPaused => "rollback_paused",
            Self::RollbackCompleted => "rollback_completed",
        }
    }
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name for ever.
    pub id: ServiceId,
    /// Versions and times.
    pub meta: Meta,
    /// The user's words.
    pub spec: Arc<ServiceSpec>,
    /// The words before the last change.
    pub previous: Option<Arc<ServiceSpec>>,
    /// Version of the service at the last change of what tasks are made from.
    pub spec_version: u64,
    /// Virtual addresses, by network: one of each family.
    pub vips: BTreeMap<NetworkId, Vec<IpAddr>>,
    /// The change that is going on or went on last.
    pub update: Option<UpdateStatus>,
}

/// Which of a service's places a task fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Slot {
    /// The n-th replica, from 1.
    Replica(u32),
    /// The one of a global service on this node.
    Node(NodeId),
}

/// What was observed of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// How far it has come.
    pub state: TaskState,
    /// Since when.
    pub since: Time,
    /// In words: "started", "task: non-zero exit (1)".
    pub message: String,
    /// What went wrong, if so.
    pub error: String,
    /// Of the container.
    pub exit_code: Option<i32>,
    /// Of the container's first process, on its node.
    pub pid: u32,
    /// Its health check has failed too often: nobody is to find it, and it is about to end.
    #[serde(default)]
    pub unhealthy: bool,
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its name, and the container's.
    pub id: TaskId,
    /// Versions and times.
    pub meta: Meta,
    /// Whose it is.
    pub service: ServiceId,
    /// The service's name, which outlives it here.
    pub service_name: String,
    /// Which place it fills.
    pub slot: Slot,
    /// What it is made from, as the service's spec had it.
    pub container: Arc<ContainerSpec>,
    /// What it is on.
    pub networks: Arc<Vec<NetworkUse>>,
    /// `Service::spec_version` it was made at.
    pub spec_version: u64,
    /// Where it is.
    pub node: Option<NodeId>,
    /// What the cluster wants of it.
    pub desired: Desired,
    /// What was observed.
    pub status: TaskStatus,
    /// Its memberships, in the order of `networks`.
    pub attachments: Vec<AttachmentId>,
    /// Not to be started earlier.
    pub start_at: Time,
    /// How many tasks of this slot failed in a row before it.
    pub attempt: u32,
    /// Since when it ran, or had run when it ended; none if it never came so far.
    #[serde(default)]
    pub ran_since: Option<Time>,
    /// Why it waits.
    pub stuck: Option<Stuck>,
    /// The node has nothing of it any more (or never had).
    pub released: bool,
}

impl Task {
    /// `web.1`, or `web.<short node ID>` for a global service.
    pub fn name(&self) -> String {
        match self.slot {
            Slot::Replica(number) => format!("{}.{number}", self.service_name),
            Slot::Node(node) => format!("{}.{}", self.service_name, node.short()),
        }
    }

    /// `web.1.<task ID>`, with as much of the ID as Docker's have: a whole one is longer than a
    /// label of a domain name may be (63 bytes, RFC 1035 section 2.3.4), and the container could
    /// not be looked up.
    pub fn container_name(&self) -> String {
        const DIGITS: usize = 25;
        format!("{}.{}", self.name(), &self.id.to_string()[..DIGITS])
    }

    /// Whether the cluster still wants it and it can still run.
    pub fn is_live(&self) -> bool {
        self.desired == Desired::Running && !self.status.state.is_final()
    }
}
