//! Plans as a human would read them.

use std::collections::BTreeSet;

use super::*;
use crate::dataplane::*;
use crate::lower::{Facts, lower};
use crate::names::mac_for;
use crate::plane::put;

fn small() -> Dataplane {
    let vtep = |n: u8| IpAddr::from([192, 0, 2, n]);
    let mut plane = Dataplane {
        underlay: Some(Underlay { vtep: vtep(1), port: 4789, members: [vtep(1), vtep(2)].into() }),
        ..Dataplane::default()
    };
    let far: IpAddr = "10.1.0.3".parse().unwrap();
    let remote = Remote { addresses: vec![far], mac: mac_for([far]), vtep: vtep(2) };
    let subnet =
        Subnet { cidr: "10.1.0.0/24".parse().unwrap(), gateway: "10.1.0.1".parse().unwrap() };
    let network = Network {
        id: "n".into(),
        subnets: vec![subnet],
        kind: Kind::Overlay(Overlay::Plain(Plain {
            remotes: [remote].into(),
            peers: [vtep(2)].into(),
        })),
        ..Network::default()
    };
    plane.networks.insert(NetworkKey::Vni(65536), network);
    let near: IpAddr = "10.1.0.2".parse().unwrap();
    let port = Port {
        ifname: "eth0".into(),
        mac: mac_for([near]),
        addresses: vec!["10.1.0.2/24".parse().unwrap()],
        default_gateway: true,
        rank: 0,
    };
    let sandbox = Sandbox {
        netns: NetnsRef("/proc/1/ns/net".into()),
        attachments: [(NetworkKey::Vni(65536), port)].into(),
        vips: [("10.1.0.200".parse().unwrap(), vec![far])].into(),
        dns_port: None,
    };
    plane.sandboxes.insert("t".into(), sandbox);
    plane
}

/// What a kernel looks like that has the wanted objects.
fn settled(wanted: &Wanted) -> Plane {
    wanted.plane.clone()
}

fn empty() -> Plane {
    let inside = Objects::new();
    let places = [(Place::Host, Objects::new()), (Place::Sandbox("t".into()), inside)];
    Plane { places: places.into() }
}

fn lines(ops: &[Op]) -> Vec<String> {
    ops.iter().map(ToString::to_string).collect()
}

fn position(lines: &[String], start: &str) -> usize {
    lines
        .iter()
        .position(|line| line.starts_with(start))
        .unwrap_or_else(|| panic!("no {start} in {lines:#?}"))
}

#[test]
fn guards_come_before_what_they_guard_and_referents_before_references() {
    let wanted = lower(&small(), Facts::default());
    let lines = lines(&plan(&wanted, empty(), Completeness::Complete));
    let order = [
        "nft -f Host.nft",
        "nft add element inet weft bridges { \"wb010000\" }",
        "ip rule add iif wb010000 priority 933 lookup 9338 protocol 219",
        "ip route add prohibit 10.1.0.0/24 table 9338 protocol 219",
        "ip link add wb010000 type bridge mcast_snooping 0 address 02:42:0a:01:00:01 mtu 1450 alias weft:n up",
        "ip link add wx010000 type vxlan id 65536 local 192.0.2.1 dstport 4789 nolearning",
        "[t] ip link set eth0",
        "ip address add 10.1.0.1/24 dev wb010000 nodad",
        "[t] ip address add 10.1.0.2/24 dev eth0 nodad",
        "bridge fdb add 02:42:0a:01:00:03 dev wx010000 master static",
        "ip neigh add 10.1.0.3 lladdr 02:42:0a:01:00:03 dev wb010000 nud permanent",
        "[t] ip route add 0.0.0.0/0 via 10.1.0.1 dev eth0 protocol 219",
    ];
    let positions: Vec<usize> = order.iter().map(|start| position(&lines, start)).collect();
    assert!(positions.is_sorted(), "{positions:?} {lines:#?}");
    position(&lines, "bridge fdb add 02:42:0a:01:00:03 dev wx010000 dst 192.0.2.2 self permanent");
    position(
        &lines,
        "bridge fdb append 00:00:00:00:00:00 dev wx010000 dst 192.0.2.2 self permanent",
    );
}

#[test]
fn what_is_as_wanted_needs_nothing() {
    let wanted = lower(&small(), Facts::default());
    assert_eq!(lines(&plan(&wanted, settled(&wanted), Completeness::Complete)), [""; 0]);
}

#[test]
fn a_recreated_bridge_takes_its_ports_rows_and_addresses_along() {
    let wanted = lower(&small(), Facts::default());
    let mut seen = settled(&wanted);
    plane::remove_link(seen.places.get_mut(&Place::Host).unwrap(), "wb010000");
    let lines = lines(&plan(&wanted, seen, Completeness::Complete));
    for start in [
        "ip link add wb010000",
        "ip link set wx010000",
        "ip address add 10.1.0.1/24 dev wb010000",
        "bridge fdb add 02:42:0a:01:00:03 dev wx010000 master static",
        "ip neigh add 10.1.0.3",
    ] {
        position(&lines, start);
    }
    assert!(!lines.iter().any(|line| line.contains("nft")), "{lines:#?}");
}

#[test]
fn a_backend_that_leaves_takes_its_slots_and_then_its_flows() {
    let mut desired = small();
    let seen = settled(&lower(&desired, Facts::default()));
    let vips = &mut desired.sandboxes.get_mut("t").unwrap().vips;
    vips.insert("10.1.0.200".parse().unwrap(), vec!["10.1.0.4".parse().unwrap()]);
    let ops = plan(&lower(&desired, Facts::default()), seen, Completeness::Complete);
    let lines = lines(&ops);
    assert_eq!(lines.len(), 129, "{lines:#?}");
    assert_eq!(lines[128], "[t] conntrack -D --orig-dst 10.1.0.200 --reply-src 10.1.0.3");
    let kinds: BTreeSet<&str> = lines[..128].iter().map(|line| &line[..14]).collect();
    assert_eq!(kinds, BTreeSet::from(["[t] nft add el", "[t] nft delete"]));
}

#[test]
fn a_sandbox_that_was_not_reached_gets_no_port() {
    let wanted = lower(&small(), Facts::default());
    let mut seen = empty();
    seen.places.remove(&Place::Sandbox("t".into()));
    let lines = lines(&plan(&wanted, seen, Completeness::Complete));
    assert!(!lines.iter().any(|line| line.contains(" wv") && line.starts_with("ip link")));
    assert!(!lines.iter().any(|line| line.contains("fdb") && line.contains("dev wv")));
}

#[test]
fn strangers_with_tempting_names_are_left_alone() {
    let mut seen = empty();
    let host = seen.places.get_mut(&Place::Host).unwrap();
    let link = Link {
        kind: LinkKind::Bridge,
        alias: "mine".into(),
        mac: None,
        mtu: 1500,
        master: None,
        port: None,
        up: true,
    };
    put(host, Object::Link("wbcafe00".into(), link));
    put(host, Object::Address("wbcafe00".into(), "10.9.0.1/24".parse().unwrap()));
    assert_eq!(lines(&plan(&Wanted::default(), seen, Completeness::Complete)), [""; 0]);
}

#[test]
fn only_a_complete_wish_removes_and_removes_backwards() {
    let seen = settled(&lower(&small(), Facts::default()));
    let wanted = Wanted::default();
    assert_eq!(lines(&plan(&wanted, seen.clone(), Completeness::Partial)), [""; 0]);
    let lines = lines(&plan(&wanted, seen, Completeness::Complete));
    let order = [
        "ip link del wx010000",
        "ip link del wb010000",
        "ip route del prohibit",
        "ip rule del",
        "nft delete table",
    ];
    let positions: Vec<usize> = order.iter().map(|start| position(&lines, start)).collect();
    assert!(positions.is_sorted(), "{positions:?} {lines:#?}");
}

/// One encrypted network with an interface on node 2, over the kernel's WireGuard.
fn encrypted() -> Dataplane {
    use weft_wire::{Identity, Key as WireKey, Member, Node, PeerIdentity};
    let mut plane = small();
    let address = |number: u8| Ipv4Addr::new(100, 64, 0, number);
    let far: IpAddr = "10.1.0.3".parse().unwrap();
    let members = [(mac_for([far]), Member { node: 2, addresses: vec![far] })].into();
    let network = plane.networks.get_mut(&NetworkKey::Vni(65536)).unwrap();
    network.kind = Kind::Overlay(Overlay::Encrypted(members));
    let key =
        PeerIdentity { public_key: WireKey([4; 32]), address: address(4), ports: vec![51820] };
    let node =
        Node { endpoint: "192.0.2.2".parse().unwrap(), identities: vec![key], keepalive: None };
    let identity =
        Identity { private_key: WireKey([2; 32]), address: address(2), ports: vec![51820] };
    plane.tunnel = Some(Tunnel {
        engine: Engine::Kernel,
        identities: vec![identity],
        nodes: [(2, node)].into(),
    });
    plane
}

/// The namespace of the tunnel as it is when it has just been made, and nothing else.
fn opened() -> Plane {
    let mut seen = empty();
    put(seen.places.get_mut(&Place::Host).unwrap(), Object::Namespace);
    seen.places.insert(Place::Tunnel, Objects::new());
    seen
}

#[test]
fn the_tunnel_is_filtered_before_it_leads_anywhere() {
    let wanted = lower(&encrypted(), Facts { underlay_mtu: Some(1500), ..Facts::default() });
    let ops = plan(&wanted, opened(), Completeness::Complete);
    let inside = ops.iter().filter(|op| op.place == Place::Tunnel).map(ToString::to_string);
    let inside: Vec<String> = inside.collect();
    let expected = [
        "[the tunnel] nft -f Tunnel.nft",
        "[the tunnel] nft add element inet weft senders { 100.64.0.4 . 0x010000 . 02:42:0a:01:00:03 }",
        "[the tunnel] nft add element inet weft sharers { 100.64.0.4 . 0x010000 }",
        "[the tunnel] nft add element inet weft receivers { 100.64.0.4 }",
        "[the tunnel] ip link add weft-wg0 type wireguard (asked for in the host) mtu 1440 alias weft:tunnel up",
        "[the tunnel] wg set weft-wg0 private-key ... listen-port 51820",
        "[the tunnel] wg set weft-wg0 peer ... allowed-ips 100.64.0.4/32 endpoint 192.0.2.2:51820 persistent-keepalive 0",
        "[the tunnel] sysctl -w net.ipv4.conf.weft-wg0.rp_filter='0'",
        "[the tunnel] ip address add 100.64.0.2/32 dev weft-wg0 nodad",
        "[the tunnel] ip route add 100.64.0.4/32 dev weft-wg0 protocol 219 src 100.64.0.2",
    ];
    assert_eq!(inside, expected);
    let vxlan = ops.iter().map(ToString::to_string).filter(|line| line.contains("wx010000"));
    let vxlan: Vec<String> = vxlan.collect();
    assert!(
        vxlan[0].starts_with("ip link add wx010000 type vxlan id 65536 dstport 4789"),
        "{vxlan:#?}"
    );
    assert!(vxlan.iter().any(|line| line.contains("dst 100.64.0.4 self")), "{vxlan:#?}");
    assert!(!vxlan.iter().any(|line| line.contains("192.0.2.2")), "{vxlan:#?}");
}

#[test]
fn without_a_tunnel_an_encrypted_network_has_no_way_out() {
    let mut wish = encrypted();
    wish.tunnel = None;
    let wanted = lower(&wish, Facts::default());
    let ops = plan(&wanted, empty(), Completeness::Complete);
    assert!(!ops.iter().any(|op| op.to_string().contains("wx010000")), "{ops:#?}");
    assert!(ops.iter().any(|op| op.to_string().starts_with("ip link add wb010000")));
}

/// The kernel gives a private key back with the bits set that have no choice.
#[test]
fn a_key_is_the_same_in_both_spellings() {
    let secret = |key: [u8; 32]| Object::Secret {
        link: "weft-wg0".into(),
        key: weft_wire::Key(key),
        port: 51820,
    };
    let mut clamped = [7; 32];
    (clamped[0], clamped[31]) = (0, 71);
    assert!(satisfies(&secret([7; 32]), &secret(clamped)));
    assert!(!satisfies(&secret([7; 32]), &secret([9; 32])));
}

/// A peer that has moved is left where it is, unless it is wished elsewhere than before.
#[test]
fn a_live_peer_is_told_only_what_is_new() {
    let mut wish = encrypted();
    let facts = Facts { underlay_mtu: Some(1500), ..Facts::default() };
    let settled = |endpoint: Option<&str>| {
        let mut seen = lower(&encrypted(), facts).plane;
        for object in seen.places.get_mut(&Place::Tunnel).unwrap().values_mut() {
            if let Object::Peer(peer) = object {
                peer.endpoint = endpoint.map(|text| text.parse().unwrap());
            }
        }
        seen
    };
    let peers = |wish: &Dataplane, seen: Plane| -> Vec<String> {
        let ops = plan(&lower(wish, facts), seen, Completeness::Complete);
        ops.iter().map(ToString::to_string).filter(|line| line.contains("peer")).collect()
    };
    // Alive, and what it was told is not known; or it was told the same.
    assert_eq!(peers(&wish, settled(None)), [""; 0]);
    assert_eq!(peers(&wish, settled(Some("192.0.2.2:51820"))), [""; 0]);
    // Silent, and elsewhere.
    let back = "[the tunnel] wg set weft-wg0 peer ... allowed-ips 100.64.0.4/32 endpoint 192.0.2.2:51820 \
                persistent-keepalive 0";
    assert_eq!(peers(&wish, settled(Some("192.0.2.9:51820"))), [back]);
    // Something else is wished: its endpoint is not touched.
    wish.tunnel.as_mut().unwrap().nodes.get_mut(&2).unwrap().keepalive = Some(25);
    let kept =
        "[the tunnel] wg set weft-wg0 peer ... allowed-ips 100.64.0.4/32 persistent-keepalive 25";
    assert_eq!(peers(&wish, settled(None)), [kept]);
    assert_eq!(peers(&wish, settled(Some("192.0.2.2:51820"))), [kept]);
}

/// Before everything is known the engine keeps doing what it does already.
#[test]
fn an_incomplete_wish_takes_nothing_from_the_engine() {
    let mut wish = encrypted();
    wish.tunnel.as_mut().unwrap().engine = Engine::Userspace;
    let facts = Facts { underlay_mtu: Some(1500), ..Facts::default() };
    let all = lower(&wish, facts);
    let mut seen = all.plane.clone();
    let Some(Object::Wire(told)) = seen.places[&Place::Host].get(&Key::Wire).cloned() else {
        panic!("nothing is told")
    };
    put(seen.places.get_mut(&Place::Host).unwrap(), Object::Wire(told.without_private_keys()));
    let mut less = wish.clone();
    let network = less.networks.get_mut(&NetworkKey::Vni(65536)).unwrap();
    network.kind = Kind::Overlay(Overlay::Encrypted(BTreeMap::new()));
    less.tunnel.as_mut().unwrap().nodes.clear();
    let less = lower(&less, facts);
    let told = |completeness| -> Vec<Op> {
        let ops = plan(&less, seen.clone(), completeness);
        ops.into_iter().filter(|op| matches!(op.object, Object::Wire(_))).collect()
    };
    assert_eq!(told(Completeness::Partial), []);
    let [op] = &told(Completeness::Complete)[..] else { panic!("one word") };
    assert_eq!(op.to_string(), "weft wire replace: 1 keys, 0 nodes, 1 networks");
    assert!(!format!("{op:?}").contains("2, 2, 2"), "no key is printed");
}
