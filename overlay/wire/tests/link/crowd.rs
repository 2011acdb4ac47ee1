//! One engine and all the other nodes of a large cluster, which are sockets and keys of the test.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use boringtun::{
    noise::{Tunn, TunnResult},
    x25519::{PublicKey, StaticSecret},
};
use weft_wire::{Config, Key, Member, Node, PeerIdentity, Reason};

use crate::lab::{PORT, Space, VNI, World, key, wait_until};

/// So many other nodes: the largest cluster there is.
const CROWD: u16 = 199;
/// How often the engine is killed; those who call have met the one before.
const ROUNDS: usize = 3;
/// Any port; nobody listens.
const DISCARD: u16 = 9;
/// Number of the first of them, on the machine of the same number.
const FIRST: u16 = 2;
/// UDP port of node 0.
const PORTS: u16 = 20_000;
/// How often WireGuard's timers are looked at.
const TIMERS: Duration = Duration::from_millis(250);
/// First bytes of the answer to the begin of a handshake, and of data.
const RESPONSE: u8 = 2;
const DATA: u8 = 4;
/// Frames for everybody that are sent while all call: each may let the engine begin a handshake too.
const SHOUTS: usize = 5;

/// Another node.
struct Peer {
    socket: UdpSocket,
    tunn: Tunn,
    /// Whether it has a session since it last began a handshake. The engine may have begun it: when both
    /// do at once, one session is enough, and the answer to the other side's may be refused.
    met: bool,
    /// Whether a packet of a container has come to it.
    reached: bool,
}

impl Peer {
    fn new(number: u16, space: &Space) -> Self {
        let socket = space.udp(&format!("10.99.0.2:{}", PORTS + number));
        let engine: SocketAddr = format!("10.99.0.1:{PORT}").parse().unwrap();
        socket.connect(engine).unwrap();
        socket.set_nonblocking(true).unwrap();
        let secret = StaticSecret::from(secret(number).0);
        let engine = PublicKey::from(key(1, 0).public().0);
        let tunn = Tunn::new(secret, engine, None, None, number.into(), None);
        Self { socket, tunn, met: false, reached: false }
    }

    /// Begins a handshake, whether there is a session or not.
    fn begin(&mut self) {
        // What an engine that was killed has left is of no session.
        self.receive();
        self.met = false;
        let mut buffer = [0; 2048];
        let begun = self.tunn.format_handshake_initiation(&mut buffer, true);
        let TunnResult::WriteToNetwork(packet) = begun else { panic!("{begun:?}") };
        // Nobody may listen yet: loss, to WireGuard.
        let _ = self.socket.send(packet);
    }

    /// Takes all that has come.
    fn receive(&mut self) {
        let (mut packet, mut buffer) = ([0; 2048], [0; 2048]);
        while let Ok(length) = self.socket.recv(&mut packet) {
            let mut result = self.tunn.decapsulate(None, &packet[..length], &mut buffer);
            let good = !matches!(result, TunnResult::Err(_));
            self.met |= good && matches!(packet[0], RESPONSE | DATA);
            while let TunnResult::WriteToNetwork(answer) = result {
                let _ = self.socket.send(answer);
                result = self.tunn.decapsulate(None, &[], &mut buffer);
            }
            self.reached |= matches!(result, TunnResult::WriteToTunnelV4(..));
        }
    }

    fn tick(&mut self) {
        let mut buffer = [0; 2048];
        if let TunnResult::WriteToNetwork(packet) = self.tunn.update_timers(&mut buffer) {
            let _ = self.socket.send(packet);
        }
    }
}

/// The private key of a node of the crowd.
fn secret(number: u16) -> Key {
    let mut bytes = [7; 32];
    bytes[1..3].copy_from_slice(&number.to_be_bytes());
    Key(bytes)
}

fn numbers() -> impl Iterator<Item = u16> {
    FIRST..FIRST + CROWD
}

/// The container on a node of the crowd.
fn address(number: u16) -> [u8; 4] {
    [10, 0, 1, number as u8]
}

/// What the engine is told of all.
fn config(world: &World) -> Config {
    let mut config = world.config(1);
    for number in numbers() {
        let identity = PeerIdentity {
            public_key: secret(number).public(),
            address: [100, 64, 1, number as u8].into(),
            ports: vec![PORTS + number],
        };
        let node =
            Node { endpoint: [10, 99, 0, 2].into(), identities: vec![identity], keepalive: None };
        config.nodes.insert(number.into(), node);
        let addresses = vec![address(number).into()];
        let network = config.networks.get_mut(&VNI).unwrap();
        let mac = [2, 0x42, 10, 0, 1, number as u8];
        network.members.insert(mac, Member { node: number.into(), addresses });
    }
    config
}

/// Waits until all are as wanted, and lets them answer meanwhile.
fn serve(crowd: &mut [Peer], what: &str, mut wanted: impl FnMut(&Peer) -> bool) {
    let mut timers = Instant::now();
    wait_until(what, || {
        crowd.iter_mut().for_each(Peer::receive);
        if timers.elapsed() >= TIMERS {
            timers = Instant::now();
            crowd.iter_mut().for_each(Peer::tick);
        }
        crowd.iter().all(&mut wanted)
    });
}

/// A socket in the container, which knows the hardware addresses of all others.
fn sender(space: &Space) -> UdpSocket {
    let neighbours: String = numbers()
        .map(|n| format!("neigh add 10.0.1.{n} lladdr 02:42:0a:00:01:{n:02x} dev eth0\n"))
        .collect();
    space.sh("ip address add 10.0.0.1/16 broadcast 10.0.255.255 dev eth0");
    space.sh(&format!("ip -batch - <<'EOF'\n{neighbours}EOF"));
    let socket = space.udp("0.0.0.0:0");
    socket.set_broadcast(true).unwrap();
    socket
}

#[test]
fn all_nodes_of_a_large_cluster_call_an_engine_and_are_called_by_one_that_was_killed() {
    let mut world = World::without_engines(1, 1);
    let others = world.stranger(2);
    let mut crowd: Vec<Peer> = numbers().map(|number| Peer::new(number, &others)).collect();
    let config = config(&world);
    let host = &mut world.hosts[0];
    let sender = sender(&host.guest);
    for _ in 0..ROUNDS {
        host.kill();
        host.start();
        host.client().set(config.clone()).unwrap();
        crowd.iter_mut().for_each(Peer::begin);
        let mut shouts = 0..SHOUTS;
        serve(&mut crowd, "all have met the engine", |peer| {
            if shouts.next().is_some() {
                let _ = sender.send_to(b"!", ("10.0.255.255", DISCARD));
            }
            peer.met
        });

        host.kill();
        crowd.iter_mut().for_each(|peer| peer.reached = false);
        host.start();
        host.client().set(config.clone()).unwrap();
        for number in numbers() {
            let to = SocketAddr::from((address(number), DISCARD));
            wait_until("a packet can be sent", || sender.send_to(b"?", to).is_ok());
        }
        serve(&mut crowd, "all are reached", |peer| peer.reached);
        let drops = host.status().drops;
        assert!(!drops.contains_key(&Reason::UnderLoad), "handshakes were turned away: {drops:?}");
    }
}
