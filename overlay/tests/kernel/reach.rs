//! Containers reach each other across hosts, and nobody else.

use weft_overlay::NetworkKey;

use super::lab::*;

#[test]
fn containers_reach_each_other_across_hosts() {
    let mut lab = Lab::new(2, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1"), ("fd01::/64", "fd01::1")], false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24", "fd01::2/64"])]);
    let b = lab.attach(1, "b", &[(VNI, &["10.1.0.3/24", "fd01::3/64"])]);
    let c = lab.attach(0, "c", &[(VNI, &["10.1.0.4/24", "fd01::4/64"])]);
    lab.settle();
    for target in ["10.1.0.3", "fd01::3", "10.1.0.4", "fd01::4", "10.1.0.1", "fd01::1"] {
        assert!(a.reaches(target), "a cannot reach {target}");
    }
    b.serve_tcp("10.1.0.3:80", "b");
    b.serve_tcp("[fd01::3]:80", "b6");
    assert_eq!(c.ask_tcp("10.1.0.3:80").unwrap(), "b 10.1.0.4");
    assert_eq!(a.ask_tcp("[fd01::3]:80").unwrap(), "b6 fd01::2");
}

#[test]
fn an_attachment_moves_to_another_node() {
    let mut lab = Lab::new(2, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1")], false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24"])]);
    let _b = lab.attach(0, "b", &[(VNI, &["10.1.0.3/24"])]);
    lab.settle();
    assert!(a.reaches("10.1.0.3"));
    // Its address goes to node 1, and back.
    lab.nodes[0].desired.sandboxes.remove("b");
    overlay(&mut lab.nodes[1].desired, VNI).remotes.retain(|r| r.addresses[0] != ip("10.1.0.3"));
    let moved = lab.attach(1, "b2", &[(VNI, &["10.1.0.3/24"])]);
    lab.settle();
    assert!(a.reaches("10.1.0.3"), "on the other node");
    assert!(moved.reaches("10.1.0.2"));
    lab.nodes[1].desired.sandboxes.remove("b2");
    overlay(&mut lab.nodes[0].desired, VNI).remotes.clear();
    let _back = lab.attach(0, "b3", &[(VNI, &["10.1.0.3/24"])]);
    lab.settle();
    assert!(a.reaches("10.1.0.3"), "back again");
}

#[test]
fn a_sandbox_is_set_up_as_containers_expect() {
    let mut lab = Lab::new(1, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1")], true);
    lab.network(VNI + 1, &[("10.2.0.0/24", "10.2.0.1")], false);
    for node in &mut lab.nodes {
        node.desired.networks.get_mut(&NetworkKey::Vni(VNI)).unwrap().internal = true;
        node.desired.networks.get_mut(&NetworkKey::Vni(VNI + 1)).unwrap().mtu = Some(1400);
    }
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24"]), (VNI + 1, &["10.2.0.2/24"])]);
    lab.settle();
    // The first network is internal, so the second carries the default route.
    assert!(a.sh("ip route show default").contains("via 10.2.0.1 dev eth1"));
    assert!(a.sh("ip link show eth0").contains("mtu 1450"));
    assert!(a.sh("ip link show eth1").contains("mtu 1400"));
    let read = |path: &str| a.sh(&format!("cat /proc/sys/net/{path}")).trim().replace('\t', " ");
    assert_eq!(read("ipv4/ping_group_range"), "0 2147483647");
    assert_eq!(read("ipv4/ip_unprivileged_port_start"), "0");
    assert_eq!(read("ipv6/conf/eth0/disable_ipv6"), "1");
    assert_eq!(a.sh("ip -6 addr show dev eth0").trim(), "");
}

#[test]
fn remote_addresses_are_resolved_without_asking_the_network() {
    let mut lab = Lab::new(2, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1"), ("fd01::/64", "fd01::1")], false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24", "fd01::2/64"])]);
    let _b = lab.attach(1, "b", &[(VNI, &["10.1.0.3/24", "fd01::3/64"])]);
    lab.settle();
    let host = &lab.nodes[0].space;
    host.sh("nft -f - <<E
table bridge count {
  chain out {
    type filter hook postrouting priority 0;
    oifname wx010000 ether type arp counter
    oifname wx010000 icmpv6 type nd-neighbor-solicit counter
    oifname wx010000 icmpv6 type nd-router-solicit counter
    oifname wx010000 icmp type echo-request counter
    oifname wx010000 icmpv6 type echo-request counter
  }
}
E");
    assert!(a.reaches("10.1.0.3") && a.reaches("fd01::3"));
    let counted = host.sh("nft list table bridge count | grep -o 'packets [0-9]*'");
    assert_eq!(counted.trim().replace("packets ", "").replace('\n', " "), "0 0 0 1 1");
}

#[test]
fn interfaces_that_swap_names_are_wired_anew() {
    let mut lab = Lab::new(1, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1")], false);
    lab.network(VNI + 1, &[("10.2.0.0/24", "10.2.0.1")], false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24"]), (VNI + 1, &["10.2.0.2/24"])]);
    lab.settle();
    let ports = &mut lab.nodes[0].desired.sandboxes.get_mut("a").unwrap().attachments;
    ports.get_mut(&NetworkKey::Vni(VNI)).unwrap().ifname = "eth1".into();
    ports.get_mut(&NetworkKey::Vni(VNI + 1)).unwrap().ifname = "eth0".into();
    lab.settle();
    assert!(a.sh("ip addr show eth1").contains("10.1.0.2"));
    assert!(a.reaches("10.1.0.1") && a.reaches("10.2.0.1"));
}
