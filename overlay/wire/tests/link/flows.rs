//! Packets of all kinds get through unchanged.

use std::{net::UdpSocket, thread};

use crate::lab::{Host, World, check_stream, send_stream, wait_until};

/// Bytes of each TCP flow.
const FLOW: usize = 64 << 20;

/// Sends a stream from one container to another and compares it there.
fn flow(from: &Host, to: &Host, address: &str, port: u16, bytes: usize) -> thread::JoinHandle<()> {
    let seed = u64::from(port) * 7919;
    let listener = to.guest.listen(&format!("{address}:{port}"));
    let stream = from.guest.connect(&format!("{address}:{port}"));
    let (accepted, _) = listener.accept().unwrap();
    let sender = thread::spawn(move || send_stream(stream, seed, |sent| sent < bytes));
    thread::spawn(move || {
        assert_eq!(check_stream(accepted, seed), bytes);
        sender.join().unwrap();
    })
}

#[test]
fn tcp_arrives_as_it_was_sent_both_ways() {
    let world = World::new(2, 1);
    let [a, b] = &world.hosts[..] else { unreachable!() };
    let there = flow(a, b, &b.inner(), 5001, FLOW);
    let back = flow(b, a, &a.inner(), 5002, FLOW);
    there.join().unwrap();
    back.join().unwrap();
    let status = a.status();
    let peer = &status.peers[&2];
    assert!(peer.sent > FLOW as u64 && peer.received > FLOW as u64, "{peer:?}");
    assert_eq!(peer.endpoint.unwrap().to_string(), "10.99.0.2:51820");
    assert!(status.devices.is_empty());
}

#[test]
fn tcp_over_ipv6_and_small_segments() {
    let world = World::new(2, 1);
    let [a, b] = &world.hosts[..] else { unreachable!() };
    flow(a, b, &format!("[{}]", b.inner6()), 5003, FLOW / 8).join().unwrap();
    // Without segmentation offload each frame is one packet.
    a.guest.sh("ip link set eth0 gso_max_segs 1 mtu 576");
    flow(a, b, &b.inner(), 5004, FLOW / 32).join().unwrap();
}

#[test]
fn several_lanes_carry_many_flows() {
    let world = World::new(2, 3);
    let [a, b] = &world.hosts[..] else { unreachable!() };
    let flows = (0..8).map(|it| flow(a, b, &b.inner(), 5100 + it, FLOW / 16)).collect::<Vec<_>>();
    flows.into_iter().for_each(|it| it.join().unwrap());
    assert!(a.status().peers[&2].drops.is_empty(), "{:?}", a.status());
}

#[test]
fn a_node_with_fewer_lanes_is_reached() {
    let mut world = World::new(2, 3);
    let full = world.config(1);
    world.lanes = 1;
    // Node 2 has one lane; node 1 keeps three and knows that.
    let mut config = full;
    config.nodes.get_mut(&2).unwrap().identities = vec![world.peer(2, 0)];
    world.hosts[0].client().set(config).unwrap();
    let mut config = world.config(2);
    config.nodes.get_mut(&1).unwrap().identities[0].ports = vec![51820, 51822, 51824];
    world.hosts[1].client().set(config).unwrap();
    let [a, b] = &world.hosts[..] else { unreachable!() };
    let there = (0..4).map(|it| flow(a, b, &b.inner(), 5200 + it, FLOW / 64));
    let back = (0..4).map(|it| flow(b, a, &a.inner(), 5300 + it, FLOW / 64));
    there.chain(back).collect::<Vec<_>>().into_iter().for_each(|it| it.join().unwrap());
}

#[test]
fn ping_and_udp_of_all_sizes() {
    let world = World::new(2, 1);
    let [a, b] = &world.hosts[..] else { unreachable!() };
    wait_until("IPv4 answers", || a.guest.pings(&b.inner()));
    wait_until("IPv6 answers", || a.guest.pings(&b.inner6()));
    let (one, other) = (a.guest.udp("10.0.0.1:7000"), b.guest.udp("10.0.0.2:7000"));
    one.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    other.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    for size in [0, 1, 63, 64, 1000, 1361, 1362, 1363, 4000, 30_000] {
        let sent: Vec<u8> = (0..size).map(|it| it as u8).collect();
        one.send_to(&sent, "10.0.0.2:7000").unwrap();
        let mut buffer = vec![0; 65_536];
        let (length, from) = other.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from.to_string().as_str()), (&sent[..], "10.0.0.1:7000"));
    }
}

#[test]
fn a_broadcast_reaches_every_node_once() {
    let world = World::new(3, 2);
    let [a, b, c] = &world.hosts[..] else { unreachable!() };
    // A bridge takes frames from a device only some time after that was opened.
    wait_until("they have met", || a.guest.pings(&b.inner()) && a.guest.pings(&c.inner()));
    let sender = a.guest.udp("10.0.0.1:7001");
    sender.set_broadcast(true).unwrap();
    let (at_b, at_c) = (b.guest.udp("0.0.0.0:7001"), c.guest.udp("0.0.0.0:7001"));
    for number in 0..20_u8 {
        sender.send_to(&[number], "10.0.0.255:7001").unwrap();
    }
    for socket in [&at_b, &at_c] {
        assert_eq!(drain(socket, 20), (0..20).collect::<Vec<u8>>());
    }
}

/// The first bytes of what comes, until `count` are there and then nothing more.
fn drain(socket: &UdpSocket, count: usize) -> Vec<u8> {
    let mut got = Vec::new();
    let mut buffer = [0; 2048];
    wait_until("all have come", || {
        while socket.recv_from(&mut buffer).is_ok() {
            got.push(buffer[0]);
        }
        got.len() >= count
    });
    got
}
