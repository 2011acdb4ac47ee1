//! What strangers and bad nodes send is not delivered, and what good ones send cannot be read.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use boringtun::{
    noise::{Tunn, TunnResult},
    x25519::{PublicKey, StaticSecret},
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto,
    setsockopt, socket, sockopt,
};
use weft_wire::{
    Key, Mac, Network, Node, Reason,
    packet::{Outer, Segments, VnetHeader, checksum::Sum},
};

use crate::{
    keys::Numbered,
    lab::{Host, Space, VNI, World, key, mac, member, tunnel, wait_until},
};

/// The number of the bad node.
const BAD: u8 = 9;
/// Where the first node's container listens.
const LISTENS: u16 = 7000;
/// A network that the bad node is not on, though the first node is.
const OTHER_VNI: u32 = VNI + 1;

/// A node whose keys are configured, and that sends what it wants.
struct Bad {
    socket: UdpSocket,
    tunn: Tunn,
    target: SocketAddr,
}

impl Bad {
    /// Has a session with the first node.
    fn meet(space: &Space) -> Self {
        let socket = space.udp("0.0.0.0:51820");
        let secret = StaticSecret::from(key(BAD, 0).0);
        let public = PublicKey::from(key(1, 0).public().0);
        let tunn = Tunn::new(secret, public, None, None, 1, None);
        let mut bad = Self { socket, tunn, target: "10.99.0.1:51820".parse().unwrap() };
        wait_until("the bad node has a session", || bad.shake_hands());
        bad
    }

    fn shake_hands(&mut self) -> bool {
        let (mut out, mut datagram) = ([0; 2048], [0; 2048]);
        let TunnResult::WriteToNetwork(first) =
            self.tunn.format_handshake_initiation(&mut out, true)
        else {
            panic!("no initiation")
        };
        self.socket.send_to(first, self.target).unwrap();
        let Ok((length, _)) = self.socket.recv_from(&mut datagram) else { return false };
        match self.tunn.decapsulate(None, &datagram[..length], &mut out) {
            TunnResult::WriteToNetwork(keepalive) => {
                self.socket.send_to(keepalive, self.target).unwrap();
                true
            }
            _ => false,
        }
    }

    fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut out = vec![0; packet.len() + 256];
        match self.tunn.encapsulate(packet, &mut out) {
            TunnResult::WriteToNetwork(sealed) => sealed.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, packet: &[u8]) {
        let sealed = self.seal(packet);
        self.socket.send_to(&sealed, self.target).unwrap();
    }
}

/// What the bad node may vary; as it stands, it is allowed.
#[derive(Clone)]
struct Forgery {
    from: [u8; 4],
    to: [u8; 4],
    vni: u32,
    mac: Mac,
    address: [u8; 4],
}

impl Forgery {
    fn none() -> Self {
        let (from, to) = (tunnel(BAD, 0), tunnel(1, 0));
        Self { from, to, vni: VNI, mac: mac(BAD), address: [10, 0, 0, BAD] }
    }

    /// A datagram to the first node's container, in all its headers.
    fn packet(&self, payload: u8) -> Vec<u8> {
        wrap(self.from, self.to, self.vni, &datagram(self.mac, self.address, payload))
    }
}

fn wrap(from: [u8; 4], to: [u8; 4], vni: u32, frame: &[u8]) -> Vec<u8> {
    let outer = Outer::new(Ipv4Addr::from(from), Ipv4Addr::from(to), vni);
    let mut packet = vec![0; 2048];
    let segments = Segments::new(VnetHeader::default(), frame).unwrap();
    let length = segments.write(0, &outer, &mut packet).unwrap();
    packet.truncate(length);
    packet
}

/// Ethernet, IPv4, UDP without a checksum, one byte.
fn datagram(source: Mac, address: [u8; 4], payload: u8) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0];
    ip.extend(address);
    ip.extend([10, 0, 0, 1]);
    let sum = Sum::default().bytes(&ip).finish();
    ip[10..12].copy_from_slice(&sum);
    let port = LISTENS.to_be_bytes();
    let udp = [port[0], port[1], port[0], port[1], 0, 9, 0, 0, payload];
    [&mac(1)[..], &source, &[8, 0], &ip, &udp].concat()
}

/// An ARP reply to the first node's container that says where an address is.
fn arp(source: Mac, address: [u8; 4]) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 2];
    [&mac(1)[..], &source, &[8, 6], &head, &source, &address, &mac(1), &[10, 0, 0, 1]].concat()
}

/// Two good nodes, a bad one that both know, and a network that it is not on.
fn world_with_bad() -> (World, Space) {
    let world = World::new(2, 1);
    let space = world.stranger(BAD);
    for host in &world.hosts {
        let mut config = world.config(host.number);
        let identities = vec![world.peer(BAD, 0)];
        let endpoint = [10, 99, 0, BAD].into();
        config.nodes.insert(BAD.into(), Node { endpoint, identities, keepalive: None });
        let network = config.networks.get_mut(&VNI).unwrap();
        let mut others = network.members.clone();
        network.members.insert(mac(BAD), member(BAD));
        others.retain(|_, member| member.node != u64::from(host.number));
        let other = Network { device: "wt010001".into(), members: others };
        config.networks.insert(OTHER_VNI, other);
        host.host.sh("ip tuntap add dev wt010001 mode tap multi_queue vnet_hdr");
        host.host.sh("ip link set wt010001 master br0 addrgenmode none up");
        host.client().set(config).unwrap();
    }
    // A packet that is sent once must find the bridges' ports open.
    let [a, b] = &world.hosts[..] else { unreachable!() };
    wait_until("the good ones have met", || a.guest.pings(&b.inner()) && b.guest.pings(&a.inner()));
    (world, space)
}

fn drops(host: &Host, reason: Reason) -> u64 {
    let status = host.status();
    let peer = status.peers.get(&BAD.into()).and_then(|peer| peer.drops.get(&reason));
    peer.or(status.drops.get(&reason)).copied().unwrap_or(0)
}

/// The next byte that the first node's container gets.
fn next(socket: &UdpSocket) -> u8 {
    let mut buffer = [0; 2048];
    wait_until("something was delivered", || socket.recv_from(&mut buffer).is_ok());
    buffer[0]
}

#[test]
fn a_bad_node_speaks_only_for_itself() {
    let (world, space) = world_with_bad();
    let victim = &world.hosts[0];
    let inbox = victim.guest.udp("10.0.0.1:7000");
    let mut bad = Bad::meet(&space);
    bad.send(&Forgery::none().packet(1));
    assert_eq!(next(&inbox), 1, "what is allowed is delivered");
    let good = Forgery::none();
    let forgeries = [
        (Reason::ForeignInside, Forgery { from: tunnel(2, 0), ..good.clone() }),
        (Reason::ForeignInside, Forgery { to: tunnel(2, 0), ..good.clone() }),
        (Reason::ForeignNetwork, Forgery { vni: 70_000, ..good.clone() }),
        (Reason::ForeignNetwork, Forgery { vni: OTHER_VNI, ..good.clone() }),
        (Reason::SpoofedSource, Forgery { mac: mac(2), ..good.clone() }),
        (Reason::SpoofedSource, Forgery { mac: [2; 6], ..good.clone() }),
        (Reason::SpoofedSource, Forgery { mac: mac(1), ..good.clone() }),
        (Reason::SpoofedSource, Forgery { address: [10, 0, 0, 2], ..good.clone() }),
        (Reason::SpoofedSource, Forgery { address: [10, 0, 0, 1], ..good.clone() }),
    ];
    for (reason, forgery) in &forgeries {
        let before = drops(victim, *reason);
        bad.send(&forgery.packet(2));
        wait_until("it is counted", || drops(victim, *reason) > before);
    }
    let before = drops(victim, Reason::SpoofedSource);
    bad.send(&wrap(good.from, good.to, VNI, &arp(mac(BAD), [10, 0, 0, 2])));
    wait_until("it is counted", || drops(victim, Reason::SpoofedSource) > before);
    let before = drops(victim, Reason::ForeignInside);
    let mut packet = good.packet(2);
    packet[22..24].copy_from_slice(&53_u16.to_be_bytes());
    bad.send(&packet);
    bad.send(&packet[..40]);
    bad.send(&[0x45; 20]);
    wait_until("they are counted", || drops(victim, Reason::ForeignInside) >= before + 2);
    bad.send(&good.packet(3));
    assert_eq!(next(&inbox), 3, "only what is allowed is delivered");
}

#[test]
fn what_was_changed_or_seen_is_not_delivered() {
    let (world, space) = world_with_bad();
    let victim = &world.hosts[0];
    let inbox = victim.guest.udp("10.0.0.1:7000");
    let mut bad = Bad::meet(&space);
    let sealed = bad.seal(&Forgery::none().packet(1));
    for position in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[position] ^= 1 << (position % 8);
        bad.socket.send_to(&changed, bad.target).unwrap();
    }
    for length in 0..sealed.len() {
        bad.socket.send_to(&sealed[..length], bad.target).unwrap();
    }
    for _ in 0..10 {
        bad.socket.send_to(&sealed, bad.target).unwrap();
    }
    assert_eq!(next(&inbox), 1, "once");
    wait_until("repetitions are counted", || drops(victim, Reason::Replayed) >= 9);
    assert!(drops(victim, Reason::Forged) > 0);
    assert!(victim.status().drops[&Reason::Malformed] > 0);
    bad.send(&Forgery::none().packet(2));
    assert_eq!(next(&inbox), 2, "not twice");
}

#[test]
fn who_has_no_key_that_is_configured_gets_no_answer() {
    let (world, space) = world_with_bad();
    let socket = space.udp("0.0.0.0:51820");
    let secret = StaticSecret::from([99; 32]);
    let public = PublicKey::from(key(1, 0).public().0);
    let mut tunn = Tunn::new(secret, public, None, None, 1, None);
    let mut out = [0; 256];
    let TunnResult::WriteToNetwork(first) = tunn.format_handshake_initiation(&mut out, false)
    else {
        panic!("no initiation")
    };
    let forged = || world.hosts[0].status().drops.get(&Reason::Forged).copied().unwrap_or(0);
    let before = forged();
    socket.send_to(first, "10.99.0.1:51820").unwrap();
    wait_until("it is counted", || forged() > before);
    // The address is that of the bad node, which the good ones greet; but nobody answers.
    let mut datagram = [0; 256];
    while socket.recv_from(&mut datagram).is_ok() {
        assert_eq!(datagram[0], 1, "neither a response nor a cookie");
    }
}

/// Initiations a second of the flood.
const FLOOD: u32 = 10_000;
/// Addresses that it pretends to come from.
const ADDRESSES: u8 = 100;

/// Sends initiations with random keys from addresses that nobody has.
fn flood(space: &Space, stop: &Arc<AtomicBool>, sent: &Arc<AtomicU64>) -> JoinHandle<()> {
    let public = PublicKey::from(key(1, 0).public().0);
    let packets: Vec<Vec<u8>> = (0..20_u8).map(|it| initiation(it, public)).collect();
    let sockets = space.run(|| {
        let sockets = (0..ADDRESSES).map(|it| {
            let fd =
                socket(AddressFamily::Inet, SockType::Datagram, SockFlag::empty(), None).unwrap();
            setsockopt(&fd, sockopt::IpTransparent, &true).unwrap();
            let source = SockaddrIn::new(10, 99, 7, it, 51820);
            nix::sys::socket::bind(fd.as_raw_fd(), &source).unwrap();
            fd
        });
        sockets.collect::<Vec<_>>()
    });
    let (stop, sent) = (Arc::clone(stop), Arc::clone(sent));
    thread::spawn(move || {
        let (target, began) = (SockaddrIn::new(10, 99, 0, 1, 51820), Instant::now());
        while !stop.load(Ordering::Relaxed) {
            let due = began.elapsed().as_secs_f64() * f64::from(FLOOD);
            while sent.load(Ordering::Relaxed) < due as u64 {
                let number = sent.fetch_add(1, Ordering::Relaxed) as usize;
                let packet = &packets[number % packets.len()];
                let fd = sockets[number % sockets.len()].as_raw_fd();
                sendto(fd, packet, &target, MsgFlags::empty()).unwrap();
            }
            thread::sleep(Duration::from_millis(1));
        }
    })
}

fn initiation(number: u8, to: PublicKey) -> Vec<u8> {
    let secret = StaticSecret::from([number + 100; 32]);
    let mut tunn = Tunn::new(secret, to, None, None, 1, None);
    match tunn.format_handshake_initiation(&mut [0; 256], false) {
        TunnResult::WriteToNetwork(message) => message.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_flood_of_handshakes_harms_nobody_else() {
    let mut world = World::new(3, 1);
    let space = world.stranger(BAD);
    let [a, b, _] = &world.hosts[..] else { unreachable!() };
    wait_until("they have met", || a.guest.pings(&b.inner()) && b.guest.pings(&a.inner()));
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let attack = flood(&space, &stop, &sent);
    let flow = Numbered::start(b, a, 6001);
    flow.pass(500);
    // Who was not spoken to yet, and who was restarted, get their sessions meanwhile.
    let [a, _, c] = &world.hosts[..] else { unreachable!() };
    wait_until("a new session begins", || a.guest.pings(&c.inner()));
    let third = &mut world.hosts[2];
    third.kill();
    third.start();
    world.configure();
    let began = Instant::now();
    let [a, _, c] = &world.hosts[..] else { unreachable!() };
    wait_until("a node that was restarted is back", || c.guest.pings(&a.inner()));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let (there, came) = flow.finish();
    assert_eq!(there, came);
    stop.store(true, Ordering::Relaxed);
    attack.join().unwrap();
    let status = a.status();
    let sifted = status.drops.get(&Reason::Forged).unwrap_or(&0)
        + status.drops.get(&Reason::UnderLoad).unwrap_or(&0);
    assert!(sifted > u64::from(FLOOD) / 10, "the flood has come: {status:?}, {sent:?} sent");
}

/// What must not be seen on the way.
const CANARY: &[u8] = b"the canary that nobody may see";

/// All frames on the switch while `work` is done, as one heap of bytes.
fn capture(world: &World, work: impl FnOnce()) -> Vec<u8> {
    let fd = world.switch.run(|| {
        let flags = SockFlag::SOCK_NONBLOCK;
        let kind = SockProtocol::EthAll;
        socket(AddressFamily::Packet, SockType::Raw, flags, kind).unwrap()
    });
    setsockopt(&fd, sockopt::RcvBufForce, &(32 << 20)).unwrap();
    work();
    let (mut heap, mut frame) = (Vec::new(), vec![0; 65_536]);
    while let Ok(length) = recv(fd.as_raw_fd(), &mut frame, MsgFlags::empty()) {
        heap.extend(&frame[..length]);
    }
    heap
}

fn seen(heap: &[u8]) -> bool {
    heap.windows(CANARY.len()).any(|window| window == CANARY)
}

/// Sends the canary from the first container to the second.
fn sing(world: &World) {
    let [a, b] = &world.hosts[..] else { unreachable!() };
    let (one, other) = (a.guest.udp("10.0.0.1:7000"), b.guest.udp("10.0.0.2:7000"));
    let mut buffer = [0; 2048];
    wait_until("the canary has come", || {
        one.send_to(CANARY, "10.0.0.2:7000").unwrap();
        other.recv_from(&mut buffer).is_ok()
    });
    assert_eq!(&buffer[..CANARY.len()], CANARY);
}

#[test]
fn nobody_on_the_way_can_read() {
    let world = World::new(2, 1);
    let heap = capture(&world, || sing(&world));
    assert!(!heap.is_empty(), "something was captured");
    assert!(!seen(&heap));
}

/// The same through plain VXLAN: whoever listens does see it.
#[test]
fn without_the_engine_all_can_read() {
    let world = World::without_engines(2, 1);
    for (host, other) in [(0, 2), (1, 1)] {
        let host = &world.hosts[host];
        host.host.sh(&format!(
            "ip link add vx0 type vxlan id 7 dstport 4789 local {} remote 10.99.0.{other} dev u0
             ip link set vx0 master br0 up",
            host.address()
        ));
    }
    assert!(seen(&capture(&world, || sing(&world))));
}

/// A key without a holder is no secret of the tests.
#[test]
fn a_key_is_never_printed() {
    assert_eq!(format!("{:?}", Key([7; 32])), "Key");
}
