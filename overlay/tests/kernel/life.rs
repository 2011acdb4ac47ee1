//! Drift, restart, teardown.

use std::time::{Duration, Instant};

use weft_overlay::*;

use super::lab::*;

const SUBNETS: &[(&str, &str)] = &[("10.1.0.0/24", "10.1.0.1"), ("fd01::/64", "fd01::1")];

fn pair() -> (Lab, Space, Space) {
    let mut lab = Lab::new(2, false);
    lab.network(VNI, SUBNETS, false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24", "fd01::2/64"])]);
    let b = lab.attach(1, "b", &[(VNI, &["10.1.0.3/24", "fd01::3/64"])]);
    let sandbox = lab.nodes[0].desired.sandboxes.get_mut("a").unwrap();
    sandbox.vips.insert(ip("10.1.0.200"), vec![ip("10.1.0.3")]);
    sandbox.dns_port = Some(5353);
    lab.settle();
    (lab, a, b)
}

#[test]
fn what_a_hand_breaks_is_told_and_comes_back() {
    let (lab, a, b) = pair();
    b.serve_tcp("10.1.0.3:80", "b");
    let node = &lab.nodes[0];
    let in_host = [
        "ip link del wb010000",
        "ip link del wx010000",
        "ip addr del 10.1.0.1/24 dev wb010000",
        "ip addr del fd01::1/64 dev wb010000",
        "bridge fdb del 02:42:0a:01:00:03 dev wx010000 dst 192.0.2.2 self",
        "bridge fdb del 02:42:0a:01:00:03 dev wx010000 master",
        "bridge fdb del 00:00:00:00:00:00 dev wx010000 dst 192.0.2.2 self",
        "ip neigh del 10.1.0.3 dev wb010000",
        "nft delete table inet weft",
        "nft delete table bridge weft",
        "nft flush chain inet weft forward",
        "nft insert rule inet weft forward accept",
        "nft flush set inet weft bridges",
        "nft delete element inet weft members4 '{ 192.0.2.2 }'",
        "ip rule del priority 933",
        "ip -6 rule del priority 933",
        "ip route del prohibit 10.1.0.0/24 table 9338",
        "ip link set wb010000 down",
        "ip link set wx010000 nomaster",
        "ip link set wx010000 type bridge_slave learning on",
        "bridge fdb append 00:00:00:00:00:00 dev wx010000 dst 192.0.2.77 self",
    ];
    let in_sandbox = [
        "ip link del eth0",
        "ip link set eth0 down",
        "ip addr flush dev eth0",
        "ip route del default",
        "nft flush ruleset",
        "nft flush map inet weft backends4",
        "nft flush map inet weft asked",
        "nft flush map inet weft answered",
        "nft flush chain inet weft names",
    ];
    let broken = in_host.iter().map(|command| (&node.space, command));
    for (space, command) in broken.chain(in_sandbox.iter().map(|command| (&a, command))) {
        let mut changes = node.reconciler.changed();
        space.sh(command);
        let start = Instant::now();
        let told = node.runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(1), changes.next()).await.is_ok()
        });
        assert!(told, "nothing told of: {command}");
        let report = node.look(Completeness::Complete, Scope::Changed([].into()));
        let failed: Vec<String> = report.failed.iter().map(ToString::to_string).collect();
        assert!(report.is_settled(), "{command}: {failed:?}");
        assert!(!report.executed.is_empty(), "nothing was repaired after: {command}");
        assert!(start.elapsed() < Duration::from_secs(1), "{command} took {:?}", start.elapsed());
        let left = node.look(Completeness::Complete, Scope::Full).executed;
        let left: Vec<String> = left.iter().map(ToString::to_string).collect();
        assert!(left.is_empty(), "after {command}: {left:#?}");
    }
    assert_eq!(a.ask_tcp("10.1.0.200:80").unwrap(), "b 10.1.0.2");
    assert!(a.reaches("fd01::3"));
}

#[test]
fn a_quiet_kernel_tells_of_nothing() {
    let (lab, _a, _b) = pair();
    let node = &lab.nodes[0];
    node.runtime.block_on(async {
        let mut changes = node.reconciler.changed();
        // Let what is still on its way arrive, then expect silence.
        let quiet = Duration::from_millis(150);
        let mut told = 0;
        while tokio::time::timeout(quiet, changes.next()).await.is_ok() {
            told += 1;
            assert!(told < 20, "the kernel never becomes quiet");
        }
    });
}

#[test]
fn a_new_process_adopts_everything() {
    let (lab, a, _b) = pair();
    let Lab { mut nodes, switch: _switch } = lab;
    let Node { run, space, reconciler, desired, runtime } = nodes.remove(0);
    drop(reconciler);
    drop(runtime);
    let mut node = Node::in_dir(space, run);
    node.desired = desired;
    for completeness in [Completeness::Partial, Completeness::Complete] {
        let report = node.look(completeness, Scope::Changed([].into()));
        let ops: Vec<String> = report.executed.iter().map(ToString::to_string).collect();
        assert!(report.is_settled() && ops.is_empty(), "{ops:#?} {:?}", report.unreachable);
    }
    assert!(a.reaches("10.1.0.3"));
}

#[test]
fn nothing_unknown_is_removed_before_everything_is_known() {
    let (mut lab, a, _b) = pair();
    let node = &mut lab.nodes[0];
    let known = std::mem::take(&mut node.desired);
    node.desired.underlay = known.underlay.clone();
    let report = node.look(Completeness::Partial, Scope::Full);
    let ops: Vec<String> = report.executed.iter().map(ToString::to_string).collect();
    assert!(ops.is_empty(), "{ops:#?}");
    assert!(a.reaches("10.1.0.3"));
}

/// What there is, without what the kernel itself adds when a link-local address has been checked.
const STATE: &str = "ip -o link | sed 's/@.*//' | cut -d' ' -f2; ip rule; ip -6 rule; \
    ip -4 route show table all; ip -6 route show table all | grep -v -e multicast -e anycast -e fe80; \
    nft list ruleset; bridge fdb | grep -v -e 33:33 -e 01:00:5e";

#[test]
fn teardown_leaves_the_namespace_as_it_was() {
    let mut lab = Lab::new(2, false);
    let host = &lab.nodes[0].space;
    // Somebody else's things, some of them with tempting names.
    host.sh(
        "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; ip link add wb0 type bridge; ip link add wbcafe00 type bridge; ip link set wb0 up; \
         ip addr add 172.31.0.1/24 dev wb0; ip rule add priority 933 from 203.0.113.1 lookup 9338; \
         ip route add prohibit 198.51.100.0/24 table 9338; nft add table inet other; \
         nft add chain inet other c '{ type filter hook forward priority 5; }'; \
         ip neigh add 172.31.0.2 lladdr 02:00:00:00:00:09 dev wb0",
    );
    let before = host.sh(STATE);
    lab.network(VNI, SUBNETS, false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24", "fd01::2/64"])]);
    lab.settle();
    assert_ne!(lab.nodes[0].space.sh(STATE), before);
    let node = &mut lab.nodes[0];
    node.desired.networks.clear();
    node.desired.sandboxes.clear();
    node.settle();
    assert_eq!(node.space.sh(STATE), before);
    assert_eq!(a.sh("nft list ruleset").trim(), "");
    assert!(a.try_sh("ip link show eth0").is_err());
}

#[test]
fn a_sandbox_that_is_gone_or_a_lie_stops_nobody_else() {
    let (mut lab, a, _b) = pair();
    let node = &mut lab.nodes[0];
    let places = [
        ("gone", "/proc/0/ns/net".to_owned()),
        ("file", "/etc/hostname".to_owned()),
        ("kind", "/proc/self/ns/uts".to_owned()),
        ("host", node.space.path.clone()),
    ];
    for (last, (key, path)) in (10..).zip(places) {
        let net: ipnet::IpNet = format!("10.1.0.{last}/24").parse().unwrap();
        let mut sandbox = node.desired.sandboxes["a"].clone();
        sandbox.netns = NetnsRef(path.into());
        let port = sandbox.attachments.get_mut(&NetworkKey::Vni(VNI)).unwrap();
        (port.mac, port.addresses) = (mac_for([net.addr()]), vec![net]);
        node.desired.sandboxes.insert(key.into(), sandbox);
    }
    a.sh("ip addr flush dev eth0");
    let report = node.look(Completeness::Complete, Scope::Full);
    let unreachable: Vec<_> = report.unreachable.keys().flatten().cloned().collect();
    assert_eq!(unreachable, ["file", "gone", "host", "kind"]);
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert!(a.reaches("10.1.0.3"));
}

#[test]
fn a_network_over_ipv6_only() {
    let mut lab = Lab::new(2, true);
    lab.network(VNI, &[("fd01::/64", "fd01::1")], false);
    let a = lab.attach(0, "a", &[(VNI, &["fd01::2/64"])]);
    let b = lab.attach(1, "b", &[(VNI, &["fd01::3/64"])]);
    lab.settle();
    assert!(a.reaches("fd01::3") && a.reaches("fd01::1"));
    b.serve_tcp("[fd01::3]:80", "b");
    assert_eq!(a.ask_tcp("[fd01::3]:80").unwrap(), "b fd01::2");
    assert!(a.sh("ip link show eth0").contains("mtu 1430"));
}
