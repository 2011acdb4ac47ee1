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
