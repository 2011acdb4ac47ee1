//! One change to a kernel, and how a human would have typed it.

use std::fmt;

use crate::names::PROTOCOL;
use crate::plane::{
    Family, Fdb, Integrity, Link, LinkKind, Object, Peer, Place, PortFlags, RuleAction, RuleMatch,
};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// In which namespace.
    pub place: Place,
    /// What happens.
    pub verb: Verb,
    /// To what.
    pub object: Object,
}

/// What an operation does to its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Make it.
    Add,
    /// Make the host's end of a veth, with the other end born inside a sandbox.
    AddPair {
        /// The sandbox's key.
        sandbox: String,
        /// Name of the inner end.
        name: String,
        /// The inner end as it should be.
        inner: Link,
    },
    /// It is there; give it these values.
    Change,
    /// Remove it.
    Remove,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Host => {}
            Place::Tunnel => write!(f, "[the tunnel] ")?,
            Place::Sandbox(key) => write!(f, "[{key}] ")?,
        }
        let verb = match &self.verb {
            Verb::Add | Verb::AddPair { .. } => "add",
            Verb::Change => "replace",
            Verb::Remove => "del",
        };
        match &self.object {
            Object::Namespace => {
                let verb = if self.verb == Verb::Remove { "del" } else { "add" };
                write!(f, "ip netns {verb} the tunnel")
            }
            Object::Table(table, _) => match self.verb {
                Verb::Remove => write!(f, "nft delete table {}", table.spelled()),
                Verb::Add | Verb::AddPair { .. } | Verb::Change => {
                    write!(f, "nft -f {table:?}.nft")
                }
            },
            Object::Element(element) => match self.verb {
                Verb::Remove => write!(f, "nft delete element {element}"),
                Verb::Add | Verb::AddPair { .. } | Verb::Change => {
                    write!(f, "nft add element {element}")
                }
            },
            Object::Passage(family) => {
                let family = if *family == Family::V6 { "ip6" } else { "ip" };
                let verb = if self.verb == Verb::Remove { "delete" } else { "insert" };
                write!(f, "nft {verb} rule {family} filter DOCKER-USER")?;
                write!(f, " meta mark and 0x1000 == 0x1000 accept comment \"weft\"")
            }
            Object::Rule(rule) => {
                let six = if rule.family == Family::V6 { " -6" } else { "" };
                write!(f, "ip{six} rule {verb}")?;
                match &rule.on {
                    RuleMatch::Iif(iif) => write!(f, " iif {iif}")?,
                    RuleMatch::Mark(mark) => write!(f, " fwmark {mark:#x}/{mark:#x}")?,
                    RuleMatch::All => {}
                }
                write!(f, " priority {}", rule.priority)?;
                match rule.action {
                    RuleAction::Lookup(table) => write!(f, " lookup {table}")?,
                    RuleAction::Prohibit => write!(f, " prohibit")?,
                    RuleAction::Goto(priority) => write!(f, " goto {priority}")?,
                    RuleAction::Nop => write!(f, " nop")?,
                }
                write!(f, " protocol {PROTOCOL}")
            }
            Object::Barrier { table, net } => {
                write!(f, "ip route {verb} prohibit {net} table {table} protocol {PROTOCOL}")
            }
            Object::Switch { name, network, mac } => match (&self.verb, network) {
                (Verb::Remove, _) => write!(f, "ovs-vsctl del-br {name}"),
                (_, None) => write!(f, "ovs-vsctl br-exists {name}"),
                (_, Some(network)) => {
                    write!(f, "ovs-vsctl add-br {name} -- set Bridge {name}")?;
                    mac.map_or(Ok(()), |mac| write!(f, " other_config:hwaddr={mac}"))?;
                    write!(f, " external_ids:weft={network}")
                }
            },
            Object::SwitchPort { name, bridge, .. } => match self.verb {
                Verb::Remove => write!(f, "ovs-vsctl del-port {name}"),
                Verb::Add | Verb::AddPair { .. } | Verb::Change => {
                    write!(f, "ovs-vsctl add-port {bridge} {name}")
                }
            },
            Object::Link(name, link) => write_link(f, &self.verb, name, link),
            Object::Secret { link, port, .. } => {
                write!(f, "wg set {link} private-key ... listen-port {port}")
            }
            Object::Peer(peer) => write_peer(f, &self.verb, peer),
            Object::Wire(config) => write!(
                f,
                "weft wire {verb}: {} keys, {} nodes, {} networks",
                config.identities.len(),
                config.nodes.len(),
                config.networks.len(),
            ),
            Object::Sysctl(path, setting) => {
                write!(f, "sysctl -w {}='{}'", path.replace('/', "."), setting.text())
            }
            Object::Address(link, net) => write!(f, "ip address {verb} {net} dev {link} nodad"),
            Object::Fdb(Fdb::Tunnel { link, mac, dst }) => {
                write!(f, "bridge fdb {verb} {mac} dev {link} dst {dst} self permanent")
            }
            Object::Fdb(Fdb::Copy { link, dst }) => {
                let verb = if self.verb == Verb::Remove { "del" } else { "append" };
                write!(f, "bridge fdb {verb} 00:00:00:00:00:00 dev {link} dst {dst} self permanent")
            }
            Object::Fdb(Fdb::Behind { port, mac, .. }) => {
                write!(f, "bridge fdb {verb} {mac} dev {port} master static")
            }
            Object::Neighbour { link, address, mac } => {
                write!(f, "ip neigh {verb} {address} lladdr {mac} dev {link} nud permanent")
            }
            Object::Route { net, via, link, source } => {
                write!(f, "ip route {verb} {net}")?;
                via.map_or(Ok(()), |via| write!(f, " via {via}"))?;
                write!(f, " dev {link} protocol {PROTOCOL}")?;
                source.map_or(Ok(()), |source| write!(f, " src {source}"))
            }
            Object::Flows { vip, backend } => {
                write!(f, "conntrack -D --orig-dst {vip} --reply-src {backend}")
            }
            Object::Datagrams { host, port } => {
                write!(f, "conntrack -D -p udp --orig-dst {host} --orig-port-dst {port}")
            }
        }
    }
}

/// Keys are not printed: a peer is known by its address in the tunnel.
fn write_peer(f: &mut fmt::Formatter<'_>, verb: &Verb, peer: &Peer) -> fmt::Result {
    write!(f, "wg set {} peer ...", peer.link)?;
    for net in &peer.allowed {
        write!(f, " allowed-ips {net}")?;
    }
    if *verb == Verb::Remove {
        return write!(f, " remove");
    }
    peer.endpoint.map_or(Ok(()), |endpoint| write!(f, " endpoint {endpoint}"))?;
    write!(f, " persistent-keepalive {}", peer.keepalive)
}

fn write_link(f: &mut fmt::Formatter<'_>, verb: &Verb, name: &str, link: &Link) -> fmt::Result {
    match verb {
        Verb::Remove => return write!(f, "ip link del {name}"),
        Verb::Change => write!(f, "ip link set {name}")?,
        Verb::Add => {
            write!(f, "ip link add {name}")?;
            write_kind(f, &link.kind)?;
        }
        Verb::AddPair { sandbox, name: inner_name, inner } => {
            write!(f, "ip link add {name} type veth peer {inner_name}")?;
            if let Some(mac) = inner.mac {
                write!(f, " address {mac}")?;
            }
            write!(f, " netns {sandbox}; ip link set {name}")?;
        }
    }
    if let Some(mac) = link.mac {
        write!(f, " address {mac}")?;
    }
    if link.mtu != 0 {
        write!(f, " mtu {}", link.mtu)?;
    }
    if let Some(master) = &link.master {
        write!(f, " master {master}")?;
    }
    if !link.alias.is_empty() {
        write!(f, " alias {}", link.alias)?;
    }
    if link.up {
        write!(f, " up")?;
    }
    link.port.map_or(Ok(()), |port| write_port(f, port))
}

fn write_kind(f: &mut fmt::Formatter<'_>, kind: &LinkKind) -> fmt::Result {
    match kind {
        LinkKind::Bridge => write!(f, " type bridge mcast_snooping 0"),
        LinkKind::Vxlan { vni, local, port } => {
            write!(f, " type vxlan id {vni} local {local} dstport {port} nolearning")
        }
        LinkKind::Tunnelled { vni, port } => {
            write!(f, " type vxlan id {vni} dstport {port} nolearning (made in the tunnel)")
        }
        LinkKind::Tap => write!(f, " type tuntap mode tap multi_queue vnet_hdr"),
        LinkKind::WireGuard => write!(f, " type wireguard (asked for in the host)"),
        LinkKind::Veth | LinkKind::Inner { .. } | LinkKind::Cable => write!(f, " type veth"),
        LinkKind::Stub { peer } => write!(f, " type veth peer {peer}"),
        LinkKind::Vlan { parent, tag } => write!(f, " link {parent} type vlan id {tag}"),
        LinkKind::Macvlan { parent, mode } => {
            let mode = format!("{mode:?}").to_lowercase();
            write!(f, " link {parent} type macvlan mode {mode}")
        }
        LinkKind::Ipvlan { parent, mode } => {
            let mode = format!("{mode:?}").to_lowercase();
            write!(f, " link {parent} type ipvlan mode {mode}")
        }
        LinkKind::Loopback | LinkKind::Internal | LinkKind::Foreign => Ok(()),
    }
}

fn write_port(f: &mut fmt::Formatter<'_>, port: PortFlags) -> fmt::Result {
    let word = |on: bool| if on { "on" } else { "off" };
    write!(
        f,
        " type bridge_slave learning {} flood {} neigh_suppress {}",
        word(port.learning),
        word(port.flood),
        word(port.neigh_suppress),
    )?;
    for (flag, set) in [("isolated", port.isolated), ("hairpin", port.hairpin)] {
        if set {
            write!(f, " {flag} on")?;
        }
    }
    port.locked.map_or(Ok(()), |locked| write!(f, " locked {}", word(locked)))
}

impl Op {
    /// An op that makes `object` at `place`.
    pub fn add(place: Place, object: Object) -> Self {
        Self { place, verb: Verb::Add, object }
    }

    /// An op that gives `object` at `place` its values.
    pub fn change(place: Place, object: Object) -> Self {
        Self { place, verb: Verb::Change, object }
    }

    /// An op that removes `object` at `place`.
    pub fn remove(place: Place, object: Object) -> Self {
        Self { place, verb: Verb::Remove, object }
    }
}

/// Whether an observed object already is what a wanted one says.
pub fn satisfies(wanted: &Object, observed: &Object) -> bool {
    match (wanted, observed) {
        (Object::Sysctl(_, wanted), Object::Sysctl(_, observed)) => wanted.met_by(observed),
        (Object::Table(..), Object::Table(_, integrity)) => *integrity == Integrity::Intact,
        // An administrator's may be anybody's.
        (Object::Switch { network, .. }, Object::Switch { network: observed, .. }) => {
            network.is_none() || network == observed
        }
        (Object::Link(_, wanted), Object::Link(_, observed)) => {
            // A flag the kernel does not know cannot be wanted of it.
            let known = |port: PortFlags| PortFlags {
                locked: port
                    .locked
                    .filter(|_| observed.port.is_none_or(|port| port.locked.is_some())),
                ..port
            };
            let mtu = if wanted.mtu == 0 { observed.mtu } else { wanted.mtu };
            // A MAC that nobody asked for is the kernel's or the parent's.
            let mac = wanted.mac.or(observed.mac);
            Link { port: wanted.port.map(known), mtu, mac, ..wanted.clone() } == *observed
        }
        (
            Object::Secret { link, key, port },
            Object::Secret { link: device, key: seen, port: at },
        ) => (link, clamped(key), port) == (device, clamped(seen), at),
        // The engine does not tell private keys, but which public ones they belong to.
        (Object::Wire(wanted), Object::Wire(observed)) => {
            wanted.without_private_keys() == *observed
        }
        (Object::Peer(wanted), Object::Peer(observed)) => {
            let endpoint = observed.endpoint.or(wanted.endpoint);
            Peer { endpoint, ..observed.clone() } == *wanted
        }
        (wanted, observed) => wanted == observed,
    }
}

/// A private key as it is used: these bits have no choice (RFC 7748, section 5), and the kernel sets them.
fn clamped(key: &weft_wire::Key) -> [u8; 32] {
    let mut bytes = key.0;
    bytes[0] &= 248;
    bytes[31] = bytes[31] & 127 | 64;
    bytes
}
