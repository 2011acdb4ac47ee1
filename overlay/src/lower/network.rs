//! One network on this node: bridge, VXLAN device, gateway, rows for what is elsewhere, and its walls.
//!
//! A bridge that is an administrator's is left as it is: he may have put the host's own cable into it, and
//! walls around our networks would stand in his way.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_wire::Member;

use super::{Facts, network_mtu, put_all, tunnel};
use crate::dataplane::{Bridge, Dataplane, Kind, Network, NetworkKey, Overlay, Ovs, Plain, Remote};
use crate::names::{self, INTERNAL_PRIORITY, ISOLATION_PRIORITY, ISOLATION_TABLE, Mac};
use crate::plane::{
    Element, Family, Fdb, Field, Link, LinkKind, Object, Objects, PortFlags, Rule, RuleAction,
    RuleMatch, Set, put,
};

/// How a VXLAN device behaves as a port: it knows every MAC from us, and answers ARP itself.
const TUNNEL_PORT: PortFlags = PortFlags {
    learning: false,
    flood: false,
    neigh_suppress: true,
    isolated: false,
    hairpin: false,
    locked: Some(false),
};

pub(super) fn lower(
    host: &mut Objects,
    key: NetworkKey,
    network: &Network,
    dataplane: &Dataplane,
    facts: Facts,
) {
    let mtu = network_mtu(dataplane, key, facts);
    match &network.kind {
        Kind::Overlay(overlay) => {
            let bridge = names::bridge(key);
            let link = bridge_link(network, mtu);
            match (key, overlay) {
                (NetworkKey::Vni(vni), Overlay::Plain(plain)) => {
                    vxlan(host, vni, &bridge, &link, plain, dataplane);
                }
                (NetworkKey::Vni(vni), Overlay::Encrypted(members)) => {
                    encrypted(host, vni, &bridge, &link, members, dataplane);
                }
                (NetworkKey::Local(_), _) => {}
            }
            put(host, Object::Link(bridge.clone(), link));
            gateways(host, &bridge, network);
            walls(host, &bridge, network, facts);
            put_all(host, (!network.internal).then(|| masquerade(&bridge)));
        }
        Kind::Bridge(bridge) if bridge.owned => {
            put(host, Object::Link(bridge.device.clone(), bridge_link(network, mtu)));
            gateways(host, &bridge.device, network);
            walls(host, &bridge.device, network, facts);
            let masked = bridge.masquerade && !network.internal;
            put_all(host, masked.then(|| masquerade(&bridge.device)));
            openings(host, bridge);
        }
        Kind::Bridge(bridge) => {
            put(host, inside(&bridge.device));
            openings(host, bridge);
        }
        Kind::Ovs(ovs) if ovs.owned => {
            let link = Link { kind: LinkKind::Internal, ..bridge_link(network, mtu) };
            let (name, owner) = (ovs.bridge.clone(), Some(network.id.clone()));
            put(host, Object::Switch { name: name.clone(), network: owner, mac: link.mac });
            put(host, Object::Link(name, link));
            gateways(host, &ovs.bridge, network);
            walls(host, &ovs.bridge, network, facts);
            put_all(host, (!network.internal).then(|| masquerade(&ovs.bridge)));
        }
        Kind::Ovs(ovs) => {
            put(host, Object::Switch { name: ovs.bridge.clone(), network: None, mac: None });
        }
        Kind::Macvlan(_) | Kind::Ipvlan(_) => {}
    }
}

/// The bridge that sandboxes on a network have their ports on, if there is one.
pub(super) fn bridge(key: NetworkKey, network: &Network) -> Option<String> {
    match &network.kind {
        Kind::Overlay(_) => Some(names::bridge(key)),
        Kind::Bridge(bridge) => Some(bridge.device.clone()),
        Kind::Ovs(ovs) => Some(ovs.bridge.clone()),
        Kind::Macvlan(_) | Kind::Ipvlan(_) => None,
    }
}

/// The device of somebody else that a network is on.
pub(super) fn borrowed(network: &Network) -> Option<String> {
    match &network.kind {
        Kind::Bridge(bridge) if !bridge.owned => Some(bridge.device.clone()),
        Kind::Ovs(ovs) if !ovs.owned => Some(ovs.bridge.clone()),
        Kind::Bridge(_) | Kind::Overlay(_) | Kind::Macvlan(_) | Kind::Ipvlan(_) | Kind::Ovs(_) => {
            None
        }
    }
}

/// The Open vSwitch bridge of a network of that kind.
pub(super) fn switch(network: &Network) -> Option<&Ovs> {
    match &network.kind {
        Kind::Ovs(ovs) => Some(ovs),
        Kind::Overlay(_) | Kind::Bridge(_) | Kind::Macvlan(_) | Kind::Ipvlan(_) => None,
    }
}

fn bridge_link(network: &Network, mtu: u32) -> Link {
    Link {
        kind: LinkKind::Bridge,
        alias: names::alias(&network.id),
        // The same on every node, so that a container keeps its neighbour entry when it moves.
        mac: Some(names::mac_for(network.subnets.iter().map(|subnet| subnet.gateway))),
        mtu,
        master: None,
        port: None,
        up: true,
    }
}

/// The way to the other nodes: a VXLAN device, and the rows for what is there.
fn vxlan(
    host: &mut Objects,
    vni: u32,
    bridge: &str,
    like: &Link,
    overlay: &Plain,
    dataplane: &Dataplane,
) {
    let Some(underlay) = &dataplane.underlay else { return };
    let device = names::vxlan(vni);
    let kind = LinkKind::Vxlan { vni, local: underlay.vtep, port: underlay.port };
    let (master, port) = (Some(bridge.to_owned()), Some(TUNNEL_PORT));
    let link = Link { kind, mac: None, master, port, ..like.clone() };
    put(host, Object::Link(device.clone(), link));
    for remote in &overlay.remotes {
        put_all(host, rows(bridge, &device, remote));
    }
    let copies = overlay.peers.iter().map(|dst| Fdb::Copy { link: device.clone(), dst: *dst });
    put_all(host, copies.map(Object::Fdb));
}

/// The way of an encrypted network: into the tunnel, or nowhere.
fn encrypted(
    host: &mut Objects,
    vni: u32,
    bridge: &str,
    like: &Link,
    members: &BTreeMap<Mac, Member>,
    dataplane: &Dataplane,
) {
    let Some(way) = &dataplane.tunnel else { return };
    let device = names::vxlan(vni);
    let (master, port) = (Some(bridge.to_owned()), Some(TUNNEL_PORT));
    let link = Link { kind: tunnel::port(vni, way), mac: None, master, port, ..like.clone() };
    put(host, Object::Link(device.clone(), link));
    for (mac, member) in members {
        put_all(host, behind(bridge, &device, *mac, &member.addresses));
    }
    put_all(host, tunnel::rows(&device, members, way));
}

/// The three rows of a remote attachment.
fn rows(bridge: &str, device: &str, remote: &Remote) -> Vec<Object> {
    let mac = remote.mac;
    let tunnel = Fdb::Tunnel { link: device.to_owned(), mac, dst: remote.vtep };
    let mut rows = behind(bridge, device, mac, &remote.addresses);
    rows.push(Object::Fdb(tunnel));
    rows
}

/// What the bridge knows of a remote attachment. Without its own row ARP is not suppressed, and unicast
/// frames are flooded to bystanders.
fn behind(bridge: &str, device: &str, mac: Mac, addresses: &[IpAddr]) -> Vec<Object> {
    let row =
        Fdb::Behind { bridge: bridge.to_owned(), port: device.to_owned(), mac, learned: false };
    let neighbours = addresses.iter().map(|address| Object::Neighbour {
        link: bridge.to_owned(),
        address: *address,
        mac,
    });
    std::iter::once(Object::Fdb(row)).chain(neighbours).collect()
}

fn gateways(host: &mut Objects, bridge: &str, network: &Network) {
    for subnet in &network.subnets {
        let set = match subnet.gateway {
            IpAddr::V4(_) => Set::Gateways4,
            IpAddr::V6(_) => Set::Gateways6,
        };
        put(host, element(set, vec![Field::Name(bridge.to_owned()), subnet.gateway.into()]));
        let net = ipnet::IpNet::new(subnet.gateway, subnet.cidr.prefix_len());
        // A prefix length comes from a network of the same family, or the subnet is not one.
        put_all(host, net.ok().map(|net| Object::Address(bridge.to_owned(), net)));
    }
}

/// Networks do not reach each other: by routing alone, so that it holds with every firewall rule flushed.
fn walls(host: &mut Objects, bridge: &str, network: &Network, facts: Facts) {
    put(host, element(Set::Bridges, vec![name(bridge)]));
    put(host, inside(bridge));
    if !network.internal {
        put(host, element(Set::Outward, vec![name(bridge)]));
    }
    for subnet in &network.subnets {
        put(host, Object::Barrier { table: ISOLATION_TABLE, net: subnet.cidr.trunc() });
    }
    // For both families whatever the subnets: a network without IPv6 must not forward it either.
    let families = if facts.no_ipv6 { &[Family::V4][..] } else { &[Family::V4, Family::V6] };
    for family in families.iter().copied() {
        let on = RuleMatch::Iif(bridge.to_owned());
        let rule = |priority, action| Rule { family, priority, on: on.clone(), action };
        let isolate = rule(ISOLATION_PRIORITY, RuleAction::Lookup(ISOLATION_TABLE));
        put(host, Object::Rule(isolate));
        if network.internal {
            put(host, Object::Rule(rule(INTERNAL_PRIORITY, RuleAction::Prohibit)));
        }
    }
}

/// What may pass between the ports of a bridge whose members do not talk to each other.
fn openings(host: &mut Objects, bridge: &Bridge) {
    for opening in bridge.openings.iter().filter(|_| !bridge.icc) {
        let set = match opening.from {
            IpAddr::V4(_) => Set::Openings4,
            IpAddr::V6(_) => Set::Openings6,
        };
        let key = vec![
            opening.from.into(),
            opening.to.into(),
            Field::Protocol(opening.protocol.number()),
            Field::Port(opening.port),
        ];
        put_all(host, (opening.from.is_ipv4() == opening.to.is_ipv4()).then(|| element(set, key)));
    }
}

fn inside(bridge: &str) -> Object {
    element(Set::Inside, vec![name(bridge), name(bridge)])
}

fn masquerade(bridge: &str) -> Object {
    element(Set::Masqueraded, vec![name(bridge)])
}

fn name(link: &str) -> Field {
    Field::Name(link.to_owned())
}

fn element(set: Set, key: Vec<Field>) -> Object {
    Object::Element(Element { set, key, value: vec![] })
}
