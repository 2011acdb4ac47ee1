//! One sandbox: its ports on the host's bridges, and what is inside its namespace.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Facts, InnerEnd, TUNNEL_USERS, Wanted, network, network_mtu, parent, tunnel, vip};
use crate::dataplane::{Bridge, Dataplane, IpvlanMode, Kind, Network, NetworkKey, Port, Sandbox};
use crate::names::{self, DNS_PORT};
use crate::plane::{
    Element, Family, Fdb, Field, Integrity, Link, LinkKind, Object, Objects, PortFlags, Set,
    Setting, Table, put,
};

/// How a sandbox's port behaves: it may send from its own MAC only, and receives nothing by accident.
const SANDBOX_PORT: PortFlags = PortFlags {
    learning: false,
    flood: false,
    neigh_suppress: false,
    isolated: false,
    hairpin: false,
    locked: Some(true),
};

/// What the ports of all sandboxes depend on.
pub(super) struct Surroundings<'a> {
    pub(super) dataplane: &'a Dataplane,
    pub(super) facts: Facts,
    /// Addresses that published ports lead to.
    pub(super) published: BTreeSet<IpAddr>,
}

/// The ports of a sandbox on the host's bridges.
pub(super) fn outside(
    host: &mut Objects,
    wanted: &mut Wanted,
    key: &str,
    sandbox: &Sandbox,
    surroundings: &Surroundings<'_>,
) {
    let Surroundings { dataplane, facts, published } = surroundings;
    for (on, port) in &sandbox.attachments {
        let Some(network) = dataplane.networks.get(on) else { continue };
        let Some(bridge) = network::bridge(*on, network) else { continue };
        let mtu = network_mtu(dataplane, *on, *facts);
        let outer = names::veth(key, *on);
        for link in [&outer, &bridge].into_iter().cloned().chain(way(*on, network)) {
            wanted.users.entry(link).or_default().insert(key.to_owned());
        }
        // Where bridged frames pass through the firewalls of others (br_netfilter), so does our translation,
        // and what a member sends to its own published port goes back out where it came in.
        let reflected = facts.foreign_forward
            && port.addresses.iter().any(|net| published.contains(&net.addr()));
        let flags = PortFlags { hairpin: reflected, ..port_flags(network, port) };
        match network::switch(network) {
            Some(_) => switch_end(host, key, &outer, &bridge, network, mtu),
            None => outer_end(host, &outer, &bridge, network, port, mtu, flags),
        }
        if network::borrowed(network).is_none() {
            neighbours(host, &bridge, port);
        }
        let end = InnerEnd { sandbox: key.to_owned(), ifname: port.ifname.clone() };
        wanted.pairs.insert(outer, end);
    }
}

/// What an encrypted network rests on between the nodes.
fn way(on: NetworkKey, network: &Network) -> Vec<String> {
    match (on, tunnel::members(network)) {
        (NetworkKey::Vni(vni), Some(_)) => vec![names::vxlan(vni), TUNNEL_USERS.to_owned()],
        (NetworkKey::Vni(_) | NetworkKey::Local(_), _) => vec![],
    }
}

/// What is inside a sandbox's namespace.
pub(super) fn inside(key: &str, sandbox: &Sandbox, dataplane: &Dataplane, facts: Facts) -> Objects {
    let mut inside = basics(sandbox);
    let mut routed = BTreeSet::new();
    for (on, network, port) in by_rank(sandbox, dataplane) {
        let mtu = network_mtu(dataplane, on, facts);
        let veth =
            network::bridge(on, network).map(|_| LinkKind::Inner { outer: names::veth(key, on) });
        let Some(kind) = veth.or_else(|| parent::member(on, network)) else { continue };
        inner_end(&mut inside, kind, network, port, mtu);
        if network.kind.overlay().is_some() {
            // Between the nodes a path may shrink with nobody saying so. Over IPv4 packets are cut into pieces
            // on the way; over IPv6 only the sender can do that (RFC 8200, section 5), and TCP finds out by
            // itself that its packets are too large (RFC 4821).
            put(&mut inside, setting("net/ipv4/tcp_mtu_probing".to_owned(), "1"));
        }
        default_routes(&mut inside, &mut routed, network, port);
    }
    vip::lower(&mut inside, key, &sandbox.vips);
    inside
}

/// The ports of a sandbox whose networks are known, in the order in which they may carry the default route.
fn by_rank<'a>(
    sandbox: &'a Sandbox,
    dataplane: &'a Dataplane,
) -> Vec<(NetworkKey, &'a Network, &'a Port)> {
    let known = |(on, port): (&NetworkKey, &'a Port)| {
        dataplane.networks.get(on).map(|network| (*on, network, port))
    };
    let mut ports: Vec<_> = sandbox.attachments.iter().filter_map(known).collect();
    ports.sort_by_key(|(on, _, port)| (port.rank, *on));
    ports
}

/// What every sandbox has, whatever its networks.
fn basics(sandbox: &Sandbox) -> Objects {
    let mut inside = Objects::new();
    let loopback = Link { up: true, ..Link::bare(LinkKind::Loopback) };
    put(&mut inside, Object::Link("lo".to_owned(), loopback));
    let bare = sandbox.attachments.is_empty() && sandbox.vips.is_empty();
    if bare && sandbox.dns_port.is_none() {
        return inside;
    }
    put(&mut inside, Object::Table(Table::Sandbox, Integrity::Intact));
    // As in Docker: any user may ping, and bind any port.
    put(&mut inside, setting("net/ipv4/ping_group_range".to_owned(), "0 2147483647"));
    put(&mut inside, setting("net/ipv4/ip_unprivileged_port_start".to_owned(), "0"));
    if let Some(port) = sandbox.dns_port {
        let [standard, own] = [DNS_PORT, port].map(|port| vec![Field::Port(port)]);
        let asked = Element { set: Set::Asked, key: standard.clone(), value: own.clone() };
        let answered = Element { set: Set::Answered, key: own, value: standard };
        put(&mut inside, Object::Element(asked));
        put(&mut inside, Object::Element(answered));
    }
    inside
}

fn outer_end(
    host: &mut Objects,
    name: &str,
    bridge: &str,
    network: &Network,
    port: &Port,
    mtu: u32,
    flags: PortFlags,
) {
    let link = Link {
        kind: LinkKind::Veth,
        alias: names::alias(&network.id),
        mac: None,
        mtu,
        master: Some(bridge.to_owned()),
        port: Some(flags),
        up: true,
    };
    put(host, Object::Link(name.to_owned(), link));
    if closed(network).is_some() {
        put(host, element(Set::Closed, vec![Field::Name(name.to_owned())]));
    }
    let behind = Fdb::Behind {
        bridge: bridge.to_owned(),
        port: name.to_owned(),
        mac: port.mac,
        learned: false,
    };
    put(host, Object::Fdb(behind));
    let field = || Field::Name(name.to_owned());
    put(host, element(Set::Ports, vec![field()]));
    put(host, element(Set::Macs, vec![field(), Field::Mac(port.mac)]));
    for net in &port.addresses {
        let address = Field::from(net.addr());
        match net {
            IpNet::V4(_) => put(host, element(Set::Addresses4, vec![field(), address])),
            IpNet::V6(_) => {
                put(host, element(Set::Addresses6, vec![field(), address.clone()]));
                put(host, element(Set::Targets6, vec![field(), address]));
            }
        }
    }
}

/// The same on an Open vSwitch bridge. The bridge learns who is behind which port, and our tables do not see
/// what it forwards.
fn switch_end(
    host: &mut Objects,
    key: &str,
    name: &str,
    bridge: &str,
    network: &Network,
    mtu: u32,
) {
    let link = Link {
        kind: LinkKind::Veth,
        alias: names::alias(&network.id),
        mac: None,
        mtu,
        master: None,
        port: None,
        up: true,
    };
    put(host, Object::Link(name.to_owned(), link));
    put(
        host,
        Object::SwitchPort {
            name: name.to_owned(),
            bridge: bridge.to_owned(),
            sandbox: key.to_owned(),
            works: true,
        },
    );
}

/// The IPv6 neighbours of a bridge. It cannot ask for them on behalf of what it forwards: that takes a
/// link-local address (`ndisc_send_ns`), and our bridges have none.
fn neighbours(host: &mut Objects, bridge: &str, port: &Port) {
    for net in port.addresses.iter().filter(|net| net.addr().is_ipv6()) {
        let (link, address, mac) = (bridge.to_owned(), net.addr(), port.mac);
        put(host, Object::Neighbour { link, address, mac });
    }
}

/// The bridge of a network whose members do not talk to each other.
fn closed(network: &Network) -> Option<&Bridge> {
    match &network.kind {
        Kind::Bridge(bridge) if !bridge.icc => Some(bridge),
        Kind::Bridge(_) | Kind::Overlay(_) | Kind::Macvlan(_) | Kind::Ipvlan(_) | Kind::Ovs(_) => {
            None
        }
    }
}

/// Where nothing at all may pass between a member and the others the bridge itself keeps them apart, also
/// with every rule flushed.
fn port_flags(network: &Network, port: &Port) -> PortFlags {
    let own = |address: IpAddr| port.addresses.iter().any(|net| net.addr() == address);
    let alone = |bridge: &Bridge| {
        !bridge.openings.iter().any(|opening| own(opening.from) || own(opening.to))
    };
    PortFlags { isolated: closed(network).is_some_and(alone), ..SANDBOX_PORT }
}

fn inner_end(inside: &mut Objects, kind: LinkKind, network: &Network, port: &Port, mtu: u32) {
    let link = Link {
        kind,
        alias: names::alias(&network.id),
        mac: parent::has_own_mac(network).then_some(port.mac),
        mtu,
        master: None,
        port: None,
        up: true,
    };
    put(inside, Object::Link(port.ifname.clone(), link));
    for net in &port.addresses {
        put(inside, Object::Address(port.ifname.clone(), *net));
    }
    let has_v6 = port.addresses.iter().any(|net| net.addr().is_ipv6());
    let conf = |name: &str| format!("net/ipv6/conf/{}/{name}", port.ifname);
    put(inside, setting(conf("disable_ipv6"), if has_v6 { "0" } else { "1" }));
    // Routes come from us; a neighbour's router advertisement must not add one.
    put(inside, setting(conf("accept_ra"), "0"));
}

/// The default route of each family belongs to the first port that may carry it.
fn default_routes(
    inside: &mut Objects,
    routed: &mut BTreeSet<Family>,
    network: &Network,
    port: &Port,
) {
    if network.internal || !port.default_gateway {
        return;
    }
    for subnet in &network.subnets {
        let family = Family::of(subnet.gateway);
        let member = port.addresses.iter().any(|net| subnet.cidr.contains(&net.addr()));
        if member && routed.insert(family) {
            let any = match subnet.gateway {
                IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
                IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
            };
            let link = port.ifname.clone();
            // Where packets are switched, not frames, there is no neighbour to be a gateway.
            let flat =
                matches!(&network.kind, Kind::Ipvlan(ipvlan) if ipvlan.mode != IpvlanMode::L2);
            let via = (!flat).then_some(subnet.gateway);
            put(inside, Object::Route { net: any, via, link, source: None });
        }
    }
}

fn setting(path: String, value: &str) -> Object {
    Object::Sysctl(path, Setting::Is(value.to_owned()))
}

fn element(set: Set, key: Vec<Field>) -> Object {
    Object::Element(Element { set, key, value: vec![] })
}
