//! What a lane does before it works by something else.

use std::{net::UdpSocket, process::Command};

use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::{Config, Identity};

/// The port of generation 0.
const PORT: u16 = 51_820;

/// This node with keys of these generations, and with the sockets there are or new ones.
fn setup(generations: &[u8], had: &BTreeMap<u16, Arc<Udp>>) -> Setup {
    let port = |generation: &u8| PORT + u16::from(*generation);
    let identity = |generation: &u8| Identity {
        private_key: Key([generation + 1; 32]),
        address: [100, 64, 0, *generation].into(),
        ports: vec![port(generation)],
    };
    let identities = generations.iter().map(identity).collect();
    let tables = Tables::new(Config { identities, ..Config::default() }).expect("it can be");
    let socket = |port| had.get(&port).map_or_else(|| Arc::new(bound(port)), Arc::clone);
    Setup {
        tables: Arc::new(tables),
        sockets: generations.iter().map(port).map(|port| (port, socket(port))).collect(),
        limiters: BTreeMap::new(),
        lanes: Vec::new(),
    }
}

fn bound(port: u16) -> Udp {
    Udp::bind(port).expect("the namespace has no other sockets")
}

#[test]
fn what_waits_is_taken_before_its_keys_are_forgotten() {
    unshare(CloneFlags::CLONE_NEWNET).expect("root");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("iproute2");
    assert!(up.success());
    let (mut lane, _handle) = Lane::new(0, Arc::default()).expect("a poller");
    let both = setup(&[1, 0], &BTreeMap::new());
    let next = setup(&[1], &both.sockets);
    lane.configure(both);
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    for port in [PORT, PORT + 1] {
        stranger.send_to(b"no packet of WireGuard", ("127.0.0.1", port)).expect("it is sent");
    }
    lane.configure(next);
    let (_, drops) = lane.report().tally.into_parts();
    assert_eq!(drops, BTreeMap::from([(Reason::Malformed, 2)]));
}
