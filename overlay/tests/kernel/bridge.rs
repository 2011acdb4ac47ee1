//! Bridges of one host: who reaches whom, and what happens to interfaces while a container runs.

use weft_overlay::*;

use super::lab::*;

const ONE: &[(&str, &str)] = &[("10.1.0.0/24", "10.1.0.1"), ("fd01::/64", "fd01::1")];
const TWO: &[(&str, &str)] = &[("10.2.0.0/24", "10.2.0.1"), ("fd02::/64", "fd02::1")];

/// A node in no cluster.
fn alone() -> Lab {
    let mut lab = Lab::new(1, false);
    lab.nodes[0].desired.underlay = None;
    lab
}

fn change(lab: &mut Lab, network: NetworkKey, edit: impl FnOnce(&mut Bridge)) {
    match &mut lab.nodes[0].desired.networks.get_mut(&network).unwrap().kind {
        Kind::Bridge(bridge) => edit(bridge),
        _ => unreachable!("the tests of this file make bridges"),
    }
}

#[test]
fn members_reach_each_other_the_host_and_the_world() {
    let mut lab = alone();
    let one = lab.local(1, ONE, Kind::Bridge(bridge("weft0")));
    let a = lab.join("a", &[(one, "eth0", &["10.1.0.2/24", "fd01::2/64"], 0)]);
    let b = lab.join("b", &[(one, "eth0", &["10.1.0.3/24", "fd01::3/64"], 0)]);
    lab.nodes[0].desired.networks.get_mut(&one).unwrap().mtu = Some(1400);
    lab.settle();
    for target in ["10.1.0.3", "fd01::3", "10.1.0.1", "fd01::1"] {
        assert!(a.reaches(target), "a cannot reach {target}");
    }
    b.serve_tcp("10.1.0.3:80", "b");
    b.serve_tcp("[fd01::3]:80", "b");
    let host = &lab.nodes[0].space;
    assert_eq!(host.ask_tcp("10.1.0.3:80").unwrap(), "b 10.1.0.1");
    assert_eq!(host.ask_tcp("[fd01::3]:80").unwrap(), "b fd01::1");
    assert!(host.sh("ip -d link show weft0").contains("mtu 1400"));
    assert!(a.sh("ip link show eth0").contains("mtu 1400"));
    let outside = plug(&lab.switch, 9);
    outside.serve_tcp("192.0.2.9:80", "out");
    outside.serve_tcp("[2001:db8::9]:80", "out");
    assert_eq!(a.ask_tcp("192.0.2.9:80").unwrap(), "out 192.0.2.1");
    assert_eq!(a.ask_tcp("[2001:db8::9]:80").unwrap(), "out 2001:db8::1");
    // With its own address, where the network says so.
    change(&mut lab, one, |bridge| bridge.masquerade = false);
    lab.settle();
    outside.sh("ip route add 10.1.0.0/24 via 192.0.2.1");
    assert_eq!(a.ask_tcp("192.0.2.9:80").unwrap(), "out 10.1.0.2");
    // Replies come in, new connections do not.
    assert!(!outside.tcp_passes("10.1.0.3:80"));
}

#[test]
fn networks_of_one_host_are_apart_also_without_nftables() {
    let mut lab = Lab::new(1, false);
    lab.network(VNI, &[("10.9.0.0/24", "10.9.0.1")], false);
    let one = lab.local(1, ONE, Kind::Bridge(bridge("weft0")));
    let two = lab.local(2, TWO, Kind::Bridge(bridge("br-000000000002")));
    let a = lab.join("a", &[(one, "eth0", &["10.1.0.2/24", "fd01::2/64"], 0)]);
    let b = lab.join("b", &[(two, "eth0", &["10.2.0.2/24", "fd02::2/64"], 0)]);
    let c = lab.attach(0, "c", &[(VNI, &["10.9.0.2/24"])]);
    let both = lab.join(
        "both",
        &[
            (one, "eth0", &["10.1.0.4/24", "fd01::4/64"], 0),
            (two, "eth1", &["10.2.0.4/24", "fd02::4/64"], 1),
        ],
    );
    lab.nodes[0].desired.networks.get_mut(&two).unwrap().internal = true;
    lab.settle();
    let outside = plug(&lab.switch, 9);
    outside.serve_tcp("192.0.2.9:80", "out");
    b.serve_tcp("10.2.0.2:80", "b");
    b.serve_tcp("[fd02::2]:80", "b");
    c.serve_tcp("10.9.0.2:80", "c");
    let apart = |when| {
        for target in ["10.2.0.2:80", "[fd02::2]:80", "10.9.0.2:80"] {
            assert!(!a.tcp_passes(target), "{target} {when}");
        }
        assert!(!b.tcp_passes("10.9.0.2:80"), "{when}");
        assert!(!b.tcp_passes("192.0.2.9:80"), "an internal network, {when}");
        assert!(both.reaches("10.1.0.2") && both.reaches("fd02::2"), "{when}");
    };
    apart("with the firewall");
    lab.nodes[0].space.sh("nft flush ruleset");
    apart("with the firewall flushed");
}

#[test]
fn interfaces_come_and_go_while_a_container_runs() {
    let mut lab = alone();
    let one = lab.local(1, ONE, Kind::Bridge(bridge("weft0")));
    let two = lab.local(2, TWO, Kind::Bridge(bridge("br-000000000002")));
    let a = lab.join("a", &[(one, "eth0", &["10.1.0.2/24", "fd01::2/64"], 5)]);
    let _b = lab.join("b", &[(two, "eth0", &["10.2.0.3/24", "fd02::3/64"], 0)]);
    lab.settle();
    let route = || a.sh("ip route show default; ip -6 route show default");
    let identity = || a.sh("ip -o link show eth0");
    let before = identity();
    assert!(route().contains("via 10.1.0.1 dev eth0"));
    let ports = |lab: &mut Lab,
                 edit: &dyn Fn(&mut std::collections::BTreeMap<NetworkKey, Port>)| {
        edit(&mut lab.nodes[0].desired.sandboxes.get_mut("a").unwrap().attachments);
        let report = lab.nodes[0].look(Completeness::Complete, Scope::Changed([].into()));
        assert!(report.is_settled(), "{:?}", report.failed);
        report
    };
    let second = port("eth1", &["10.2.0.2/24", "fd02::2/64"], 9);
    ports(&mut lab, &|all| drop(all.insert(two, second.clone())));
    assert!(a.reaches("10.2.0.3") && a.reaches("fd02::3"));
    assert!(route().contains("via 10.1.0.1 dev eth0"), "the lower rank keeps the route");
    assert_eq!(identity(), before, "the first interface is not touched");
    ports(&mut lab, &|all| all.get_mut(&two).unwrap().rank = 1);
    assert!(route().contains("via 10.2.0.1 dev eth1") && route().contains("via fd02::1 dev eth1"));
    assert_eq!(identity(), before);
    ports(&mut lab, &|all| drop(all.remove(&two)));
    assert!(a.try_sh("ip link show eth1").is_err());
    assert!(route().contains("via 10.1.0.1 dev eth0"), "the route follows: {}", route());
    assert_eq!(identity(), before);
    assert!(a.reaches("10.1.0.1") && a.reaches("fd01::1"));
    let report = ports(&mut lab, &|all| drop(all.remove(&one)));
    assert!(!report.executed.is_empty());
    assert!(a.try_sh("ip link show eth0").is_err());
    assert_eq!(
        a.sh("nft list ruleset").trim(),
        "",
        "attached to nothing, nothing of ours is inside"
    );
    lab.settle();
}

#[test]
fn an_administrators_bridge_is_used_and_left_as_it_is() {
    const STATE: &str = "ip -d link show br0 | grep -v ether; ip addr show br0; ip rule";
    let mut lab = alone();
    let own = Bridge { owned: false, masquerade: false, ..bridge("br0") };
    let one = lab.local(1, &[("10.1.0.0/24", "10.1.0.1")], Kind::Bridge(own));
    let a = lab.join("a", &[(one, "eth0", &["10.1.0.2/24"], 0)]);
    let b = lab.join("b", &[(one, "eth0", &["10.1.0.3/24"], 0)]);
    let report = lab.nodes[0].look(Completeness::Complete, Scope::Full);
    let troubled = report.troubled();
    assert_eq!(troubled.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert!(troubled["a"].ends_with("no link br0"), "{}", troubled["a"]);
    lab.nodes[0].space.sh(
        "ip link add br0 type bridge mcast_snooping 1; ip link set br0 address 02:00:00:00:00:07 up; \
         ip addr add 10.1.0.1/24 dev br0",
    );
    let before = lab.nodes[0].space.sh(STATE);
    lab.settle();
    assert!(a.reaches("10.1.0.3") && a.reaches("10.1.0.1"));
    lab.nodes[0].space.serve_tcp("10.1.0.1:22", "host");
    assert!(a.tcp_passes("10.1.0.1:22"), "his bridge, his rules");
    assert_eq!(lab.nodes[0].space.sh("bridge link | grep -c 'master br0'").trim(), "2");
    lab.nodes[0].desired.sandboxes.remove("b");
    lab.settle();
    assert!(b.try_sh("ip link show eth0").is_err());
    lab.nodes[0].desired.networks.clear();
    lab.nodes[0].desired.sandboxes.clear();
    lab.settle();
    assert!(a.try_sh("ip link show eth0").is_err());
    let plain = |text: String| text.replace("LOWER_UP", "").replace("state UP", "state DOWN");
    let after = plain(lab.nodes[0].space.sh(STATE));
    for word in ["mcast_snooping 1", "10.1.0.1/24"] {
        assert!(before.contains(word) && after.contains(word), "{word}: {after}");
    }
}

#[test]
fn a_name_that_is_taken_is_trouble_for_the_sandboxes() {
    let mut lab = alone();
    lab.nodes[0].space.sh("ip link add weft0 type bridge");
    let one = lab.local(1, ONE, Kind::Bridge(bridge("weft0")));
    let _a = lab.join("a", &[(one, "eth0", &["10.1.0.2/24"], 0)]);
    let report = lab.nodes[0].look(Completeness::Complete, Scope::Full);
    assert!(report.troubled()["a"].contains("weft0"), "{:?}", report.troubled());
    lab.nodes[0].space.sh("ip link show weft0; ip link del weft0");
    lab.settle();
}

#[test]
fn members_that_do_not_talk_reach_what_is_opened() {
    let mut lab = alone();
    let one = lab.local(1, ONE, Kind::Bridge(Bridge { icc: false, ..bridge("weft0") }));
    let a = lab.join("a", &[(one, "eth0", &["10.1.0.2/24", "fd01::2/64"], 0)]);
    let b = lab.join("b", &[(one, "eth0", &["10.1.0.3/24", "fd01::3/64"], 0)]);
    let c = lab.join("c", &[(one, "eth0", &["10.1.0.4/24", "fd01::4/64"], 0)]);
    lab.settle();
    for (space, name, v4, v6) in [
        (&a, "a", "10.1.0.2", "fd01::2"),
        (&b, "b", "10.1.0.3", "fd01::3"),
        (&c, "c", "10.1.0.4", "fd01::4"),
    ] {
        for port in [80, 81] {
            space.serve_tcp(&format!("{v4}:{port}"), name);
            space.serve_tcp(&format!("[{v6}]:{port}"), name);
        }
        space.serve_udp(&format!("{v4}:53"), name);
    }
    let host = &lab.nodes[0].space;
    let closed = |when| {
        assert!(!a.tcp_passes("10.1.0.3:80") && !a.tcp_passes("[fd01::3]:80"), "{when}");
        assert!(!b.tcp_passes("10.1.0.2:80") && !b.pings("10.1.0.2"), "{when}");
        assert!(a.reaches("10.1.0.1") && b.reaches("fd01::1"), "the gateway, {when}");
        assert_eq!(host.ask_tcp("10.1.0.3:80").unwrap(), "b 10.1.0.1", "{when}");
    };
    closed("with the firewall");
    host.sh("nft flush ruleset");
    closed("with the firewall flushed");
    let opening = |from: &str, to: &str, protocol, port| Opening {
        from: ip(from),
        to: ip(to),
        protocol,
        port,
    };
    change(&mut lab, one, |bridge| {
        bridge.openings = [
            opening("10.1.0.2", "10.1.0.3", Protocol::Tcp, 80),
            opening("10.1.0.2", "10.1.0.3", Protocol::Udp, 53),
            opening("fd01::2", "fd01::3", Protocol::Tcp, 80),
        ]
        .into();
    });
    lab.settle();
    assert_eq!(a.ask_tcp("10.1.0.3:80").unwrap(), "b 10.1.0.2");
    assert_eq!(a.ask_tcp("[fd01::3]:80").unwrap(), "b fd01::2");
    assert_eq!(ask_udp(&a.udp("0.0.0.0:0"), "10.1.0.3:53").unwrap(), "b");
    assert!(!a.tcp_passes("10.1.0.3:81"), "another port");
    assert!(!b.tcp_passes("10.1.0.2:80"), "the other way");
    assert!(!c.tcp_passes("10.1.0.3:80") && !a.tcp_passes("10.1.0.4:80"), "somebody else");
    // From the port that is open, but to open a connection of its own.
    let sly = "busybox nc -p 80 -w 1 10.1.0.2 81 </dev/null";
    let heard = b.try_sh(sly).unwrap_or_default();
    assert!(!heard.contains('a'), "{heard}");
}

#[test]
fn what_we_may_not_touch_we_do_not_touch() {
    let mut lab = alone();
    let one = lab.local(1, ONE, Kind::Bridge(bridge("weft0")));
    let two = lab.local(2, TWO, Kind::Bridge(bridge("br-000000000002")));
    let a = lab.join("a", &[(one, "eth0", &["10.1.0.2/24", "fd01::2/64"], 0)]);
    let b = lab.join("b", &[(two, "eth0", &["10.2.0.2/24", "fd02::2/64"], 0)]);
    lab.nodes[0].desired.host =
        HostPolicy { ip_forward: false, nftables: false, ..HostPolicy::default() };
    lab.nodes[0].space.sh("echo 0 > /proc/sys/net/ipv4/ip_forward");
    lab.settle();
    assert_eq!(lab.nodes[0].space.sh("nft list ruleset").trim(), "");
    assert_eq!(lab.nodes[0].space.sh("cat /proc/sys/net/ipv4/ip_forward").trim(), "0");
    assert!(a.reaches("10.1.0.1"));
    lab.nodes[0].desired.host.ip_forward = true;
    lab.settle();
    assert_eq!(lab.nodes[0].space.sh("cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
    b.serve_tcp("10.2.0.2:80", "b");
    assert!(!a.tcp_passes("10.2.0.2:80"), "apart by structure");
    assert_eq!(lab.nodes[0].space.sh("nft list ruleset").trim(), "");
}

#[test]
fn a_new_process_adopts_a_local_network_and_teardown_takes_all_of_it() {
    const STATE: &str = "ip -o link | sed 's/@.*//' | cut -d' ' -f2; ip rule; ip -6 rule; \
        ip -4 route show table all; nft list ruleset";
    let mut lab = alone();
    lab.nodes[0].space.sh("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
    let before = lab.nodes[0].space.sh(STATE);
    let one = lab.local(1, ONE, Kind::Bridge(bridge("weft0")));
    let _a = lab.join("a", &[(one, "eth0", &["10.1.0.2/24", "fd01::2/64"], 0)]);
    lab.settle();
    let Lab { mut nodes, switch: _switch } = lab;
    let Node { run, space, reconciler, desired, runtime } = nodes.remove(0);
    drop((reconciler, runtime));
    let mut node = Node::in_dir(space, run);
    node.desired = desired;
    let report = node.look(Completeness::Complete, Scope::Full);
    let ops: Vec<String> = report.executed.iter().map(ToString::to_string).collect();
    assert!(ops.is_empty(), "{ops:#?}");
    node.desired.networks.clear();
    node.desired.sandboxes.clear();
    node.settle();
    assert_eq!(node.space.sh(STATE), before);
}
