//! Interfaces made on a device of the host, and wires between sandboxes.

use weft_overlay::*;

use super::lab::*;

const LAN: &[(&str, &str)] = &[("192.0.2.0/24", "192.0.2.9")];

fn macvlan(parent: Option<&str>, mode: MacvlanMode) -> Kind {
    Kind::Macvlan(Macvlan { parent: parent.map(str::to_owned), mode })
}

/// A node in no cluster, and somebody on its LAN.
fn on_a_lan() -> (Lab, Space) {
    let mut lab = Lab::new(1, false);
    lab.nodes[0].desired.underlay = None;
    let neighbour = plug(&lab.switch, 9);
    (lab, neighbour)
}

#[test]
fn macvlan_members_are_on_the_lan_of_their_parent() {
    let (mut lab, neighbour) = on_a_lan();
    let one = lab.local(1, LAN, macvlan(Some("up0"), MacvlanMode::Bridge));
    let a = lab.join("a", &[(one, "eth0", &["192.0.2.50/24"], 0)]);
    let _b = lab.join("b", &[(one, "eth0", &["192.0.2.51/24"], 0)]);
    lab.settle();
    assert!(a.sh("ip -d link show eth0").contains("macvlan mode bridge"));
    assert!(a.sh("ip route show default").contains("via 192.0.2.9 dev eth0"));
    assert!(a.reaches("192.0.2.51") && a.reaches("192.0.2.9") && neighbour.reaches("192.0.2.50"));
    // A hand takes one away; it comes back.
    a.sh("ip link del eth0");
    lab.settle();
    assert!(a.reaches("192.0.2.51"));
    let network = lab.nodes[0].desired.networks.get_mut(&one).unwrap();
    network.kind = macvlan(Some("up0"), MacvlanMode::Private);
    lab.settle();
    assert!(a.reaches("192.0.2.9") && !a.pings("192.0.2.51"), "private");
    lab.nodes[0].desired.sandboxes.clear();
    lab.nodes[0].desired.networks.clear();
    lab.settle();
    assert!(a.try_sh("ip link show eth0").is_err());
    lab.nodes[0].space.sh("ip link show up0");
}

#[test]
fn a_passthru_network_has_one_member() {
    let (mut lab, _neighbour) = on_a_lan();
    lab.nodes[0].space.sh("ip link add spare type veth peer name other; ip link set other up");
    let one = lab.local(1, LAN, macvlan(Some("spare"), MacvlanMode::Passthru));
    let _a = lab.join("a", &[(one, "eth0", &["192.0.2.50/24"], 0)]);
    lab.settle();
    let _b = lab.join("b", &[(one, "eth0", &["192.0.2.51/24"], 0)]);
    let troubled = lab.nodes[0].look(Completeness::Complete, Scope::Full).troubled();
    assert_eq!(troubled.keys().collect::<Vec<_>>(), ["b"]);
    assert!(troubled["b"].contains("spare is in use"), "{troubled:?}");
}

#[test]
fn without_a_parent_members_reach_each_other_and_nobody_else() {
    let (mut lab, _neighbour) = on_a_lan();
    let before = lab.nodes[0].space.sh("ip -o link | sed 's/@.*//' | cut -d' ' -f2");
    let subnets = &[("10.7.0.0/24", "10.7.0.1")];
    let one = lab.local(1, subnets, macvlan(None, MacvlanMode::Bridge));
    let a = lab.join("a", &[(one, "eth0", &["10.7.0.2/24"], 0)]);
    let _b = lab.join("b", &[(one, "eth0", &["10.7.0.3/24"], 0)]);
    lab.settle();
    assert!(a.reaches("10.7.0.3"));
    assert!(!a.pings("192.0.2.9"));
    lab.nodes[0].desired.sandboxes.clear();
    lab.settle();
    let after = lab.nodes[0].space.sh("ip -o link | sed 's/@.*//' | cut -d' ' -f2");
    assert_eq!(after, before, "the last member takes the device along");
}

#[test]
fn a_parent_that_is_missing_or_cannot_be_is_trouble_with_a_name() {
    let (mut lab, _neighbour) = on_a_lan();
    let ipvlan = Kind::Ipvlan(Ipvlan { parent: Some("up0".into()), mode: IpvlanMode::L2 });
    let missing = lab.local(1, LAN, macvlan(Some("nope0"), MacvlanMode::Bridge));
    let two = lab.local(2, LAN, ipvlan);
    let tagged = lab.local(3, LAN, macvlan(Some("up0.10"), MacvlanMode::Bridge));
    let ovs = lab.local(4, LAN, Kind::Ovs(Ovs { bridge: "ovs0".into(), owned: false }));
    let _a = lab.join("a", &[(missing, "eth0", &["192.0.2.50/24"], 0)]);
    let _b = lab.join("b", &[(two, "eth0", &["192.0.2.51/24"], 0)]);
    let _c = lab.join("c", &[(tagged, "eth0", &["192.0.2.52/24"], 0)]);
    let _d = lab.join("d", &[(ovs, "eth0", &["192.0.2.53/24"], 0)]);
    let report = lab.nodes[0].look(Completeness::Complete, Scope::Full);
    let troubled = report.troubled();
    assert!(troubled["a"].contains("no link nope0"), "{}", troubled["a"]);
    assert!(troubled["d"].contains("Open vSwitch"), "{}", troubled["d"]);
    assert!(!report.is_settled());
    let has = |kind: &str| {
        let make = format!("ip link add link up0 name probe type {kind} && ip link del probe");
        lab.nodes[0].space.try_sh(&make).is_ok()
    };
    match has("vlan id 99") {
        true => assert!(!troubled.contains_key("c"), "{}", troubled["c"]),
        false => assert!(troubled["c"].contains("CONFIG_VLAN_8021Q"), "{}", troubled["c"]),
    }
    if !troubled["b"].contains("in use") && !has("ipvlan") {
        assert!(troubled["b"].contains("this kernel has no ipvlan (CONFIG_IPVLAN)"));
    }
}

#[test]
fn a_cable_is_there_while_both_of_its_ends_are() {
    let (mut lab, _neighbour) = on_a_lan();
    let end = |sandbox: &str, ifname: &str, address: &str| CableEnd {
        sandbox: sandbox.into(),
        ifname: ifname.into(),
        addresses: vec![address.parse().unwrap()],
    };
    let cable = Cable { ends: [end("b", "p0", "10.8.0.2/30"), end("a", "p0", "10.8.0.1/30")] };
    lab.nodes[0].desired.cables.insert("one".into(), cable);
    let a = lab.join("a", &[]);
    lab.settle();
    assert!(a.try_sh("ip link show p0").is_err(), "there is no other end");
    let b = lab.join("b", &[]);
    let report = lab.nodes[0].look(Completeness::Complete, Scope::Changed([].into()));
    assert!(report.is_settled(), "{:?}", report.failed);
    assert!(a.reaches("10.8.0.2") && b.reaches("10.8.0.1"));
    assert_eq!(a.sh("ip route show default").trim(), "");
    lab.settle();
    b.sh("ip link del p0");
    lab.settle();
    assert!(a.reaches("10.8.0.2"), "it is made anew");
    lab.nodes[0].desired.sandboxes.remove("b");
    lab.settle();
    assert!(a.try_sh("ip link show p0").is_err() && b.try_sh("ip link show p0").is_err());
}
