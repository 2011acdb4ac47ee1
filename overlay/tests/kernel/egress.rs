//! What gets out, what gets in, and what does not.

use super::lab::*;

const OTHER: u32 = VNI + 1;

#[test]
fn egress_is_masqueraded_and_internal_networks_stay_in() {
    let mut lab = Lab::new(2, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1"), ("fd01::/64", "fd01::1")], false);
    lab.network(OTHER, &[("10.2.0.0/24", "10.2.0.1"), ("fd02::/64", "fd02::1")], true);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24", "fd01::2/64"])]);
    let inside = lab.attach(0, "i", &[(OTHER, &["10.2.0.2/24", "fd02::2/64"])]);
    lab.settle();
    let outside = plug(&lab.switch, 9);
    outside.serve_tcp("192.0.2.9:80", "out");
    outside.serve_tcp("[2001:db8::9]:80", "out");
    assert_eq!(a.ask_tcp("192.0.2.9:80").unwrap(), "out 192.0.2.1");
    assert_eq!(a.ask_tcp("[2001:db8::9]:80").unwrap(), "out 2001:db8::1");
    assert!(!inside.tcp_passes("192.0.2.9:80"));
    // Even a container that makes itself a default route does not get out.
    inside.sh("ip route add default via 10.2.0.1; ip -6 route add default via fd02::1");
    assert!(!inside.tcp_passes("192.0.2.9:80"));
    assert!(!inside.tcp_passes("[2001:db8::9]:80"));
    assert!(inside.reaches("10.2.0.1"), "its own gateway answers");
    // Nor with every firewall rule gone, though replies could find the way back.
    outside.sh("ip route add 10.2.0.0/24 via 192.0.2.1");
    lab.nodes[0].space.sh("nft flush ruleset");
    assert!(!inside.tcp_passes("192.0.2.9:80"));
}

#[test]
fn networks_do_not_reach_each_other_even_without_nftables() {
    let mut lab = Lab::new(1, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1"), ("fd01::/64", "fd01::1")], false);
    lab.network(OTHER, &[("10.2.0.0/24", "10.2.0.1"), ("fd02::/64", "fd02::1")], false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24", "fd01::2/64"])]);
    let b = lab.attach(0, "b", &[(OTHER, &["10.2.0.2/24", "fd02::2/64"])]);
    lab.settle();
    b.serve_tcp("10.2.0.2:80", "b");
    b.serve_tcp("[fd02::2]:80", "b");
    let refused = |when| {
        for target in ["10.2.0.2:80", "[fd02::2]:80"] {
            assert!(!a.tcp_passes(target), "{target} {when}");
        }
    };
    assert!(a.reaches("10.1.0.1"));
    assert!(!a.pings("10.2.0.1"), "another network's gateway");
    refused("with the firewall");
    lab.nodes[0].space.sh("nft flush ruleset");
    refused("with the firewall flushed");
    assert!(lab.nodes[0].space.tcp_passes("10.2.0.2:80"), "the host reaches its own");
}

#[test]
fn containers_do_not_reach_services_of_the_host() {
    let mut lab = Lab::new(1, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1")], false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24"])]);
    lab.settle();
    lab.nodes[0].space.serve_tcp("0.0.0.0:22", "host");
    assert!(!a.tcp_passes("10.1.0.1:22"));
    assert!(!a.tcp_passes("192.0.2.1:22"));
}

#[test]
fn a_neighbour_on_the_lan_does_not_reach_containers() {
    let mut lab = Lab::new(1, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1"), ("fd01::/64", "fd01::1")], false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24", "fd01::2/64"])]);
    lab.settle();
    a.serve_tcp("10.1.0.2:80", "a");
    a.serve_tcp("[fd01::2]:80", "a");
    let neighbour = plug(&lab.switch, 9);
    neighbour
        .sh("ip route add 10.1.0.0/24 via 192.0.2.1; ip -6 route add fd01::/64 via 2001:db8::1");
    assert!(neighbour.reaches("192.0.2.1"), "the neighbour reaches the node");
    assert!(!neighbour.tcp_passes("10.1.0.2:80"));
    assert!(!neighbour.tcp_passes("[fd01::2]:80"));
}

#[test]
fn frames_forged_by_a_stranger_are_dropped() {
    let mut lab = Lab::new(2, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1")], false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24"])]);
    lab.settle();
    let count = || {
        let text = a.sh("cat /proc/thread-self/net/snmp | awk '/^Icmp:/ {print $10}' | tail -1");
        text.trim().parse::<u64>().unwrap()
    };
    // The stranger builds the same VXLAN and sends echo requests into it, blindly.
    let forge = |space: &Space| {
        let mac = weft_overlay::mac_for([ip("10.1.0.2")]);
        space.sh(&format!(
            "ip link add x type vxlan id {VNI} remote 192.0.2.1 dstport 4789; \
             ip addr add 10.1.0.3/24 dev x; ip link set x address 02:42:0a:01:00:03 up; \
             ip neigh add 10.1.0.2 lladdr {mac} dev x"
        ));
        space.reaches("10.1.0.2");
    };
    let before = count();
    let stranger = plug(&lab.switch, 9);
    forge(&stranger);
    assert_eq!(count(), before, "a stranger's frame arrived");
    // The same from a member's address does arrive: the test can fail.
    let member = plug(&lab.switch, 10);
    member.sh("ip addr flush dev up0; ip addr add 192.0.2.2/24 dev up0");
    lab.switch.sh("ip link set p2 down");
    lab.nodes[0].space.sh("ip neigh flush dev up0");
    forge(&member);
    assert!(count() > before, "a member's frame did not arrive");
}

#[test]
fn a_container_cannot_speak_for_another() {
    let mut lab = Lab::new(1, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1"), ("fd01::/64", "fd01::1")], false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24", "fd01::2/64"])]);
    let b = lab.attach(0, "b", &[(VNI, &["10.1.0.3/24", "fd01::3/64"])]);
    lab.settle();
    assert!(a.reaches("10.1.0.3") && a.reaches("fd01::3"));
    a.sh("ip addr add 10.1.0.77/24 dev eth0; ip addr add fd01::77/64 dev eth0 nodad");
    assert!(
        a.try_sh("busybox ping -c1 -W1 -I 10.1.0.77 10.1.0.3").is_err(),
        "a foreign IPv4 source"
    );
    assert!(
        a.try_sh("busybox ping -6 -c1 -W1 -I fd01::77 fd01::3").is_err(),
        "a foreign IPv6 source"
    );
    assert!(!b.pings("10.1.0.77"), "ARP for a foreign address was answered");
    assert!(!b.pings("fd01::77"), "a solicitation for a foreign address was answered");
    a.sh("ip link set eth0 address 02:42:00:00:00:01");
    assert!(!a.pings("10.1.0.3"), "a foreign MAC");
}

#[test]
fn bridged_frames_pass_with_br_netfilter_on_and_off() {
    let mut lab = Lab::new(2, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1"), ("fd01::/64", "fd01::1")], false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24", "fd01::2/64"])]);
    let _b = lab.attach(0, "b", &[(VNI, &["10.1.0.3/24", "fd01::3/64"])]);
    let _c = lab.attach(1, "c", &[(VNI, &["10.1.0.4/24", "fd01::4/64"])]);
    lab.settle();
    let host = &lab.nodes[0].space;
    let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if host.try_sh(&format!("test -e {path}")).is_err() {
        return eprintln!("no br_netfilter here");
    }
    assert_eq!(host.sh(&format!("cat {path}")).trim(), "0", "nobody else needs it");
    host.sh(&format!("echo 1 > {path}; echo 1 > /proc/sys/net/bridge/bridge-nf-call-ip6tables"));
    for target in ["10.1.0.3", "fd01::3", "10.1.0.4", "fd01::4"] {
        assert!(a.reaches(target), "{target} with br_netfilter on");
    }
    // Somebody else's forward hook: the value is left to them.
    host.sh("nft add table ip docker; nft add chain ip docker f '{ type filter hook forward priority 0; }'");
    lab.settle();
    assert_eq!(host.sh(&format!("cat {path}")).trim(), "1", "others need it");
}

#[test]
fn docker_with_its_forward_drop_lets_us_pass_and_keeps_its_own_rules() {
    let mut lab = Lab::new(1, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1")], false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24"])]);
    let _b = lab.attach(0, "b", &[(VNI, &["10.1.0.3/24"])]);
    let outside = plug(&lab.switch, 9);
    outside.serve_tcp("192.0.2.9:80", "out");
    let host = &lab.nodes[0].space;
    // As Docker sets it up.
    host.sh(
        "iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; iptables -P FORWARD DROP; \
         iptables -I FORWARD -j DOCKER-USER; \
         test ! -e /proc/sys/net/bridge || echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables",
    );
    let before = host.sh("iptables-save | grep -v '^#'");
    let report = lab.nodes[0].settle();
    assert!(!report.foreign_drop, "Docker offers a place");
    assert!(a.reaches("10.1.0.3"), "inside one bridge");
    assert_eq!(a.ask_tcp("192.0.2.9:80").unwrap(), "out 192.0.2.1");
    // Docker's own tool still reads and edits its chain.
    host.sh("iptables -S DOCKER-USER; iptables -A DOCKER-USER -s 203.0.113.1 -j DROP");
    host.sh("iptables -D DOCKER-USER -s 203.0.113.1 -j DROP");
    // Docker, restarted, empties it.
    host.sh("iptables -F DOCKER-USER; iptables -A DOCKER-USER -j RETURN");
    assert!(!a.pings("192.0.2.9"), "without the rule Docker drops: the test can fail");
    lab.settle();
    assert!(a.reaches("192.0.2.9"));
    let node = &mut lab.nodes[0];
    node.desired.networks.clear();
    node.desired.sandboxes.clear();
    node.settle();
    let after = node.space.sh("iptables-save | grep -v '^#'");
    let plain = |text: &str| {
        text.lines().map(|l| l.split(" [").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(plain(&after), plain(&before));
}

#[test]
fn a_forward_chain_of_iptables_that_drops_by_default_gets_our_accept_behind_its_own_rules() {
    let mut lab = Lab::new(1, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1")], false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24"])]);
    let outside = plug(&lab.switch, 9);
    outside.serve_tcp("192.0.2.9:80", "out");
    outside.sh("ip addr add 192.0.2.8/32 dev lo");
    let host = &lab.nodes[0].space;
    let rules = "iptables-save | grep -v '^#' | sed 's/ \\[.*//'";
    host.sh("iptables -A FORWARD -d 192.0.2.8 -j DROP; iptables -P FORWARD DROP");
    let before = host.sh(rules);
    assert!(!a.pings("192.0.2.9"), "dropped by default: the test can fail");
    assert!(!lab.nodes[0].settle().foreign_drop, "there is a place");
    assert_eq!(a.ask_tcp("192.0.2.9:80").unwrap(), "out 192.0.2.1");
    assert!(!a.pings("192.0.2.8"), "what the administrator refuses stays refused");
    let host = &lab.nodes[0].space;
    let last = host.sh("nft list chain ip filter FORWARD | grep -v '^[ \t]*}' | tail -n 1");
    assert!(last.contains("comment \"weft\""), "{last}");
    // Emptied, it has our rule again; an outsider still gets nowhere by it.
    host.sh("iptables -F FORWARD");
    assert!(!a.pings("192.0.2.9"));
    lab.settle();
    assert!(a.reaches("192.0.2.9"));
    let node = &mut lab.nodes[0];
    node.space.sh("iptables -A FORWARD -d 192.0.2.8 -j DROP");
    node.desired.networks.clear();
    node.desired.sandboxes.clear();
    node.settle();
    assert_eq!(node.space.sh(rules), before);
}

#[test]
fn our_accept_goes_when_iptables_no_longer_drops() {
    let mut lab = Lab::new(1, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1")], false);
    let ours = |lab: &mut Lab| {
        lab.nodes[0].settle();
        lab.nodes[0].space.sh("nft list table ip filter").matches("weft").count()
    };
    lab.nodes[0].space.sh("iptables -P FORWARD DROP");
    assert_eq!(ours(&mut lab), 1);
    lab.nodes[0].space.sh("iptables -P FORWARD ACCEPT");
    assert_eq!(ours(&mut lab), 0);
}

#[test]
fn a_firewall_that_drops_without_a_place_for_us_is_reported() {
    let mut lab = Lab::new(1, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1")], false);
    lab.nodes[0].space.sh("nft add table inet fw; \
         nft add chain inet fw f '{ type filter hook forward priority 0; policy drop; }'");
    assert!(lab.nodes[0].settle().foreign_drop);
    lab.nodes[0].space.sh("nft delete table inet fw");
    assert!(!lab.nodes[0].settle().foreign_drop);
}

/// Counts what arrives at a sandbox.
fn count(space: &Space, rule: &str) -> u64 {
    let text = space
        .sh(&format!("nft list table inet count | grep -F '{rule}' | grep -o 'packets [0-9]*'"));
    text.trim().trim_start_matches("packets ").parse().unwrap()
}

#[test]
fn a_container_is_neither_router_nor_dhcp_server() {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, sendto, socket,
    };
    use std::os::fd::AsRawFd;
    let mut lab = Lab::new(1, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1"), ("fd01::/64", "fd01::1")], false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24", "fd01::2/64"])]);
    let b = lab.attach(0, "b", &[(VNI, &["10.1.0.3/24", "fd01::3/64"])]);
    lab.settle();
    b.sh("nft add table inet count; \
         nft add chain inet count c '{ type filter hook prerouting priority -400; }'; \
         nft add rule inet count c icmpv6 type nd-router-advert counter; \
         nft add rule inet count c icmpv6 type echo-request counter; \
         nft add rule inet count c udp sport 67 counter; \
         nft add rule inet count c udp sport 69 counter");
    a.run(|| {
        let raw =
            socket(AddressFamily::Inet6, SockType::Raw, SockFlag::empty(), SockProtocol::IcmpV6);
        let raw = raw.unwrap();
        let to: std::net::SocketAddrV6 = "[fd01::3]:0".parse().unwrap();
        for kind in [134u8, 128] {
            let mut packet = [0u8; 16];
            packet[0] = kind;
            let to = nix::sys::socket::SockaddrIn6::from(to);
            sendto(raw.as_raw_fd(), &packet, &to, MsgFlags::empty()).unwrap();
        }
        for port in [67, 69] {
            let udp = std::net::UdpSocket::bind(("0.0.0.0", port)).unwrap();
            udp.send_to(b"offer", "10.1.0.3:68").unwrap();
        }
    });
    // Both of these were sent last: when they are there, the others have been dropped.
    let passed = || (count(&b, "icmpv6 type echo-request"), count(&b, "udp sport 69"));
    for _ in 0..200 {
        if passed() == (1, 1) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(passed(), (1, 1), "the test's own packets do not arrive");
    assert_eq!(count(&b, "icmpv6 type nd-router-advert"), 0);
    assert_eq!(count(&b, "udp sport 67"), 0);
}

#[test]
fn tcp_fits_into_the_smaller_path() {
    let mut lab = Lab::new(1, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1")], false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24"])]);
    lab.settle();
    let outside = plug(&lab.switch, 9);
    outside.serve_tcp("192.0.2.9:80", "out");
    // 1300 bytes on the way out leave 1260 for TCP's payload (RFC 9293, section 3.7.1).
    lab.nodes[0].space.sh("ip route add 192.0.2.9/32 dev up0 mtu 1300");
    outside.sh("nft add table inet count; \
         nft add chain inet count c '{ type filter hook prerouting priority -400; }'; \
         nft add rule inet count c tcp flags syn tcp option maxseg size 1260 counter");
    assert_eq!(a.ask_tcp("192.0.2.9:80").unwrap(), "out 192.0.2.1");
    assert_eq!(count(&outside, "tcp option maxseg size 1260"), 1);
}
