//! One network on this node: bridge, VXLAN device, gateway, rows for what is elsewhere, and its walls.

use std::net::IpAddr;

use super::{Facts, network_mtu, put_all};
use crate::dataplane::{Dataplane, Network, Remote};
use crate::names::{self, INTERNAL_PRIORITY, ISOLATION_PRIORITY, ISOLATION_TABLE};
use crate::plane::{
    Element, Family, Fdb, Field, Link, LinkKind, Object, Objects, PortFlags, Rule, RuleAction, Set,
    put,
};

/// How a VXLAN device behaves as a port: it knows every MAC from us, and answers ARP itself.
const TUNNEL_PORT: PortFlags =
    PortFlags { learning: false, flood: false, neigh_suppress: true, locked: Some(false) };

pub(super) fn lower(
    host: &mut Objects,
    vni: u32,
    network: &Network,
    dataplane: &Dataplane,
    facts: Facts,
) {
    let bridge = names::bridge(vni);
    let mtu = network_mtu(dataplane, vni, facts);
    let link = Link {
        kind: LinkKind::Bridge,
        alias: names::alias(&network.id),
        // The same on every node, so that a container keeps its neighbour entry when it moves.
        mac: Some(names::mac_for(network.subnets.iter().map(|subnet| subnet.gateway))),
        mtu,
        master: None,
        port: None,
        up: true,
    };
    if let Some(underlay) = &dataplane.underlay {
        let device = names::vxlan(vni);
        let kind = LinkKind::Vxlan { vni, local: underlay.vtep, port: underlay.port };
        let master = Some(bridge.clone());
        let port = Some(TUNNEL_PORT);
        put(
            host,
            Object::Link(device.clone(), Link { kind, mac: None, master, port, ..link.clone() }),
        );
        for remote in &network.remotes {
            put_all(host, rows(&bridge, &device, remote));
        }
        let copies = network.peers.iter().map(|dst| Fdb::Copy { link: device.clone(), dst: *dst });
        put_all(host, copies.map(Object::Fdb));
    }
    put(host, Object::Link(bridge.clone(), link));
    gateways(host, &bridge, network);
    walls(host, &bridge, network, facts);
}

/// The three rows of a remote attachment. Without the bridge's own row ARP is not suppressed, and unicast
/// frames are flooded to bystanders.
fn rows(bridge: &str, device: &str, remote: &Remote) -> Vec<Object> {
    let mac = remote.mac;
    let tunnel = Fdb::Tunnel { link: device.to_owned(), mac, dst: remote.vtep };
    let behind =
        Fdb::Behind { bridge: bridge.to_owned(), port: device.to_owned(), mac, learned: false };
    let neighbours = remote.addresses.iter().map(|address| Object::Neighbour {
        link: bridge.to_owned(),
        address: *address,
        mac,
    });
    [Object::Fdb(tunnel), Object::Fdb(behind)].into_iter().chain(neighbours).collect()
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
    let name = || Field::Name(bridge.to_owned());
    put(host, element(Set::Bridges, vec![name()]));
    put(host, element(Set::Inside, vec![name(), name()]));
    if !network.internal {
        put(host, element(Set::Outward, vec![name()]));
    }
    for subnet in &network.subnets {
        put(host, Object::Barrier { table: ISOLATION_TABLE, net: subnet.cidr.trunc() });
    }
    // For both families whatever the subnets: a network without IPv6 must not forward it either.
    let families = if facts.no_ipv6 { &[Family::V4][..] } else { &[Family::V4, Family::V6] };
    for family in families.iter().copied() {
        let rule = |priority, action| Rule { family, priority, iif: bridge.to_owned(), action };
        let isolate = rule(ISOLATION_PRIORITY, RuleAction::Lookup(ISOLATION_TABLE));
        put(host, Object::Rule(isolate));
        if network.internal {
            put(host, Object::Rule(rule(INTERNAL_PRIORITY, RuleAction::Prohibit)));
        }
    }
}

fn element(set: Set, key: Vec<Field>) -> Object {
    Object::Element(Element { set, key, value: vec![] })
}
