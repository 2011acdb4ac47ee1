//! The kernel's objects as values: one type for what is wanted and for what was seen.
//!
//! A [`Plane`] maps each [`Place`] (the host's namespace, or a sandbox's) to its objects, each under the
//! [`Key`] by which the kernel tells it from others: two objects with one key cannot exist together.
//! The order of the keys is the order of creation: referents come before what refers to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use weft_wire::Config;

use crate::names::Mac;

pub use crate::plane::link::{Link, LinkKind, LinkOrder, PortFlags};
pub use crate::plane::nft::{Element, Field, Kind, Set, Table};

mod link;
mod nft;

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The node's own.
    Host,
    /// The one that holds the encrypted link to the other nodes, and nothing else.
    Tunnel,
    /// That of the sandbox with this key.
    Sandbox(String),
}

/// The objects of some namespaces. A place that is absent was not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plane {
    /// Objects by place.
    pub places: BTreeMap<Place, Objects>,
}

/// The objects of one namespace.
pub type Objects = BTreeMap<Key, Object>;

/// What makes an object distinct within its namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The tunnel's namespace.
    Namespace,
    /// An nftables table.
    Table(Table),
    /// An element of a set or map.
    Element(Set, Vec<Field>),
    /// Our rule in Docker's chain.
    Passage(Family),
    /// A policy rule: all of it.
    Rule(Rule),
    /// A route with no device.
    Barrier(u32, IpNet),
    /// An Open vSwitch bridge; its device comes with it.
    Switch(String),
    /// A link, ordered by what it needs: bridges, then their ports.
    Link(LinkOrder, String),
    /// A port of an Open vSwitch bridge, by its link.
    SwitchPort(String),
    /// The key of a WireGuard device, by its link.
    Secret(String),
    /// A peer of a WireGuard device: link and public key.
    Peer(String, weft_wire::Key),
    /// A kernel parameter, by its path below /proc/sys.
    Sysctl(String),
    /// An address on a link.
    Address(String, IpNet),
    /// A forwarding row: link (or bridge), MAC, and for copies the destination.
    Fdb(String, Mac, Option<IpAddr>),
    /// A neighbour on a link.
    Neighbour(String, IpAddr),
    /// A route through a gateway.
    Route(IpNet),
    /// What the engine of encrypted networks is told; after its devices.
    Wire,
    /// Connections to be forgotten; last, when their rules are already different.
    Flows(IpAddr, IpAddr),
    /// The same of a published port.
    Datagrams(IpAddr, u16),
}

/// One thing in a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// The tunnel's network namespace, [`Place::Tunnel`], held by a bind mount so that it outlives us.
    Namespace,
    /// A table with all its chains, rules and empty sets.
    Table(Table, Integrity),
    /// One element of a set.
    Element(Element),
    /// A rule in Docker's `DOCKER-USER` chain that accepts what our own forward chain has marked. The only
    /// thing of ours in somebody else's table; it carries a comment with our name.
    Passage(Family),
    /// A policy routing rule.
    Rule(Rule),
    /// A `prohibit` route.
    Barrier {
        /// The table it is in.
        table: u32,
        /// What it keeps out.
        net: IpNet,
    },
    /// An Open vSwitch bridge.
    Switch {
        /// Its name, and that of its device.
        name: String,
        /// The network it was made for. `None`: an administrator's, never made and never removed.
        network: Option<String>,
        /// What its device is given when it is made.
        mac: Option<Mac>,
    },
    /// A network device.
    Link(String, Link),
    /// A port of an Open vSwitch bridge. It outlives its link, and the daemon's memory of it is then wrong.
    SwitchPort {
        /// The link.
        name: String,
        /// The bridge.
        bridge: String,
        /// The key of the sandbox behind it: by this it is known as ours.
        sandbox: String,
        /// Whether its link is there and has been taken in.
        works: bool,
    },
    /// What a WireGuard device answers to.
    Secret {
        /// The device.
        link: String,
        /// Its private key.
        key: weft_wire::Key,
        /// The UDP port it listens on, in the host's namespace.
        port: u16,
    },
    /// A peer of a WireGuard device.
    Peer(Peer),
    /// A kernel parameter below /proc/sys.
    Sysctl(String, Setting),
    /// An address on a link.
    Address(String, IpNet),
    /// A row of a forwarding database.
    Fdb(Fdb),
    /// A permanent neighbour.
    Neighbour {
        /// The device.
        link: String,
        /// The neighbour's address.
        address: IpAddr,
        /// The neighbour's MAC.
        mac: Mac,
    },
    /// A route through a gateway.
    Route {
        /// Where to.
        net: IpNet,
        /// Through which address. `None`: everything there is on the device itself.
        via: Option<IpAddr>,
        /// On which device.
        link: String,
        /// The source address of packets that have none yet. `None`: the kernel chooses.
        source: Option<IpAddr>,
    },
    /// What the engine of encrypted networks does.
    Wire(Config),
    /// Connections translated from a VIP to a backend that has left. Only ever removed.
    Flows {
        /// The virtual address they were made to.
        vip: IpAddr,
        /// The backend they reached.
        backend: IpAddr,
    },
    /// What the kernel remembers of UDP to a port of the host whose binding changed. Only ever removed.
    Datagrams {
        /// The host's address, or the unspecified one for all of its family.
        host: IpAddr,
        /// The port.
        port: u16,
    },
}

/// Whether a table is exactly what its skeleton says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// Rule for rule.
    Intact,
    /// Somebody's hand, an old version of ours, or half of one.
    Damaged,
}

/// What a kernel parameter is, or should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// This text, blanks normalised.
    Is(String),
    /// A number not smaller than this.
    AtLeast(u64),
}

impl Setting {
    /// Whether an observed value fulfils this one.
    pub fn met_by(&self, observed: &Setting) -> bool {
        match (self, observed) {
            (Setting::AtLeast(least), Setting::Is(text)) => {
                text.parse::<u64>().is_ok_and(|value| value >= *least)
            }
            (Setting::Is(_), _) | (Setting::AtLeast(_), Setting::AtLeast(_)) => self == observed,
        }
    }

    /// The text to write.
    pub fn text(&self) -> String {
        match self {
            Setting::Is(text) => text.clone(),
            Setting::AtLeast(value) => value.to_string(),
        }
    }
}

/// A policy routing rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Address family.
    pub family: Family,
    /// Lower is earlier.
    pub priority: u32,
    /// What it is for.
    pub on: RuleMatch,
    /// What happens.
    pub action: RuleAction,
}

/// Which packets a rule is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleMatch {
    /// What enters by this device.
    Iif(String),
    /// What has all bits of this mark.
    Mark(u32),
    /// Everything.
    All,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleAction {
    /// Look up this table.
    Lookup(u32),
    /// Refuse with ICMP "administratively prohibited".
    Prohibit,
    /// Go on at the rule of this priority.
    Goto(u32),
    /// Nothing: a place to go on at.
    Nop,
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A peer of a WireGuard device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The device.
    pub link: String,
    /// Its public key.
    pub key: weft_wire::Key,
    /// What its packets may come from, and which packets are for it: one address of the tunnel.
    pub allowed: Vec<IpNet>,
    /// Where its packets go. `None` in what was seen: it is alive where it is, and what it was told before is
    /// not known. `None` in an operation: it stays as it is.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between packets that keep a mapping of an address translator alive; 0 for none.
    pub keepalive: u16,
}

/// A forwarding row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fdb {
    /// On a VXLAN device: frames to this MAC go to this endpoint.
    Tunnel {
        /// The VXLAN device.
        link: String,
        /// Destination MAC.
        mac: Mac,
        /// Endpoint.
        dst: IpAddr,
    },
    /// On a VXLAN device: broadcast and multicast frames are also copied to this endpoint.
    Copy {
        /// The VXLAN device.
        link: String,
        /// Endpoint.
        dst: IpAddr,
    },
    /// On a bridge: this MAC is behind this port.
    Behind {
        /// The bridge.
        bridge: String,
        /// The port.
        port: String,
        /// The MAC.
        mac: Mac,
        /// Static as we write it, or learned, which is drift.
        learned: bool,
    },
}

impl Object {
    /// The key this object lives under.
    pub fn key(&self) -> Key {
        match self {
            Object::Namespace => Key::Namespace,
            Object::Table(table, _) => Key::Table(*table),
            Object::Element(element) => Key::Element(element.set, element.key.clone()),
            Object::Passage(family) => Key::Passage(*family),
            Object::Rule(rule) => Key::Rule(rule.clone()),
            Object::Barrier { table, net } => Key::Barrier(*table, *net),
            Object::Switch { name, .. } => Key::Switch(name.clone()),
            Object::Link(name, link) => Key::Link(link.kind.order(), name.clone()),
            Object::SwitchPort { name, .. } => Key::SwitchPort(name.clone()),
            Object::Secret { link, .. } => Key::Secret(link.clone()),
            Object::Peer(peer) => Key::Peer(peer.link.clone(), peer.key),
            Object::Sysctl(path, _) => Key::Sysctl(path.clone()),
            Object::Address(link, net) => Key::Address(link.clone(), *net),
            Object::Fdb(Fdb::Tunnel { link, mac, .. }) => Key::Fdb(link.clone(), *mac, None),
            Object::Fdb(Fdb::Copy { link, dst }) => {
                Key::Fdb(link.clone(), Mac::default(), Some(*dst))
            }
            Object::Fdb(Fdb::Behind { bridge, mac, .. }) => Key::Fdb(bridge.clone(), *mac, None),
            Object::Neighbour { link, address, .. } => Key::Neighbour(link.clone(), *address),
            Object::Route { net, .. } => Key::Route(*net),
            Object::Wire(_) => Key::Wire,
            Object::Flows { vip, backend } => Key::Flows(*vip, *backend),
            Object::Datagrams { host, port } => Key::Datagrams(*host, *port),
        }
    }

    /// The links this object rests on: it cannot be without them, and vanishes with them.
    pub fn links(&self) -> Vec<&str> {
        match self {
            Object::Address(link, _)
            | Object::Neighbour { link, .. }
            | Object::Route { link, .. }
            | Object::Secret { link, .. }
            | Object::Peer(Peer { link, .. })
            | Object::SwitchPort { name: link, .. }
            | Object::Fdb(Fdb::Tunnel { link, .. } | Fdb::Copy { link, .. }) => vec![link],
            Object::Fdb(Fdb::Behind { bridge, port, .. }) => vec![bridge, port],
            Object::Sysctl(path, _) => path
                .split_once("/conf/")
                .and_then(|(_, rest)| rest.split_once('/'))
                .map(|(link, _)| link)
                .filter(|link| !matches!(*link, "all" | "default"))
                .into_iter()
                .collect(),
            Object::Namespace
            | Object::Table(..)
            | Object::Element(_)
            | Object::Passage(_)
            | Object::Rule(_)
            | Object::Barrier { .. }
            | Object::Switch { .. }
            | Object::Link(..)
            | Object::Wire(_)
            | Object::Flows { .. }
            | Object::Datagrams { .. } => vec![],
        }
    }

    /// Whether this object vanishes with a link of that name.
    pub fn rests_on(&self, name: &str) -> bool {
        self.links().contains(&name)
    }
}

/// Puts an object under its key.
pub fn put(objects: &mut Objects, object: Object) {
    objects.insert(object.key(), object);
}

/// The link of that name, whatever its rank.
pub fn link<'a>(objects: &'a Objects, name: &str) -> Option<&'a Link> {
    [LinkOrder::First, LinkOrder::Second, LinkOrder::Third].into_iter().find_map(|order| {
        match objects.get(&Key::Link(order, name.to_owned())) {
            Some(Object::Link(_, link)) => Some(link),
            Some(_) | None => None,
        }
    })
}

/// The paths of the kernel parameters among the objects.
pub fn parameters(objects: &Objects) -> BTreeSet<String> {
    let paths = objects.keys().filter_map(|key| match key {
        Key::Sysctl(path) => Some(path.clone()),
        _ => None,
    });
    paths.collect()
}

/// What the kernel does to the rest of a namespace when a link goes: its addresses, rows, neighbours and
/// routes go along, and the ports of a bridge are set free.
pub fn remove_link(objects: &mut Objects, name: &str) {
    objects.retain(|_, object| match object {
        Object::Link(other, _) => other != name,
        other => !other.rests_on(name),
    });
    for object in objects.values_mut() {
        if let Object::Link(_, link) = object
            && link.master.as_deref() == Some(name)
        {
            link.master = None;
            link.port = None;
        }
    }
}
