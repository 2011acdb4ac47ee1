//! Encrypted networks: their way to the other nodes, and the link that they share.
//!
//! Closed by construction: such a network has no device that could send in the clear. With the kernel's
//! WireGuard its VXLAN device sends in a namespace that only the tunnel leads out of; with an engine of our
//! own its TAP device is read by that engine and by nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};
use weft_wire::{Config, Identity, Member};

use super::{Facts, put_all};
use crate::dataplane::{Dataplane, Engine, Network, NetworkKey, Overlay, Tunnel};
use crate::mtu;
use crate::names::{self, Mac, TUNNEL_ID, VXLAN_PORT};
use crate::plane::{
    Element, Fdb, Field, Integrity, Link, LinkKind, Object, Objects, Peer, Set, Setting, Table, put,
};

/// The namespace leads nowhere: nothing is forwarded, there is no IPv6. A peer's packets may come by the
/// device of either of our keys, whichever the way back takes (`rp_filter`).
const PARAMETERS: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
];

/// The device of an encrypted network that is its port on the bridge.
pub(super) fn port(vni: u32, tunnel: &Tunnel) -> LinkKind {
    match tunnel.engine {
        Engine::Kernel => LinkKind::Tunnelled { vni, port: VXLAN_PORT },
        Engine::Userspace => LinkKind::Tap,
    }
}

/// The rows of that device: where the kernel sends frames. A node that is not known gets none.
pub(super) fn rows(device: &str, members: &BTreeMap<Mac, Member>, tunnel: &Tunnel) -> Vec<Object> {
    if tunnel.engine == Engine::Userspace {
        return vec![];
    }
    let link = || device.to_owned();
    let known = members.iter().filter_map(|(mac, member)| {
        let current = tunnel.nodes.get(&member.node)?.identities.first()?;
        Some((*mac, IpAddr::V4(current.address)))
    });
    let known: Vec<(Mac, IpAddr)> = known.collect();
    let nodes: BTreeSet<IpAddr> = known.iter().map(|(_, dst)| *dst).collect();
    let rows = known.into_iter().map(|(mac, dst)| Fdb::Tunnel { link: link(), mac, dst });
    let copies = nodes.into_iter().map(|dst| Fdb::Copy { link: link(), dst });
    rows.chain(copies).map(Object::Fdb).collect()
}

/// The link that all encrypted networks share: its part in the host, and the namespace it is in.
pub(super) fn lower(host: &mut Objects, dataplane: &Dataplane, facts: Facts) -> Option<Objects> {
    let tunnel = dataplane.tunnel.as_ref()?;
    let networks: BTreeMap<u32, &BTreeMap<Mac, Member>> = encrypted(dataplane).collect();
    if networks.is_empty() {
        return None;
    }
    match tunnel.engine {
        Engine::Userspace => {
            put(host, Object::Wire(config(tunnel, &networks)));
            None
        }
        Engine::Kernel => {
            put(host, Object::Namespace);
            let vtep = dataplane.underlay.as_ref().map(|underlay| underlay.vtep);
            Some(namespace(tunnel, &networks, mtu::tunnel(facts.underlay_mtu, vtep)))
        }
    }
}

/// The encrypted networks of a node.
pub(super) fn encrypted(
    dataplane: &Dataplane,
) -> impl Iterator<Item = (u32, &BTreeMap<Mac, Member>)> {
    dataplane.networks.iter().filter_map(|(key, network)| match key {
        NetworkKey::Vni(vni) => Some((*vni, members(network)?)),
        NetworkKey::Local(_) => None,
    })
}

/// The interfaces of an encrypted network on other nodes.
pub(super) fn members(network: &Network) -> Option<&BTreeMap<Mac, Member>> {
    match network.kind.overlay()? {
        Overlay::Encrypted(members) => Some(members),
        Overlay::Plain(_) => None,
    }
}

fn config(tunnel: &Tunnel, networks: &BTreeMap<u32, &BTreeMap<Mac, Member>>) -> Config {
    let network = |(vni, members): (&u32, &&BTreeMap<Mac, Member>)| {
        let members = members.iter().map(|(mac, member)| (mac.0, member.clone())).collect();
        (*vni, weft_wire::Network { device: names::vxlan(*vni), members })
    };
    Config {
        identities: tunnel.identities.clone(),
        nodes: tunnel.nodes.clone(),
        networks: networks.iter().map(network).collect(),
    }
}

fn namespace(
    tunnel: &Tunnel,
    networks: &BTreeMap<u32, &BTreeMap<Mac, Member>>,
    mtu: u32,
) -> Objects {
    let mut inside = Objects::new();
    put(&mut inside, Object::Link("lo".to_owned(), link(LinkKind::Loopback, String::new(), 0)));
    put(&mut inside, Object::Table(Table::Tunnel, Integrity::Intact));
    for (path, value) in PARAMETERS {
        put(&mut inside, setting((*path).to_owned(), value));
    }
    for identity in &tunnel.identities {
        device(&mut inside, identity, tunnel, mtu);
    }
    let source = tunnel.identities.first();
    for address in tunnel.nodes.values().flat_map(|node| &node.identities).map(|key| key.address) {
        put(&mut inside, element(Set::Receivers, vec![Field::V4(address)]));
        put_all(&mut inside, source.map(|source| route(address, source)));
    }
    senders(&mut inside, tunnel, networks);
    inside
}

/// The WireGuard device of one key of ours. All keys of all nodes are its peers: which of them speak to
/// which of ours is their choice.
fn device(inside: &mut Objects, identity: &Identity, tunnel: &Tunnel, mtu: u32) {
    let name = names::wireguard(identity.address);
    let alias = names::alias(TUNNEL_ID);
    put(inside, Object::Link(name.clone(), link(LinkKind::WireGuard, alias, mtu)));
    put(inside, setting(format!("net/ipv4/conf/{name}/rp_filter"), "0"));
    put(inside, Object::Address(name.clone(), alone(identity.address)));
    if let Some(port) = identity.ports.first() {
        let (link, key) = (name.clone(), identity.private_key);
        put(inside, Object::Secret { link, key, port: *port });
    }
    for node in tunnel.nodes.values() {
        for key in &node.identities {
            let endpoint = key.ports.first().map(|port| SocketAddr::new(node.endpoint, *port));
            let peer = Peer {
                link: name.clone(),
                key: key.public_key,
                allowed: vec![alone(key.address)],
                endpoint,
                keepalive: node.keepalive.unwrap_or(0),
            };
            put_all(inside, endpoint.map(|_| Object::Peer(peer)));
        }
    }
}

/// To each address of a node by the device of our current key, and from its address.
fn route(to: Ipv4Addr, source: &Identity) -> Object {
    Object::Route {
        net: alone(to),
        via: None,
        link: names::wireguard(source.address),
        source: Some(source.address.into()),
    }
}

/// Frames of an interface come from its own node, with any of its keys; those of no interface are told from
/// those of a network that is not shared.
fn senders(
    inside: &mut Objects,
    tunnel: &Tunnel,
    networks: &BTreeMap<u32, &BTreeMap<Mac, Member>>,
) {
    for (vni, members) in networks {
        for (mac, member) in *members {
            let keys = tunnel.nodes.get(&member.node).map(|node| node.identities.iter());
            for key in keys.into_iter().flatten() {
                let fields = vec![Field::V4(key.address), Field::Vni(*vni)];
                put(inside, element(Set::Sharers, fields.clone()));
                let fields = fields.into_iter().chain([Field::Mac(*mac)]).collect();
                put(inside, element(Set::Senders, fields));
            }
        }
    }
}

/// One address by itself.
fn alone(address: Ipv4Addr) -> IpNet {
    Ipv4Net::from(address).into()
}

fn link(kind: LinkKind, alias: String, mtu: u32) -> Link {
    Link { kind, alias, mac: None, mtu, master: None, port: None, up: true }
}

fn setting(path: String, value: &str) -> Object {
    Object::Sysctl(path, Setting::Is(value.to_owned()))
}

fn element(set: Set, key: Vec<Field>) -> Object {
    Object::Element(Element { set, key, value: vec![] })
}
