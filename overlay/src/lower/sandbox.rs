//! One sandbox: its ports on the host's bridges, and what is inside its namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Facts, InnerEnd, network_mtu, vip};
use crate::dataplane::{Dataplane, Network, Port, Sandbox};
use crate::names::{self, DNS_PORT, RESOLVER};
use crate::plane::{
    Element, Family, Fdb, Field, Integrity, Link, LinkKind, Object, Objects, PortFlags, Set,
    Setting, Table, put,
};

/// How a sandbox's port behaves: it may send from its own MAC only, and receives nothing by accident.
const SANDBOX_PORT: PortFlags =
    PortFlags { learning: false, flood: false, neigh_suppress: false, locked: Some(true) };

/// The ports of a sandbox on the host's bridges.
pub(super) fn outside(
    host: &mut Objects,
    pairs: &mut BTreeMap<String, InnerEnd>,
    key: &str,
    sandbox: &Sandbox,
    dataplane: &Dataplane,
    facts: Facts,
) {
    for (vni, port) in &sandbox.attachments {
        let Some(network) = dataplane.networks.get(vni) else { continue };
        let mtu = network_mtu(dataplane, *vni, facts);
        let outer = names::veth(key, *vni);
        outer_end(host, &outer, &names::bridge(*vni), network, port, mtu);
        let end = InnerEnd { sandbox: key.to_owned(), ifname: port.ifname.clone() };
        pairs.insert(outer, end);
    }
}

/// What is inside a sandbox's namespace.
pub(super) fn inside(key: &str, sandbox: &Sandbox, dataplane: &Dataplane, facts: Facts) -> Objects {
    let mut inside = basics(sandbox);
    let mut routed = BTreeSet::new();
    for (vni, port) in &sandbox.attachments {
        let Some(network) = dataplane.networks.get(vni) else { continue };
        let outer = names::veth(key, *vni);
        inner_end(&mut inside, outer, network, port, network_mtu(dataplane, *vni, facts));
        default_routes(&mut inside, &mut routed, network, port);
    }
    vip::lower(&mut inside, key, &sandbox.vips);
    inside
}

/// What every sandbox has, whatever its networks.
fn basics(sandbox: &Sandbox) -> Objects {
    let mut inside = Objects::new();
    let loopback = Link {
        kind: LinkKind::Loopback,
        alias: String::new(),
        mac: None,
        mtu: 0,
        master: None,
        port: None,
        up: true,
    };
    put(&mut inside, Object::Link("lo".to_owned(), loopback));
    put(&mut inside, Object::Table(Table::Sandbox, Integrity::Intact));
    // As in Docker: any user may ping, and bind any port.
    put(&mut inside, setting("net/ipv4/ping_group_range".to_owned(), "0 2147483647"));
    put(&mut inside, setting("net/ipv4/ip_unprivileged_port_start".to_owned(), "0"));
    if let Some(port) = sandbox.dns_port {
        let end = |port| vec![Field::V4(RESOLVER), Field::Port(port)];
        let element = Element { set: Set::Resolver, key: end(DNS_PORT), value: end(port) };
        put(&mut inside, Object::Element(element));
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
) {
    let link = Link {
        kind: LinkKind::Veth,
        alias: names::alias(&network.id),
        mac: None,
        mtu,
        master: Some(bridge.to_owned()),
        port: Some(SANDBOX_PORT),
        up: true,
    };
    put(host, Object::Link(name.to_owned(), link));
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

fn inner_end(inside: &mut Objects, outer: String, network: &Network, port: &Port, mtu: u32) {
    let link = Link {
        kind: LinkKind::Inner { outer },
        alias: names::alias(&network.id),
        mac: Some(port.mac),
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
            put(inside, Object::Route { net: any, via: subnet.gateway, link });
        }
    }
}

fn setting(path: String, value: &str) -> Object {
    Object::Sysctl(path, Setting::Is(value.to_owned()))
}

fn element(set: Set, key: Vec<Field>) -> Object {
    Object::Element(Element { set, key, value: vec![] })
}
