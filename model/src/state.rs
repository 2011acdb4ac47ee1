//! All objects of the cluster as one value, and the only way to change it.
//!
//! `apply` is total and deterministic: the same log gives the same state on every manager. It checks
//! everything, then changes everything or nothing.

mod cable;
mod client;
mod cluster;
mod container;
mod foreign;
mod local;
mod network;
mod node;
mod service;
mod task;
mod tunnel;

use std::{net::IpAddr, sync::Arc, time::Duration};

use rpds::RedBlackTreeMapSync;
use serde::{Deserialize, Serialize};

pub use local::Surroundings;
pub use network::AddressUse;

use crate::{
    cable::Cable,
    command::{Applied, Command, Digest, Named, Outcome, Proposal},
    id::{AttachmentId, CableId, ContainerId, NetworkId, NodeId, RequestId, ServiceId, TaskId},
    object::{
        Attachment, ClientCertificate, Cluster, Container, Foreign, Holder, Network, Node,
        RemovedNode, Service, Task, Wanted,
    },
    rejected::Rejected,
    time::Time,
};

/// Most results of named writes that are kept for retries.
const REQUESTS_MAX: usize = 4_096;
/// How long such a result is kept; callers retry for seconds.
const REQUEST_KEPT: Duration = Duration::from_secs(600);

type Map<K, V> = RedBlackTreeMapSync<K, Arc<V>>;

/// The result of a named write, for its retries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Recorded {
    at: Time,
    outcome: Outcome,
    // A snapshot of before there were any lacks the field.
    #[serde(default)]
    digest: Option<Digest>,
}

/// All objects of the cluster. A clone costs a few reference counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    revision: u64,
    now: Time,
    cluster: Option<Arc<Cluster>>,
    nodes: Map<NodeId, Node>,
    networks: Map<NetworkId, Network>,
    services: Map<ServiceId, Service>,
    tasks: Map<TaskId, Task>,
    attachments: Map<AttachmentId, Attachment>,
    // A snapshot of before there were any lacks the fields.
    #[serde(default)]
    foreigners: Map<AttachmentId, Foreign>,
    #[serde(default)]
    containers: Map<ContainerId, Container>,
    #[serde(default)]
    cables: Map<CableId, Cable>,
    #[serde(default)]
    removed: Map<NodeId, RemovedNode>,
    #[serde(default)]
    clients: Map<String, ClientCertificate>,
    requests: Map<RequestId, Recorded>,
}

impl State {
    /// Applies `proposal`, the entry at `index` of the log. Each command is applied wholly or, if
    /// it is refused, not at all; a retry of a named write gets the first result.
    pub fn apply(&mut self, index: u64, proposal: &Proposal) -> Outcome {
        self.revision = index;
        self.now = self.now.max(proposal.now);
        if let Some(outcome) = proposal.request.as_ref().and_then(|named| self.repeated(named)) {
            return outcome;
        }
        let results = proposal.commands.iter().map(|command| self.run_whole(command)).collect();
        let outcome = Outcome { results };
        // A refusal has changed nothing, so a retry may well be tried again.
        let changed = outcome.results.iter().any(Result::is_ok);
        if let Some(named) = proposal.request.as_ref().filter(|_| changed) {
            self.record(named.clone(), outcome.clone());
        }
        outcome
    }

    /// Applies one command on a copy, and keeps the copy only if nothing was refused.
    fn run_whole(&mut self, command: &Command) -> Result<Applied, Rejected> {
        let mut next = self.clone();
        let applied = next.run(command)?;
        *self = next;
        Ok(applied)
    }

    fn run(&mut self, command: &Command) -> Result<Applied, Rejected> {
        match command {
            Command::CreateCluster { cluster, node } => self.create_cluster(cluster, node),
            Command::UpdateCluster { expect, spec } => self.update_cluster(*expect, spec),
            Command::RotateToken { role, secret } => self.rotate_token(*role, *secret),
            Command::MintToken { token } => self.mint_token(token),
            Command::AddNode { node, secret } => self.add_node(node, *secret),
            Command::UpdateNode { id, expect, spec } => self.update_node(*id, *expect, spec),
            Command::DescribeNode { id, description, raft_incarnation } => {
                self.describe_node(*id, description, raft_incarnation.as_deref())
            }
            Command::ReportTunnel { id, report } => self.report_tunnel(*id, report),
            Command::RotateKey { id, generation, from } => self.rotate_key(*id, *generation, from),
            Command::SetNodeState { id, state, message } => {
                self.set_node_state(*id, *state, message)
            }
            Command::RemoveNode { id, force } => self.remove_node(*id, *force),
            Command::CreateNetwork { id, spec, vni, subnets } => {
                self.create_network(*id, spec, *vni, subnets)
            }
            Command::RemoveNetwork { id } => self.remove_network(*id),
            Command::CreateService { id, spec, vips } => self.create_service(*id, spec, vips),
            Command::UpdateService { id, expect, spec, vips, kind } => {
                self.update_service(*id, *expect, spec, vips, *kind)
            }
            Command::SetUpdateStatus { id, expect, status } => {
                self.set_update_status(*id, *expect, status)
            }
            Command::RemoveService { id } => self.remove_service(*id),
            Command::CreateTask { id, service, slot, attempt, start_at } => {
                self.create_task(*id, *service, *slot, *attempt, *start_at)
            }
            Command::Attach { task, attachments } => self.attach(*task, attachments),
            Command::Assign { task, node } => self.assign(*task, *node),
            Command::Explain { task, stuck } => self.explain(*task, stuck.as_ref()),
            Command::Stop { task, desired } => self.stop(*task, *desired),
            Command::Report { node, reports } => self.report(*node, reports),
            Command::Forget { task } => self.forget(*task),
            Command::AttachForeign { foreign } => self.attach_foreign(foreign),
            Command::ForeignReady { node, id } => self.foreign_ready(*node, *id),
            Command::DetachForeign { node, id } => self.detach_foreign(*node, *id),
            Command::SetPredefined { id, spec, subnets } => self.set_predefined(*id, spec, subnets),
            Command::CreateContainer { id, spec, endpoints } => {
                self.create_container(*id, spec, endpoints)
            }
            Command::SetContainer { id, wanted, ports, force } => {
                self.set_container(*id, *wanted, ports, *force)
            }
            Command::NoteContainer { id, last, wanted } => self.note_container(*id, last, *wanted),
            Command::Connect { container, spec, endpoint } => {
                self.connect(*container, spec, endpoint)
            }
            Command::Disconnect { container, network } => self.disconnect(*container, *network),
            Command::ConnectPair { id, ends } => self.connect_pair(*id, ends),
            Command::ForgetContainer { id } => self.forget_container(*id),
            Command::NoteClient { certificate } => self.note_client(certificate),
            Command::RevokeClient { serials } => self.revoke_client(serials),
            Command::NodeCleared { id } => self.node_cleared(*id),
        }
    }

    /// The result of an earlier write of that name, if it is still kept.
    pub fn recorded(&self, request: &RequestId) -> Option<&Outcome> {
        self.requests.get(request).map(|recorded| &recorded.outcome)
    }

    /// What a write gets whose name is known already: the first result if it asks for the same, a
    /// refusal if it asks for something else.
    pub fn repeated(&self, named: &Named) -> Option<Outcome> {
        let first = self.requests.get(&named.id)?;
        let other = first.digest.zip(named.digest).is_some_and(|(first, now)| first != now);
        Some(match other {
            true => Outcome { results: vec![Err(Rejected::OtherRequest)] },
            false => first.outcome.clone(),
        })
    }

    fn record(&mut self, named: Named, outcome: Outcome) {
        if self.requests.size() >= REQUESTS_MAX {
            self.drop_old_requests();
        }
        let recorded = Recorded { at: self.now, outcome, digest: named.digest };
        self.requests.insert_mut(named.id, Arc::new(recorded));
    }

    /// Drops the results that are too old, and at least the older half.
    fn drop_old_requests(&mut self) {
        let mut by_age: Vec<_> =
            self.requests.iter().map(|(request, kept)| (kept.at, request.clone())).collect();
        by_age.sort();
        let (now, half) = (self.now, by_age.len() / 2);
        for (index, (at, request)) in by_age.into_iter().enumerate() {
            if index < half || now.since(at) > REQUEST_KEPT {
                self.requests.remove_mut(&request);
            }
        }
    }
}

/// Looking.
impl State {
    /// Index of the last entry applied.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The latest time any proposal carried.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The cluster, once it is made.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    /// All nodes, by ID.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// All networks, by ID.
    pub fn networks(&self) -> impl Iterator<Item = &Arc<Network>> {
        self.networks.values()
    }

    /// All services, by ID.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// All tasks, by ID.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    /// All attachments, by ID.
    pub fn attachments(&self) -> impl Iterator<Item = &Arc<Attachment>> {
        self.attachments.values()
    }

    /// One node.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// The nodes that were removed and still hold something, by ID.
    pub fn removed_nodes(&self) -> impl Iterator<Item = &Arc<RemovedNode>> {
        self.removed.values()
    }

    /// One of them.
    pub fn removed_node(&self, id: NodeId) -> Option<&Arc<RemovedNode>> {
        self.removed.get(&id)
    }

    /// The certificates of clients that are remembered, by serial number.
    pub fn clients(&self) -> impl Iterator<Item = &Arc<ClientCertificate>> {
        self.clients.values()
    }

    /// One of them.
    pub fn client(&self, serial: &str) -> Option<&Arc<ClientCertificate>> {
        self.clients.get(serial)
    }

    /// How many addresses a node holds, a member or not.
    pub fn addresses_held_at(&self, node: NodeId) -> usize {
        let here = self.attachments().filter(|attachment| attachment.node == Some(node));
        here.map(|attachment| attachment.addresses.len()).sum()
    }

    /// One network.
    pub fn network(&self, id: NetworkId) -> Option<&Arc<Network>> {
        self.networks.get(&id)
    }

    /// One service.
    pub fn service(&self, id: ServiceId) -> Option<&Arc<Service>> {
        self.services.get(&id)
    }

    /// One task.
    pub fn task(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(&id)
    }

    /// One attachment.
    pub fn attachment(&self, id: AttachmentId) -> Option<&Arc<Attachment>> {
        self.attachments.get(&id)
    }

    /// The tasks of a service.
    pub fn tasks_of(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks().filter(move |task| task.service == service)
    }

    /// The tasks on a node.
    pub fn tasks_on(&self, node: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks().filter(move |task| task.node == Some(node))
    }

    /// Whether the holder of an attachment is to be found by name and through VIPs: it runs, it is
    /// well and wanted, and its node is in touch.
    pub fn is_visible(&self, holder: Holder) -> bool {
        let in_touch = |node| self.node(node).is_some_and(|node| node.in_touch());
        match holder {
            Holder::Task(task) => self.task(task).is_some_and(|task| {
                task.is_live()
                    && task.status.state == crate::TaskState::Running
                    && !task.status.unhealthy
                    && task.node.is_some_and(in_touch)
            }),
            Holder::Foreign(id) => {
                self.foreign(id).is_some_and(|foreign| foreign.ready && in_touch(foreign.node))
            }
            Holder::Container(id) => {
                self.container(id).is_some_and(|container| container.wanted == Wanted::Running)
            }
        }
    }

    /// The cluster, or the refusal that there is none.
    pub(crate) fn has_cluster(&self) -> Result<&Arc<Cluster>, Rejected> {
        self.cluster.as_ref().ok_or_else(|| Rejected::Forbidden {
            what: "this node is not part of a cluster".to_owned(),
            why: "there is nothing to manage yet".to_owned(),
            hint: "weft cluster init".to_owned(),
        })
    }
}

/// A name or ID that no object has, as a refusal.
pub(crate) fn not_found(kind: &str, name: impl ToString) -> Rejected {
    Rejected::NotFound { kind: kind.to_owned(), name: name.to_string() }
}

/// Checks that the caller saw the present version.
pub(crate) fn expect_version(
    kind: &str,
    name: &str,
    expected: Option<u64>,
    found: u64,
) -> Result<(), Rejected> {
    match expected {
        Some(expected) if expected != found => {
            Err(Rejected::Stale { kind: kind.to_owned(), name: name.to_owned(), expected, found })
        }
        Some(_) | None => Ok(()),
    }
}

/// The families of a set of addresses, as counts (IPv4, IPv6).
pub(crate) fn families<'a>(addresses: impl IntoIterator<Item = &'a IpAddr>) -> (usize, usize) {
    addresses.into_iter().fold((0, 0), |(v4, v6), address| match address {
        IpAddr::V4(_) => (v4 + 1, v6),
        IpAddr::V6(_) => (v4, v6 + 1),
    })
}

impl Applied {
    /// A result that names an object.
    pub(crate) fn of(id: impl ToString) -> Self {
        Self { id: id.to_string() }
    }
}
