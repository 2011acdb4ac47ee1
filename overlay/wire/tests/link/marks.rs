//! Routers on the way may mark packets instead of dropping them, and the containers hear of it: explicit
//! congestion notification (RFC 3168) through the tunnel (RFC 6040).

use std::{io::IoSliceMut, net::UdpSocket, os::fd::AsRawFd, thread};

use nix::{
    cmsg_space,
    sys::socket::{
        ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt,
        sockopt::{IpRecvTos, Ipv4Tos},
    },
};
use weft_wire::Reason;

use crate::lab::{Host, World, check_stream, send_stream, wait_until};

/// The marks: the flow knows of none; it does; a router was congested.
const NONE: u8 = 0;
const CAPABLE: u8 = 2;
const CONGESTED: u8 = 3;
/// Bytes of a TCP flow.
const FLOW: usize = 4 << 20;

/// Two nodes that have met over the underlay's IPv4 or, with `fd77::`, over its IPv6.
fn world(underlay: &str) -> World {
    let world = World::new(2, 1);
    for host in &world.hosts {
        let number = host.number;
        host.host.sh(&format!("ip address add fd77::{number}/64 dev u0 nodad"));
        let mut config = world.config(number);
        for (number, node) in &mut config.nodes {
            node.endpoint = format!("{underlay}{number}").parse().unwrap();
        }
        host.client().set(config).unwrap();
    }
    let [a, b] = &world.hosts[..] else { unreachable!() };
    wait_until("they have met", || a.guest.pings(&b.inner()) && b.guest.pings(&a.inner()));
    world
}

/// Lets the underlay put the mark of congestion on what comes to a node and is as `rule` says.
fn congest(host: &Host, rule: &str) {
    host.host.sh(&format!(
        "nft add table inet marks
         nft 'add chain inet marks in {{ type filter hook prerouting priority -300; }}'
         nft add rule inet marks in udp dport 51820 {rule}"
    ));
}

/// Sends one datagram with a mark, and says with which it comes.
fn passes(from: &UdpSocket, to: &UdpSocket, mark: u8) -> Option<u8> {
    setsockopt(from, Ipv4Tos, &mark.into()).unwrap();
    from.send_to(b"?", to.local_addr().unwrap()).unwrap();
    let (mut bytes, mut control) = ([0; 64], cmsg_space!(i32));
    let mut pieces = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::empty();
    let fd = to.as_raw_fd();
    let message = recvmsg::<SockaddrStorage>(fd, &mut pieces, Some(&mut control), flags).ok()?;
    message.cmsgs().unwrap().find_map(|control| match control {
        ControlMessageOwned::Ipv4Tos(class) => Some(class),
        _ => None,
    })
}

/// A socket in each container; the second says with which mark datagrams come.
fn sockets(a: &Host, b: &Host) -> (UdpSocket, UdpSocket) {
    let sockets = (a.guest.udp("10.0.0.1:7000"), b.guest.udp("10.0.0.2:7000"));
    setsockopt(&sockets.1, IpRecvTos, &true).unwrap();
    sockets
}

/// Packets that came to a container with the mark of congestion.
fn congested(host: &Host) -> u64 {
    let text = host.guest.sh("cat /proc/net/netstat");
    let mut lines = text.lines().filter(|line| line.starts_with("IpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut fields = names.split(' ').zip(values.split(' '));
    fields.find(|(name, _)| *name == "InCEPkts").unwrap().1.parse().unwrap()
}

fn marks_pass(underlay: &str, family: &str) {
    let world = world(underlay);
    let [a, b] = &world.hosts[..] else { unreachable!() };
    let (from, to) = sockets(a, b);
    for mark in [NONE, CAPABLE, CONGESTED] {
        assert_eq!(passes(&from, &to, mark), Some(mark), "no router is congested");
    }
    // The outer header says what the flow knows of, or it would not be marked.
    congest(b, &format!("{family} ecn ect0 {family} ecn set ce"));
    assert_eq!(passes(&from, &to, CAPABLE), Some(CONGESTED));
    assert_eq!(passes(&from, &to, NONE), Some(NONE));
}

#[test]
fn what_a_congested_router_says_is_heard_over_ipv4() {
    marks_pass("10.99.0.", "ip");
}

#[test]
fn what_a_congested_router_says_is_heard_over_ipv6() {
    marks_pass("fd77::", "ip6");
}

#[test]
fn a_mark_on_what_knows_of_none_is_a_loss_and_is_counted() {
    let world = world("10.99.0.");
    let [a, b] = &world.hosts[..] else { unreachable!() };
    let (from, to) = sockets(a, b);
    congest(b, "ip ecn set ce");
    assert_eq!(passes(&from, &to, NONE), None);
    // What the container's kernel sends for itself may be among them.
    let lost = b.status().peers[&1].drops.get(&Reason::Congested).copied();
    assert!(lost.is_some_and(|lost| lost >= 1), "{:?}", b.status());
    assert_eq!(passes(&from, &to, CAPABLE), Some(CONGESTED));
}

/// Large frames, and, where the wire is narrower than the engine thinks, packets one by one.
#[test]
fn flows_are_told_of_congestion_and_arrive_whole() {
    for mtu in [1500, 1300] {
        let world = world("10.99.0.");
        let [a, b] = &world.hosts[..] else { unreachable!() };
        for host in [a, b] {
            host.guest.sh("sysctl -qw net.ipv4.tcp_ecn=1");
            host.host.sh(&format!("ip link set u0 mtu {mtu}"));
        }
        congest(b, "ip ecn ect0 ip ecn set ce");
        let listener = b.guest.listen("10.0.0.2:5001");
        let stream = a.guest.connect("10.0.0.2:5001");
        let (accepted, _) = listener.accept().unwrap();
        let sender = thread::spawn(move || send_stream(stream, 1, |sent| sent < FLOW));
        assert_eq!(check_stream(accepted, 1), FLOW);
        sender.join().unwrap();
        assert!(congested(b) > 0, "no packet was marked; MTU {mtu}");
    }
}
