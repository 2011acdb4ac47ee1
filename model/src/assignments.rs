//! What one node must know: a projection of the state, and the differences between two of them.
//!
//! A node is told of the networks it has a part in, and of nothing else: of other names in the
//! cluster it gets keyed hashes, so that it can tell that a name exists without knowing any.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;

use crate::{
    id::{AttachmentId, ClusterId, NetworkId, NodeId, ServiceId, TaskId},
    object::{Foreign, Holder, Node, Task},
    spec::{Driver, EndpointMode, IpvlanMode, MacvlanMode, NetworkSpec, Role, Scope},
    state::State,
    task_state::Desired,
    tunnel::NodeKey,
};

/// What an item is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    /// What holds for every node.
    Cluster,
    /// The receiving node itself.
    Node,
    /// A network the node has a part in.
    Network(NetworkId),
    /// A service with a name on such a network.
    Service(ServiceId),
    /// Another node that shares an encrypted network with this one.
    Peer(NodeId),
    /// A member of such a network, here or elsewhere.
    Endpoint(AttachmentId),
    /// A task of the node.
    Task(TaskId),
    /// A namespace of somebody else on the node.
    Foreign(AttachmentId),
}

/// One thing a node must know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Item {
    /// For [`Key::Cluster`].
    Cluster(ClusterItem),
    /// For [`Key::Node`].
    Node(NodeItem),
    /// For [`Key::Network`].
    Network(NetworkItem),
    /// For [`Key::Service`].
    Service(ServiceItem),
    /// For [`Key::Peer`].
    Peer(PeerItem),
    /// For [`Key::Endpoint`].
    Endpoint(EndpointItem),
    /// For [`Key::Task`].
    Task(Arc<Task>),
    /// For [`Key::Foreign`].
    Foreign(Arc<Foreign>),
}

/// What holds for every node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterItem {
    /// The cluster.
    pub id: ClusterId,
    /// UDP port of the overlays' outer packets.
    pub data_path_port: u16,
    /// First UDP port of WireGuard.
    #[serde(default = "wireguard_port")]
    pub wireguard_port: u16,
    /// VTEPs of all members: outer packets from others are dropped.
    pub members: BTreeSet<IpAddr>,
    /// The managers, to call when the present one is gone.
    pub managers: BTreeSet<SocketAddr>,
    /// Hashes ([`label_hash`]) of the names in use anywhere in the cluster.
    pub labels: BTreeSet<u64>,
}

/// The receiving node itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeItem {
    /// Its name.
    pub id: NodeId,
    /// What it is to be.
    pub role: Role,
    /// Its VTEP.
    pub data_path: IpAddr,
    /// Its number in the cluster.
    #[serde(default)]
    pub number: u64,
    /// The keys it must have, once it has said one.
    #[serde(default)]
    pub tunnel: Option<TunnelItem>,
}

/// The receiving node's own keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelItem {
    /// Generations, the one to send with first. One that it does not have yet it makes, and says.
    pub generations: Vec<u64>,
}

/// Another node that shares an encrypted network with the receiving one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerItem {
    /// Its number in the cluster.
    pub number: u64,
    /// Its name, for messages.
    pub hostname: String,
    /// Where its packets go until it is heard from elsewhere.
    pub endpoint: IpAddr,
    /// Its parallel links.
    pub lanes: u16,
    /// Its keys, the one to send to first.
    pub keys: Vec<NodeKey>,
}

/// A network the node has a part in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkItem {
    /// Its name for users.
    pub name: String,
    /// Of an overlay: its identifier on the wire.
    pub vni: Option<u32>,
    /// Prefix and gateway of each subnet.
    pub subnets: Vec<(IpNet, IpAddr)>,
    /// Has no way out.
    pub internal: bool,
    /// The MTU asked for.
    pub mtu: Option<u32>,
    /// Of a network that is no overlay: what its members are made on.
    #[serde(default)]
    pub segment: Option<Segment>,
    /// What travels between nodes is encrypted.
    #[serde(default)]
    pub encrypted: bool,
}

/// How a network is on a device that every node has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Segment {
    /// Members with hardware addresses of their own.
    Macvlan {
        /// The node's device.
        parent: String,
        /// How members of one node reach each other.
        mode: MacvlanMode,
    },
    /// Members under the device's hardware address.
    Ipvlan {
        /// The node's device.
        parent: String,
        /// What members are told apart by.
        mode: IpvlanMode,
    },
}

impl Segment {
    /// That of a network of the cluster; none if it is an overlay.
    fn of(spec: &NetworkSpec) -> Option<Self> {
        let parent = spec.parent().filter(|_| spec.on_segment())?.to_owned();
        match spec.driver {
            Driver::Macvlan => Some(Self::Macvlan { parent, mode: spec.macvlan_mode() }),
            Driver::Ipvlan => Some(Self::Ipvlan { parent, mode: spec.ipvlan_mode() }),
            Driver::Overlay | Driver::Bridge | Driver::Host | Driver::Null | Driver::Ovs => None,
        }
    }

    /// The driver's word on the command line.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Macvlan { .. } => Driver::Macvlan.word(),
            Self::Ipvlan { .. } => Driver::Ipvlan.word(),
        }
    }

    /// The node's device.
    pub fn parent(&self) -> &str {
        match self {
            Self::Macvlan { parent, .. } | Self::Ipvlan { parent, .. } => parent,
        }
    }
}

/// A service with a name on such a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceItem {
    /// Its name.
    pub name: String,
    /// How the name is answered.
    pub endpoint_mode: EndpointMode,
    /// On each of the node's networks: further names and virtual addresses.
    pub networks: BTreeMap<NetworkId, ServiceNames>,
}

/// A service on one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNames {
    /// More names.
    pub aliases: Vec<String>,
    /// Virtual addresses; none in dnsrr mode.
    pub vips: Vec<IpAddr>,
}

/// A member of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointItem {
    /// The network.
    pub network: NetworkId,
    /// One of each family.
    pub addresses: Vec<IpAddr>,
    /// Derived from them.
    pub mac: [u8; 6],
    /// Where it is.
    pub node: NodeId,
    /// The VTEP of that node.
    pub vtep: IpAddr,
    /// The service it answers for.
    pub service: Option<ServiceId>,
    /// Its own names, the canonical one first.
    pub names: Vec<String>,
    /// Shown in names and VIPs.
    pub visible: Visibility,
}

/// Whether an endpoint takes part in names and VIPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Visibility {
    /// Not ready, going away, or on a node that is out of touch.
    Hidden,
    /// Running.
    Shown,
}

/// Everything one node must know at a revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Assignments {
    /// Of the state that this is a projection of.
    pub revision: u64,
    /// All of it.
    pub items: BTreeMap<Key, Item>,
}

/// One difference between two sets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// The item is now this.
    Set(Key, Item),
    /// The item is gone.
    Drop(Key),
}

impl Assignments {
    /// The changes that turn this into `next`.
    pub fn changes_to(&self, next: &Self) -> Vec<Change> {
        let gone = self.items.keys().filter(|key| !next.items.contains_key(key));
        let new = next.items.iter().filter(|(key, item)| self.items.get(key) != Some(item));
        gone.map(|key| Change::Drop(*key))
            .chain(new.map(|(key, item)| Change::Set(*key, item.clone())))
            .collect()
    }

    /// Takes in changes that lead to `revision`.
    pub fn take(&mut self, changes: Vec<Change>, revision: u64) {
        for change in changes {
            match change {
                Change::Set(key, item) => {
                    self.items.insert(key, item);
                }
                Change::Drop(key) => {
                    self.items.remove(&key);
                }
            }
        }
        self.revision = revision;
    }
}

/// The hash that stands for a label in use somewhere: `SipHash`-2-4 of the lower-cased label, keyed
/// with the first half of the cluster's ID.
pub fn label_hash(cluster: ClusterId, label: &str) -> u64 {
    SipHasher24::new_with_key(&label_key(cluster)).hash(label.to_ascii_lowercase().as_bytes())
}

/// The key of [`label_hash`].
pub fn label_key(cluster: ClusterId) -> [u8; 16] {
    let text = cluster.to_string();
    let mut key = [0; 16];
    key.copy_from_slice(&text.as_bytes()[..16]);
    key
}

fn wireguard_port() -> u16 {
    crate::tunnel::WIREGUARD_PORT
}

fn peer_item(node: &Node) -> Option<PeerItem> {
    let tunnel = node.tunnel.as_ref()?;
    Some(PeerItem {
        number: node.number,
        hostname: node.description.hostname.clone(),
        endpoint: node.description.data_path,
        lanes: tunnel.lanes,
        keys: tunnel.keys(),
    })
}

impl State {
    /// Everything `node` must know; nothing if it is not a member.
    pub fn assignments(&self, node: NodeId) -> Assignments {
        let mut items = BTreeMap::new();
        if let (Some(cluster), Some(own)) = (self.cluster(), self.node(node)) {
            items.insert(Key::Cluster, Item::Cluster(self.cluster_item(cluster)));
            let tunnel = own.tunnel.as_ref();
            let item = NodeItem {
                id: node,
                role: own.spec.role,
                data_path: own.description.data_path,
                number: own.number,
                tunnel: tunnel.map(|tunnel| TunnelItem { generations: tunnel.generations() }),
            };
            items.insert(Key::Node, Item::Node(item));
            self.add_networks(node, &mut items);
            // A task stays with its node until it is forgotten, so that its output can be read.
            for task in self.tasks_on(node) {
                items.insert(Key::Task(task.id), Item::Task(Arc::clone(task)));
            }
            for foreign in self.foreigners().filter(|foreign| foreign.node == node) {
                items.insert(Key::Foreign(foreign.id), Item::Foreign(Arc::clone(foreign)));
            }
        }
        Assignments { revision: self.revision(), items }
    }

    fn cluster_item(&self, cluster: &crate::Cluster) -> ClusterItem {
        let labels = self.services().flat_map(|service| {
            let aliases = service.spec.networks.iter().flat_map(|usage| usage.aliases.iter());
            std::iter::once(&service.spec.name).chain(aliases).collect::<Vec<_>>()
        });
        let foreign = self
            .foreigners()
            .flat_map(|foreign| std::iter::once(&foreign.name).chain(&foreign.aliases));
        let managers = self.nodes().filter(|node| node.spec.role == Role::Manager);
        ClusterItem {
            id: cluster.id,
            data_path_port: cluster.spec.data_path_port,
            wireguard_port: cluster.spec.wireguard_port,
            members: self.nodes().map(|node| node.description.data_path).collect(),
            managers: managers.map(|node| node.description.address).collect(),
            labels: labels.chain(foreign).map(|label| label_hash(cluster.id, label)).collect(),
        }
    }

    fn add_networks(&self, node: NodeId, items: &mut BTreeMap<Key, Item>) {
        let here: BTreeSet<NetworkId> = self
            .attachments()
            .filter(|attachment| attachment.node == Some(node))
            .map(|attachment| attachment.network)
            .collect();
        for network in here.iter().filter_map(|id| self.network(*id)) {
            // Networks of one node are no concern of the cluster's.
            if network.spec.scope() == Scope::Local {
                continue;
            }
            let item = NetworkItem {
                name: network.spec.name.clone(),
                vni: network.vni,
                subnets: network.subnets.iter().map(|s| (s.cidr, s.gateway)).collect(),
                internal: network.spec.internal,
                mtu: network.spec.mtu(),
                segment: Segment::of(&network.spec),
                encrypted: network.encrypted,
            };
            items.insert(Key::Network(network.id), Item::Network(item));
        }
        self.add_peers(node, items);
        for attachment in self.attachments().filter(|a| here.contains(&a.network)) {
            if let Some(item) = self.endpoint_item(attachment) {
                items.insert(Key::Endpoint(attachment.id), Item::Endpoint(item));
            }
        }
        for service in self.services() {
            let networks: BTreeMap<_, _> = service
                .spec
                .networks
                .iter()
                .filter(|usage| here.contains(&usage.network))
                .map(|usage| {
                    let vips = service.vips.get(&usage.network).cloned().unwrap_or_default();
                    (usage.network, ServiceNames { aliases: usage.aliases.clone(), vips })
                })
                .collect();
            if !networks.is_empty() {
                let item = ServiceItem {
                    name: service.spec.name.clone(),
                    endpoint_mode: service.spec.endpoint_mode,
                    networks,
                };
                items.insert(Key::Service(service.id), Item::Service(item));
            }
        }
    }

    /// The nodes that share an encrypted network with this one, and have said their keys.
    fn add_peers(&self, node: NodeId, items: &mut BTreeMap<Key, Item>) {
        for other in self.peers(node) {
            if let Some(item) = self.node(other).and_then(|other| peer_item(other)) {
                items.insert(Key::Peer(other), Item::Peer(item));
            }
        }
    }

    fn endpoint_item(&self, attachment: &crate::Attachment) -> Option<EndpointItem> {
        let node = self.node(attachment.node?)?;
        let (service, names, wanted) = match attachment.holder {
            Holder::Task(task) => {
                let task = self.task(task)?;
                let names = vec![task.container_name(), task.name(), task.id.short()];
                (Some(task.service), names, task.desired == Desired::Running)
            }
            Holder::Foreign(id) => {
                let foreign = self.foreign(id)?;
                let mut names = vec![foreign.name.clone(), id.short()];
                names.extend(foreign.aliases.iter().cloned());
                (foreign.service, names, true)
            }
            // Never in the cluster's state.
            Holder::Container(_) => return None,
        };
        let visible = match self.is_visible(attachment.holder) {
            true if wanted => Visibility::Shown,
            true | false => Visibility::Hidden,
        };
        Some(EndpointItem {
            network: attachment.network,
            addresses: attachment.addresses.clone(),
            mac: attachment.mac,
            node: node.id,
            vtep: node.description.data_path,
            service,
            names,
            visible,
        })
    }
}
