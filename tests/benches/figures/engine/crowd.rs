//! Many nodes in this process: each has a socket, a key and WireGuard of the library that the engine also
//! uses, and no more. They stand in the network namespace of one host, with one address and a port each.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

use boringtun::{
    noise::{Tunn, TunnResult},
    x25519::{PublicKey, StaticSecret},
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns},
};

use super::node::key;

/// Port of node 0.
const PORT: u16 = 20000;
/// How often WireGuard's timers are looked at; the shortest is 5 s.
const TIMERS: Duration = Duration::from_millis(250);
/// Bytes of the largest packet.
const LARGEST: usize = 2048;
/// First bytes of the answer to the begin of a handshake, and of a packet of data.
const RESPONSE: u8 = 2;
const DATA: u8 = 4;

/// The number of the engine's node; those of the crowd follow.
pub const ENGINE: u16 = 1;

/// So many other nodes.
pub struct Crowd(Vec<Peer>);

struct Peer {
    socket: UdpSocket,
    tunnel: Tunn,
    /// Whether it has a session since it last began a handshake. The engine may have begun it, for what its
    /// container sends to everybody; then WireGuard's library may take no answer to its own any more.
    met: bool,
    /// Whether a packet has come to it since it was last asked to wait for one.
    reached: bool,
}

impl Crowd {
    /// Nodes behind address `own` in the network namespace of process `pid`.
    pub fn new(count: u16, pid: u32, own: Ipv4Addr, engine: SocketAddr) -> Self {
        let sockets = inside(pid, move || {
            let sockets = (1..=count).map(|at| socket(own, PORT + ENGINE + at, engine));
            sockets.collect::<io::Result<Vec<_>>>()
        });
        let sockets = sockets.expect("the ports are free");
        let peer =
            |(socket, number)| Peer { socket, tunnel: tunnel(number), met: false, reached: false };
        Self(sockets.into_iter().zip(ENGINE + 1..).map(peer).collect())
    }

    /// All begin a handshake at once; gives the time until all have a session.
    ///
    /// # Errors
    /// How many were not, in that time.
    pub fn call(&mut self, limit: Duration) -> Result<Duration, String> {
        let packets: Vec<Vec<u8>> = self.0.iter_mut().map(Peer::begin).collect();
        let clock = Instant::now();
        for (peer, packet) in self.0.iter().zip(packets) {
            peer.send(&packet);
        }
        self.serve(limit, |peer| peer.met).map(|at| at - clock)
    }

    /// Forgets who has been reached.
    pub fn expect(&mut self) {
        self.0.iter_mut().for_each(|peer| peer.reached = false);
    }

    /// When all had been reached.
    ///
    /// # Errors
    /// How many were not, in that time.
    pub fn reached(&mut self, limit: Duration) -> Result<Instant, String> {
        self.serve(limit, |peer| peer.reached)
    }

    /// Lets all do what WireGuard does when there is nothing to say.
    pub fn rest(&mut self, time: Duration) {
        let _ = self.serve(time, |_| false);
    }

    /// Answers until all are as wanted.
    fn serve(
        &mut self,
        limit: Duration,
        wanted: impl Fn(&Peer) -> bool,
    ) -> Result<Instant, String> {
        let until = Instant::now() + limit;
        let mut timers = Instant::now();
        while !self.0.iter().all(&wanted) {
            if Instant::now() > until {
                let missing = self.0.iter().filter(|peer| !wanted(peer)).count();
                return Err(format!("{missing} of {} are missing after {limit:?}", self.0.len()));
            }
            self.wait();
            self.0.iter_mut().for_each(Peer::receive);
            if timers.elapsed() >= TIMERS {
                timers = Instant::now();
                self.0.iter_mut().for_each(Peer::tick);
            }
        }
        Ok(Instant::now())
    }

    /// Until somebody has a packet, or it is time for the timers.
    fn wait(&self) {
        let sockets = self.0.iter().map(|peer| peer.socket.as_fd());
        let mut fds: Vec<_> = sockets.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let timeout = PollTimeout::try_from(TIMERS).expect("it is short");
        poll(&mut fds, timeout).expect("sockets can be waited for");
    }
}

impl Peer {
    /// A handshake, whether there is a session or not.
    fn begin(&mut self) -> Vec<u8> {
        // What an engine that was killed has left is of no session.
        self.receive();
        self.met = false;
        let mut buffer = [0; LARGEST];
        match self.tunnel.format_handshake_initiation(&mut buffer, true) {
            TunnResult::WriteToNetwork(packet) => packet.to_vec(),
            other => panic!("no handshake: {other:?}"),
        }
    }

    /// Takes all that has come.
    fn receive(&mut self) {
        let (mut packet, mut buffer) = ([0; LARGEST], [0; LARGEST]);
        // An error of the last packet sent is told here too; WireGuard takes it for loss.
        while let Ok(length) = self.socket.recv(&mut packet) {
            let mut result = self.tunnel.decapsulate(None, &packet[..length], &mut buffer);
            let good = !matches!(result, TunnResult::Err(_));
            self.met |= good && matches!(packet[0], RESPONSE | DATA);
            while let TunnResult::WriteToNetwork(answer) = result {
                let _ = self.socket.send(answer);
                result = self.tunnel.decapsulate(None, &[], &mut buffer);
            }
            self.reached |= matches!(result, TunnResult::WriteToTunnelV4(..));
        }
    }

    fn tick(&mut self) {
        let mut buffer = [0; LARGEST];
        if let TunnResult::WriteToNetwork(packet) = self.tunnel.update_timers(&mut buffer) {
            let _ = self.socket.send(packet);
        }
    }

    fn send(&self, packet: &[u8]) {
        // Nobody may listen yet: loss, to WireGuard.
        let _ = self.socket.send(packet);
    }
}

/// UDP port of a node of the crowd.
pub fn port(number: u16) -> u16 {
    PORT + number
}

fn tunnel(number: u16) -> Tunn {
    let secret = StaticSecret::from(key(number).0);
    let engine = PublicKey::from(key(ENGINE).public().0);
    Tunn::new(secret, engine, None, None, u32::from(number), None)
}

fn socket(own: Ipv4Addr, port: u16, engine: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((own, port))?;
    socket.connect(engine)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Does something in the network namespace of a process; a socket made there stays there.
pub fn inside<T: Send>(pid: u32, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        // A thread of its own, which does not come back.
        let there = scope.spawn(|| {
            let file = File::open(format!("/proc/{pid}/ns/net")).expect("the process runs");
            setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
            work()
        });
        there.join().expect("the work is done")
    })
}
