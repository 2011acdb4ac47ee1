//! What the assignments mean for this node's kernel and for names. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use ipnet::IpNet;
use weft_dns::{Elsewhere, NetworkNames, Synced, Zones};
use weft_model::{
    Assignments, AttachmentId, NetworkId, NodeId, ServiceId, Task, TaskId,
    assignments::{
        ClusterItem, EndpointItem, Item, Key, NetworkItem, NodeItem, PeerItem, Segment,
        ServiceItem, Visibility, label_key,
    },
    object::{Foreign, Holder},
    spec::{Driver, EndpointMode, IpvlanMode as IpvlanWish, MacvlanMode as MacvlanWish},
};
use weft_overlay::{
    Dataplane, Ipvlan, IpvlanMode, Kind, Macvlan, MacvlanMode, NetnsRef, Network, NetworkKey,
    Overlay, Place, Plain, Port, Remote, Report, Sandbox, Subnet, Underlay, kernel::KernelError,
};

mod tunnel;

/// What only this node knows of a sandbox: where its namespace is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalSandbox {
    /// Path of the network namespace.
    pub netns: PathBuf,
    /// Where its resolver listens on 127.0.0.11.
    pub dns_port: Option<u16>,
    /// Its memberships, in the order of its interfaces.
    pub attachments: Vec<AttachmentId>,
    /// Name of its first interface, where somebody chose one.
    pub ifname: Option<String>,
    /// Whether its default routes may be ours.
    pub default_gateway: bool,
}

/// The sandboxes of this node.
pub type LocalSandboxes = BTreeMap<Holder, LocalSandbox>;

/// What stands before the ID of a namespace of others in [`key_of`].
const FOREIGN: &str = "foreign-";
/// What stands before the ID of a container of `weft run` there.
const CONTAINER: &str = "container-";

/// The name of a sandbox in the data plane and in the resolver.
pub fn key_of(holder: Holder) -> String {
    match holder {
        Holder::Task(task) => task.to_string(),
        Holder::Foreign(id) => format!("{FOREIGN}{id}"),
        Holder::Container(id) => format!("{CONTAINER}{id}"),
    }
}

/// The sandbox of that name.
pub fn holder_of(key: &str) -> Option<Holder> {
    if let Some(id) = key.strip_prefix(FOREIGN) {
        return id.parse().ok().map(Holder::Foreign);
    }
    match key.strip_prefix(CONTAINER) {
        Some(id) => id.parse().ok().map(Holder::Container),
        None => key.parse().ok().map(Holder::Task),
    }
}

/// The assignments, sorted by what they are.
#[derive(Default)]
pub struct Sorted<'a> {
    /// What holds for every node.
    pub cluster: Option<&'a ClusterItem>,
    /// This node.
    pub node: Option<&'a NodeItem>,
    /// Its networks.
    pub networks: BTreeMap<NetworkId, &'a NetworkItem>,
    /// Services with a name on them.
    pub services: BTreeMap<ServiceId, &'a ServiceItem>,
    /// Members of them.
    pub endpoints: BTreeMap<AttachmentId, &'a EndpointItem>,
    /// The nodes that share an encrypted network with it.
    pub peers: BTreeMap<NodeId, &'a PeerItem>,
    /// Its tasks.
    pub tasks: BTreeMap<TaskId, &'a Task>,
    /// Namespaces of others on it.
    pub foreigners: BTreeMap<AttachmentId, &'a Foreign>,
}

impl<'a> Sorted<'a> {
    /// Sorts a set; an item under a key of another kind is passed over.
    pub fn new(assignments: &'a Assignments) -> Self {
        let mut sorted = Self::default();
        for (key, item) in &assignments.items {
            match (key, item) {
                (Key::Cluster, Item::Cluster(item)) => sorted.cluster = Some(item),
                (Key::Node, Item::Node(item)) => sorted.node = Some(item),
                (Key::Network(id), Item::Network(item)) => {
                    sorted.networks.insert(*id, item);
                }
                (Key::Service(id), Item::Service(item)) => {
                    sorted.services.insert(*id, item);
                }
                (Key::Peer(id), Item::Peer(item)) => {
                    sorted.peers.insert(*id, item);
                }
                (Key::Endpoint(id), Item::Endpoint(item)) => {
                    sorted.endpoints.insert(*id, item);
                }
                (Key::Task(id), Item::Task(item)) => {
                    sorted.tasks.insert(*id, item);
                }
                (Key::Foreign(id), Item::Foreign(item)) => {
                    sorted.foreigners.insert(*id, item);
                }
                (
                    Key::Cluster
                    | Key::Node
                    | Key::Network(_)
                    | Key::Service(_)
                    | Key::Peer(_)
                    | Key::Endpoint(_)
                    | Key::Task(_)
                    | Key::Foreign(_),
                    _,
                ) => {}
            }
        }
        sorted
    }

    /// What the kernel should hold.
    pub fn dataplane(&self, sandboxes: &LocalSandboxes) -> Dataplane {
        let (Some(cluster), Some(node)) = (self.cluster, self.node) else {
            return Dataplane::default();
        };
        let underlay = Underlay {
            vtep: node.data_path,
            port: cluster.data_path_port,
            members: cluster.members.clone(),
        };
        let networks = self
            .networks
            .iter()
            .map(|(id, network)| (network_key(*id, network), self.network(node, *id, network)))
            .collect();
        let sandboxes = sandboxes
            .iter()
            .filter(|(holder, _)| !matches!(holder, Holder::Container(_)))
            .map(|(holder, sandbox)| (key_of(*holder), self.sandbox(sandbox)))
            .collect();
        Dataplane { underlay: Some(underlay), networks, sandboxes, ..Dataplane::default() }
    }

    fn network(&self, node: &NodeItem, id: NetworkId, item: &NetworkItem) -> Network {
        Network {
            id: id.to_string(),
            subnets: item
                .subnets
                .iter()
                .map(|(cidr, gateway)| Subnet { cidr: *cidr, gateway: *gateway })
                .collect(),
            internal: item.internal,
            mtu: item.mtu,
            kind: match &item.segment {
                None if item.encrypted => Kind::Overlay(self.encrypted(node, id)),
                None => Kind::Overlay(self.overlay(node, id)),
                // The segment itself finds its members.
                Some(Segment::Macvlan { parent, mode }) => {
                    Kind::Macvlan(Macvlan { parent: Some(parent.clone()), mode: macvlan(*mode) })
                }
                Some(Segment::Ipvlan { parent, mode }) => {
                    Kind::Ipvlan(Ipvlan { parent: Some(parent.clone()), mode: ipvlan(*mode) })
                }
            },
        }
    }

    /// Members of a network on other nodes.
    fn elsewhere(&self, node: &NodeItem, id: NetworkId) -> impl Iterator<Item = &'a EndpointItem> {
        let here = node.id;
        let members = self.endpoints.values().copied();
        members.filter(move |member| member.network == id && member.node != here)
    }

    fn overlay(&self, node: &NodeItem, id: NetworkId) -> Overlay {
        let others = || self.elsewhere(node, id);
        Overlay::Plain(Plain {
            remotes: others()
                .map(|member| Remote {
                    addresses: member.addresses.clone(),
                    mac: weft_overlay::Mac(member.mac),
                    vtep: member.vtep,
                })
                .collect(),
            peers: others().map(|member| member.vtep).collect(),
        })
    }

    fn sandbox(&self, local: &LocalSandbox) -> Sandbox {
        let mut attachments = BTreeMap::new();
        let mut vips = BTreeMap::new();
        for (index, id) in local.attachments.iter().enumerate() {
            let Some(endpoint) = self.endpoints.get(id) else { continue };
            let Some(network) = self.networks.get(&endpoint.network) else { continue };
            let chosen = local.ifname.clone().filter(|_| index == 0);
            let port = Port {
                ifname: chosen.unwrap_or_else(|| format!("eth{index}")),
                mac: weft_overlay::Mac(endpoint.mac),
                addresses: with_prefixes(&endpoint.addresses, network),
                default_gateway: local.default_gateway && !network.internal,
                // By key: whatever the order of the interfaces, the lowest VNI leads outside, and
                // a network without one only where there is none.
                rank: 0,
            };
            attachments.insert(network_key(endpoint.network, network), port);
            self.add_vips(endpoint.network, &mut vips);
        }
        Sandbox {
            netns: NetnsRef(local.netns.clone()),
            attachments,
            vips,
            dns_port: local.dns_port,
        }
    }

    pub(crate) fn add_vips(&self, network: NetworkId, vips: &mut BTreeMap<IpAddr, Vec<IpAddr>>) {
        for (id, service) in &self.services {
            let Some(names) = service.networks.get(&network) else { continue };
            let backends = self.shown(*id, network);
            for vip in &names.vips {
                let same_family = |address: &&IpAddr| address.is_ipv4() == vip.is_ipv4();
                vips.insert(*vip, backends.iter().filter(same_family).copied().collect());
            }
        }
    }

    /// Addresses of a service's tasks that take part in names and VIPs.
    fn shown(&self, service: ServiceId, network: NetworkId) -> Vec<IpAddr> {
        self.endpoints
            .values()
            .filter(|member| member.service == Some(service) && member.network == network)
            .filter(|member| member.visible == Visibility::Shown)
            .flat_map(|member| member.addresses.iter().copied())
            .collect()
    }

    /// All names this node can answer: the cluster's, and `own` ones. Without a word of the cluster
    /// they are complete as far as `synced` says.
    pub fn zones(&self, own: Vec<NetworkNames>, synced: Synced) -> Zones {
        let Some(cluster) = self.cluster else {
            return Zones::new(own, Elsewhere::default(), synced);
        };
        let elsewhere = Elsewhere::new(label_key(cluster.id), cluster.labels.clone());
        let networks = self.networks.iter().map(|(id, item)| self.names(*id, item));
        Zones::new(networks.chain(own), elsewhere, Synced::Complete)
    }

    /// The names on one network. A name whose holders are all hidden stays known, without
    /// addresses: it exists, and nobody else is to be asked for it.
    fn names(&self, id: NetworkId, item: &NetworkItem) -> NetworkNames {
        let mut names: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        let mut reverse = BTreeMap::new();
        for member in self.endpoints.values().filter(|member| member.network == id) {
            let shown = member.visible == Visibility::Shown;
            for name in &member.names {
                let entry = names.entry(name.to_ascii_lowercase()).or_default();
                if shown {
                    entry.extend(&member.addresses);
                }
            }
            if let Some(name) = member.names.first().filter(|_| shown) {
                let full = format!("{name}.{}", item.name);
                reverse.extend(member.addresses.iter().map(|address| (*address, full.clone())));
            }
        }
        for (service, described) in &self.services {
            let Some(here) = described.networks.get(&id) else { continue };
            let tasks = self.shown(*service, id);
            let answer = match described.endpoint_mode {
                EndpointMode::Vip => &here.vips,
                EndpointMode::Dnsrr => &tasks,
            };
            for name in std::iter::once(&described.name).chain(&here.aliases) {
                let name = name.to_ascii_lowercase();
                names.entry(format!("tasks.{name}")).or_default().extend(&tasks);
                names.entry(name).or_default().extend(answer);
            }
            let full = format!("{}.{}", described.name, item.name);
            reverse.extend(here.vips.iter().map(|address| (*address, full.clone())));
        }
        NetworkNames {
            key: id.to_string(),
            name: item.name.clone(),
            subnets: item.subnets.iter().map(|(cidr, _)| *cidr).collect(),
            names,
            reverse,
        }
    }

    /// The networks of a sandbox in the order of its attachments, and whether it has a way out.
    pub fn membership(&self, attachments: &[AttachmentId]) -> (Vec<String>, bool) {
        let members = attachments.iter().filter_map(|id| self.endpoints.get(id));
        let networks: Vec<_> = members.map(|member| member.network).collect();
        let outside =
            networks.iter().filter_map(|id| self.networks.get(id)).any(|network| !network.internal);
        (networks.iter().map(ToString::to_string).collect(), outside)
    }

    /// VTEPs this node should hear from.
    pub fn members(&self) -> BTreeSet<IpAddr> {
        self.cluster.map(|cluster| cluster.members.clone()).unwrap_or_default()
    }
}

/// Why sandboxes are not as wanted, by their keys. A device of this node that is not there is told
/// with the network that is on it; `name_of` names a network by its ID.
pub(crate) fn troubles(
    desired: &Dataplane,
    report: &Report,
    name_of: impl Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    let mut troubles = report.troubled();
    for failure in &report.failed {
        let (Place::Sandbox(key), KernelError::NoLink { name: missing }) =
            (&failure.op.place, &failure.error)
        else {
            continue;
        };
        let on = |network: &NetworkKey| {
            let network = desired.networks.get(network)?;
            let (driver, parent) = match &network.kind {
                Kind::Macvlan(macvlan) => (Driver::Macvlan, &macvlan.parent),
                Kind::Ipvlan(ipvlan) => (Driver::Ipvlan, &ipvlan.parent),
                Kind::Overlay(_) | Kind::Bridge(_) | Kind::Ovs(_) => return None,
            };
            (parent.as_ref() == Some(missing)).then(|| {
                let name = name_of(&network.id).unwrap_or_else(|| network.id.clone());
                format!("{} network {name}: no device {missing}", driver.word())
            })
        };
        let networks = desired.sandboxes.get(key).map(|sandbox| sandbox.attachments.keys());
        if let Some(why) = networks.and_then(|mut networks| networks.find_map(on)) {
            troubles.insert(key.clone(), why);
        }
    }
    troubles
}

/// What the data plane knows a network of the cluster by.
pub(crate) fn network_key(id: NetworkId, item: &NetworkItem) -> NetworkKey {
    item.vni.map_or_else(|| key_without_vni(id), NetworkKey::Vni)
}

/// What it knows a network without a VNI by, this node's or the cluster's.
pub(crate) fn key_without_vni(id: NetworkId) -> NetworkKey {
    let (digits, mut first) = (id.short(), [0; 6]);
    for (byte, at) in first.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).expect("an ID is hex digits");
    }
    NetworkKey::Local(first)
}

/// A mode of macvlan in the data plane's terms.
pub(crate) fn macvlan(mode: MacvlanWish) -> MacvlanMode {
    match mode {
        MacvlanWish::Bridge => MacvlanMode::Bridge,
        MacvlanWish::Private => MacvlanMode::Private,
        MacvlanWish::Vepa => MacvlanMode::Vepa,
        MacvlanWish::Passthru => MacvlanMode::Passthru,
    }
}

/// A mode of ipvlan in the data plane's terms.
pub(crate) fn ipvlan(mode: IpvlanWish) -> IpvlanMode {
    match mode {
        IpvlanWish::L2 => IpvlanMode::L2,
        IpvlanWish::L3 => IpvlanMode::L3,
        IpvlanWish::L3s => IpvlanMode::L3s,
    }
}

/// Each address with the prefix length of its subnet.
pub(crate) fn with_prefixes(addresses: &[IpAddr], network: &NetworkItem) -> Vec<IpNet> {
    addresses
        .iter()
        .filter_map(|address| {
            let (cidr, _) = network.subnets.iter().find(|(cidr, _)| cidr.contains(address))?;
            IpNet::new(*address, cidr.prefix_len()).ok()
        })
        .collect()
}
