//! Decided changes: the only thing in the log.
//!
//! A command carries the decision (this VNI, this address, this node, this time), never the wish.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        self, MapAccess, SeqAccess, Unexpected, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

use crate::{
    cable::CableEnd,
    id::{AttachmentId, CableId, ContainerId, NetworkId, NodeId, RequestId, ServiceId, TaskId},
    object::{
        ClientCertificate, Cluster, ClusterSpec, ExtraToken, LastRun, NodeDescription, NodeState,
        PortBinding, Secret, Slot, Stuck, Subnet, UpdateStatus, Wanted,
    },
    rejected::Rejected,
    spec::{EndpointSpec, NetworkSpec, NodeSpec, Role, RunSpec, ServiceSpec},
    task_state::{Desired, TaskState},
    time::Time,
    tunnel::{Rotation, TunnelReport},
};

/// What one entry of the log holds: commands that are applied one after the other, each wholly or
/// not at all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// Names the write, so that a retry finds the first result.
    pub request: Option<Named>,
    /// The leader's clock.
    pub now: Time,
    /// What to do.
    pub commands: Vec<Command>,
}

/// The name of a write, and what was asked for under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// The caller's name for it.
    pub id: RequestId,
    /// What was asked for, if the name itself does not say so.
    pub digest: Option<Digest>,
}

/// The first eight bytes of a SHA-256 of a request: enough to tell two requests of one caller apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest(pub u64);

/// A log of before there were digests has the name alone.
impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamedInLog)
    }
}

/// Takes either as it comes. An enumeration without tags would keep all that it reads until it knows which
/// it is: a mebibyte for each level of lists in lists, which three bytes can begin.
struct NamedInLog;

#[derive(Deserialize)]
struct Both {
    id: RequestId,
    digest: Option<Digest>,
}

impl From<Both> for Named {
    fn from(Both { id, digest }: Both) -> Self {
        Self { id, digest }
    }
}

impl<'de> Visitor<'de> for NamedInLog {
    type Value = Named;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a write, alone or with its digest")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Named, E> {
        let id = RequestId::new(text).map(Named::from);
        id.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Named, A::Error> {
        Both::deserialize(MapAccessDeserializer::new(map)).map(Named::from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Named, A::Error> {
        Both::deserialize(SeqAccessDeserializer::new(list)).map(Named::from)
    }
}

impl From<RequestId> for Named {
    fn from(id: RequestId) -> Self {
        Self { id, digest: None }
    }
}

/// What applying a proposal gave: a result for each command.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// In the order of the commands.
    pub results: Vec<Result<Applied, Rejected>>,
}

impl Outcome {
    /// The result of a proposal of one command.
    ///
    /// # Errors
    /// The refusal of the first command that was refused.
    pub fn into_result(self) -> Result<Applied, Rejected> {
        let mut last = Applied::default();
        for result in self.results {
            last = result?;
        }
        Ok(last)
    }
}

/// What a command made or changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// ID of the object, as text; empty where there is none to name.
    pub id: String,
}

/// A node that joins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewNode {
    /// Its name in certificates.
    pub id: NodeId,
    /// Role and availability.
    pub spec: NodeSpec,
    /// What it says of itself.
    pub description: NodeDescription,
}

/// An attachment whose addresses were chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewAttachment {
    /// Its name.
    pub id: AttachmentId,
    /// The network.
    pub network: NetworkId,
    /// One of each family of the network.
    pub addresses: Vec<IpAddr>,
}

/// A namespace of somebody else that joins a network, with the addresses that were chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewForeign {
    /// Its name for ever; drawn by the node, which has written it down before it asks.
    pub id: AttachmentId,
    /// The network.
    pub network: NetworkId,
    /// The node that the namespace is on.
    pub node: NodeId,
    /// What it is found by.
    pub name: String,
    /// What else it is found by.
    pub aliases: Vec<String>,
    /// The service it answers for.
    pub service: Option<ServiceId>,
    /// One of each family of the network.
    pub addresses: Vec<IpAddr>,
}

/// What was decided of a container's membership in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEndpoint {
    /// Its name for ever; drawn by the node. On a network of the cluster, the attachment that the
    /// managers are asked for.
    pub attachment: AttachmentId,
    /// One of each family of the network; none on a network of the cluster, which gives them itself.
    pub addresses: Vec<IpAddr>,
    /// The one asked for, or derived from the addresses; without meaning on a network of the cluster.
    pub mac: [u8; 6],
    /// Name of the interface in the container.
    pub ifname: String,
}

/// What a worker saw of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// The task.
    pub task: TaskId,
    /// How far it has come.
    pub state: TaskState,
    /// In words.
    pub message: String,
    /// What went wrong, if so.
    pub error: String,
    /// Of the container.
    pub exit_code: Option<i32>,
    /// Of its first process.
    pub pid: u32,
    /// Nothing of it is left on the node: its addresses are free.
    pub released: bool,
    /// Its health check has failed too often: it is about to end.
    #[serde(default)]
    pub unhealthy: bool,
}

/// What brought a new spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateKind {
    /// The user's new words.
    Update,
    /// The words before the last change.
    Rollback,
}

/// One decided change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Makes the cluster, with its first manager.
    CreateCluster {
        /// All of it.
        cluster: Box<Cluster>,
        /// Number 1.
        node: NewNode,
    },
    /// Changes the cluster's settings.
    UpdateCluster {
        /// Version the caller saw; none takes whatever is there.
        expect: Option<u64>,
        /// All settings.
        spec: ClusterSpec,
    },
    /// Replaces the standing token of a role.
    RotateToken {
        /// Whose.
        role: Role,
        /// The new one.
        secret: Secret,
    },
    /// Adds a token that expires.
    MintToken {
        /// The new one.
        token: ExtraToken,
    },
    /// Takes in a node that showed a token.
    AddNode {
        /// The node; its role is the token's.
        node: NewNode,
        /// What it showed.
        secret: Secret,
    },
    /// Changes what operators set of a node.
    UpdateNode {
        /// The node.
        id: NodeId,
        /// Version the caller saw; none takes whatever is there.
        expect: Option<u64>,
        /// All of it.
        spec: NodeSpec,
    },
    /// Notes what a node says of itself.
    DescribeNode {
        /// The node.
        id: NodeId,
        /// What it says.
        description: NodeDescription,
        /// For a manager: the incarnation of its Raft store.
        raft_incarnation: Option<String>,
    },
    /// Notes what a node says of its end of the encrypted links.
    ReportTunnel {
        /// The node.
        id: NodeId,
        /// What it says.
        report: TunnelReport,
    },
    /// Begins the change to another key of a node, or brings it to the next phase.
    RotateKey {
        /// The node.
        id: NodeId,
        /// Of its current key.
        generation: u64,
        /// Where it stands; refused if it has gone further.
        from: Rotation,
    },
    /// Notes whether a node is heard of.
    SetNodeState {
        /// The node.
        id: NodeId,
        /// The new state.
        state: NodeState,
        /// Why.
        message: String,
    },
    /// Puts a node out of the cluster.
    RemoveNode {
        /// The node.
        id: NodeId,
        /// Also if it is still in touch, and what it holds is free at once.
        force: Force,
    },
    /// Makes a network.
    CreateNetwork {
        /// Its name.
        id: NetworkId,
        /// The user's words.
        spec: NetworkSpec,
        /// Of an overlay, and of no other: free when the leader looked.
        vni: Option<u32>,
        /// Likewise.
        subnets: Vec<Subnet>,
    },
    /// Makes one of the node's predefined networks, or changes it: the daemon's settings may have.
    SetPredefined {
        /// Its name, if it is made now.
        id: NetworkId,
        /// Of [`NetworkSpec::predefined`].
        spec: NetworkSpec,
        /// Free when the node looked.
        subnets: Vec<Subnet>,
    },
    /// Removes a network nobody uses.
    RemoveNetwork {
        /// The network.
        id: NetworkId,
    },
    /// Makes a service.
    CreateService {
        /// Its name.
        id: ServiceId,
        /// The user's words.
        spec: Arc<ServiceSpec>,
        /// One address of each family for each network, in vip mode.
        vips: BTreeMap<NetworkId, Vec<IpAddr>>,
    },
    /// Changes a service.
    UpdateService {
        /// The service.
        id: ServiceId,
        /// Version the caller saw; none takes whatever is there.
        expect: Option<u64>,
        /// All of it.
        spec: Arc<ServiceSpec>,
        /// As for `CreateService`.
        vips: BTreeMap<NetworkId, Vec<IpAddr>>,
        /// Where the words come from.
        kind: UpdateKind,
    },
    /// Notes how far a change has come.
    SetUpdateStatus {
        /// The service.
        id: ServiceId,
        /// Version of the spec that is rolled out; another one has a status of its own. None takes
        /// whatever is there, as in a log of before.
        #[serde(default)]
        expect: Option<u64>,
        /// How far.
        status: UpdateStatus,
    },
    /// Removes a service; its tasks end.
    RemoveService {
        /// The service.
        id: ServiceId,
    },
    /// Makes a task for a slot of a service, from the service's present spec.
    CreateTask {
        /// Its name.
        id: TaskId,
        /// Whose.
        service: ServiceId,
        /// Which place.
        slot: Slot,
        /// How many failed in a row before it.
        attempt: u32,
        /// Not to be started earlier.
        start_at: Time,
    },
    /// Gives a new task its addresses.
    Attach {
        /// The task.
        task: TaskId,
        /// One for each of its networks.
        attachments: Vec<NewAttachment>,
    },
    /// Gives a task its node.
    Assign {
        /// The task.
        task: TaskId,
        /// The node.
        node: NodeId,
    },
    /// Notes why a task waits.
    Explain {
        /// The task.
        task: TaskId,
        /// Why; none when it no longer waits.
        stuck: Option<Stuck>,
    },
    /// Wants a task to end.
    Stop {
        /// The task.
        task: TaskId,
        /// Shutdown or remove.
        desired: Desired,
    },
    /// Notes what a worker saw.
    Report {
        /// The worker.
        node: NodeId,
        /// Of its own tasks.
        reports: Vec<TaskReport>,
    },
    /// Drops a task that has ended and holds nothing.
    Forget {
        /// The task.
        task: TaskId,
    },
    /// Puts a namespace of somebody else on a network.
    AttachForeign {
        /// All of it.
        foreign: NewForeign,
    },
    /// Notes that the node has seen the kernel carry the attachment.
    ForeignReady {
        /// The node; others are refused.
        node: NodeId,
        /// The attachment.
        id: AttachmentId,
    },
    /// Frees what a namespace of somebody else held: nothing of it is left on the node.
    DetachForeign {
        /// The node; others are refused.
        node: NodeId,
        /// The attachment. One that is gone already is no failure: the node repeats itself.
        id: AttachmentId,
    },
    /// Makes a container of this node. It is stopped.
    CreateContainer {
        /// Its name for ever.
        id: ContainerId,
        /// The user's words.
        spec: Arc<RunSpec>,
        /// One for each endpoint of the spec, in that order.
        endpoints: Vec<NewEndpoint>,
    },
    /// Starts, restarts, stops or removes a container.
    SetContainer {
        /// The container.
        id: ContainerId,
        /// Running raises [`Container::starts`](crate::Container::starts); from removed there is no
        /// way back.
        wanted: Wanted,
        /// For a start: the ports to be published. Empty otherwise.
        ports: Vec<PortBinding>,
        /// Removes it also if it runs, or others are in its namespace.
        force: Force,
    },
    /// Notes the end of a run.
    NoteContainer {
        /// The container.
        id: ContainerId,
        /// The run. If the container was started again since, nothing else is changed.
        last: LastRun,
        /// What is wanted from now on: running if it is to be started again, stopped, or, with
        /// `--rm`, removed. Never more than is wanted already.
        wanted: Wanted,
    },
    /// Puts a container on one more network.
    Connect {
        /// The container.
        container: ContainerId,
        /// The user's words.
        spec: EndpointSpec,
        /// What was decided.
        endpoint: NewEndpoint,
    },
    /// Takes a container off a network.
    Disconnect {
        /// The container.
        container: ContainerId,
        /// The network.
        network: NetworkId,
    },
    /// Lays a direct link between two containers. It goes when either is forgotten.
    ConnectPair {
        /// Its name for ever.
        id: CableId,
        /// What was decided.
        ends: [CableEnd; 2],
    },
    /// Drops a removed container: nothing of it is left on the machine.
    ForgetContainer {
        /// The container.
        id: ContainerId,
    },
    /// Remembers a certificate before its client gets it.
    NoteClient {
        /// What was signed.
        certificate: ClientCertificate,
    },
    /// Takes the force of a client's certificates.
    RevokeClient {
        /// Serial numbers of those that are remembered.
        serials: Vec<String>,
    },
    /// A node says that nothing of the cluster is on it any more: a member that leaves, or one that
    /// was removed and has heard of it.
    NodeCleared {
        /// The node.
        id: NodeId,
    },
}

/// Whether a refusal that protects the user is overridden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Force {
    /// Refuse.
    No,
    /// Do it anyway.
    Yes,
}
