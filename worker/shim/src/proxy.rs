//! The ports of the host that lead to this container.
//!
//! The sockets are the host's: the daemon has bound them and handed them over, so that the ports
//! stay taken while no daemon runs. What the kernel does not lead into the container by itself
//! (connections of the host to its own loopback) arrives here and is passed on: TCP as a pair of
//! connections, UDP by sender; an SCTP port is only kept. The other side is in the container's
//! network namespace, which is ours.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::epoll::{Epoll, READ};
use crate::pipe::Pipes;
use crate::tcp::Pair;
use crate::udp::Flows;

/// Connections at one time; when there are as many, new ones wait to be accepted.
const MAX_PAIRS: usize = 1024;
/// Connections accepted at one port before others get their turn.
const ACCEPTS: usize = 16;
/// Ports in one answer, which must fit into a socket's buffer.
const PAGE: usize = 128;

/// `tcp`, `udp` or `sctp`, and where on the host.
type Key = (String, SocketAddr);

enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
    /// Held for the port's sake.
    Kept(#[expect(dead_code, reason = "it is open, that is all")] OwnedFd),
}

struct Port {
    token: u64,
    target: SocketAddr,
    socket: Socket,
}

pub struct Proxy {
    ports: BTreeMap<Key, Port>,
    keys: BTreeMap<u64, Key>,
    pairs: BTreeMap<u64, Pair>,
    pipes: Pipes,
    flows: Flows,
    /// TCP ports that wait for connections.
    listening: Epoll,
    /// All the rest.
    moving: Epoll,
    next: u64,
}

impl Proxy {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            ports: BTreeMap::new(),
            keys: BTreeMap::new(),
            pairs: BTreeMap::new(),
            pipes: Pipes::default(),
            flows: Flows::default(),
            listening: Epoll::new()?,
            moving: Epoll::new()?,
            next: 0,
        })
    }

    /// What the loop is to wait for; -1 for what must wait itself.
    pub fn polled(&self) -> [RawFd; 2] {
        let full = self.pairs.len() >= MAX_PAIRS;
        [if full { -1 } else { self.listening.raw() }, self.moving.raw()]
    }

    pub fn timeout(&self) -> Option<Duration> {
        self.flows.timeout()
    }

    /// Takes `tcp LISTEN TARGET` with its socket, or without one as a new target of a port that is
    /// there.
    pub fn publish(&mut self, words: &str, socket: Option<OwnedFd>) -> io::Result<()> {
        let (key, target) = parse(words).ok_or(io::ErrorKind::InvalidInput)?;
        let Some(socket) = socket else {
            let port = self.ports.get_mut(&key).ok_or(io::ErrorKind::NotFound)?;
            port.target = target;
            return Ok(());
        };
        self.close(&key);
        let token = draw(&mut self.next);
        let raw = socket.as_raw_fd();
        let socket = match key.0.as_str() {
            "tcp" => {
                self.listening.change(raw, token, 0, READ)?;
                Socket::Tcp(socket.into())
            }
            "udp" => {
                self.moving.change(raw, token, 0, READ)?;
                Socket::Udp(socket.into())
            }
            _ => Socket::Kept(socket),
        };
        self.keys.insert(token, key.clone());
        self.ports.insert(key, Port { token, target, socket });
        Ok(())
    }

    /// Closes a port, if it is there. Connections that are made stay.
    pub fn unpublish(&mut self, words: &str) {
        if let Some((key, _)) = parse(words) {
            self.close(&key);
        }
    }

    fn close(&mut self, key: &Key) {
        if let Some(port) = self.ports.remove(key) {
            self.keys.remove(&port.token);
            self.flows.close(port.token);
        }
    }

    /// Some ports, from the one with this number on, in words as `publish` takes.
    pub fn page(&self, from: usize) -> Vec<String> {
        let ports = self.ports.iter().skip(from).take(PAGE);
        ports.map(|((kind, listen), port)| format!("{kind} {listen} {}", port.target)).collect()
    }

    /// Accepts connections.
    pub fn accept(&mut self) {
        for token in self.listening.ready() {
            let Some(port) = self.keys.get(&token).and_then(|key| self.ports.get(key)) else {
                continue;
            };
            let Socket::Tcp(listener) = &port.socket else { continue };
            for _ in 0..ACCEPTS {
                if self.pairs.len() >= MAX_PAIRS {
                    return;
                }
                let Ok((client, _)) = listener.accept() else { break };
                // One that leads nowhere is closed.
                let Ok(pair) = Pair::new(client, port.target) else { continue };
                let token = draw(&mut self.next);
                self.pairs.insert(token, pair);
                keep_going(&mut self.pairs, &mut self.pipes, &self.moving, token);
            }
        }
    }

    /// Moves what has come.
    pub fn turn(&mut self) {
        for token in self.moving.ready() {
            // An odd one is the other end of the connection before it.
            let pair = token & !1;
            if self.pairs.contains_key(&pair) {
                keep_going(&mut self.pairs, &mut self.pipes, &self.moving, pair);
                continue;
            }
            let port = self.flows.port(token).unwrap_or(token);
            let Some(known) = self.keys.get(&port).and_then(|key| self.ports.get(key)) else {
                continue;
            };
            let Socket::Udp(host) = &known.socket else { continue };
            if port == token {
                let next = || draw(&mut self.next);
                self.flows.inward(&self.moving, port, host, known.target, next);
            } else {
                self.flows.outward(token, host);
            }
        }
    }

    /// Forgets senders that are silent; costs nothing when it is not yet time.
    pub fn sweep(&mut self) {
        self.flows.sweep();
    }
}

/// Tokens are even, so that each has room for a second one beside it, and never come again: an
/// event that is late finds nobody.
fn draw(next: &mut u64) -> u64 {
    *next += 2;
    *next
}

fn keep_going(pairs: &mut BTreeMap<u64, Pair>, pipes: &mut Pipes, epoll: &Epoll, token: u64) {
    let Some(pair) = pairs.get_mut(&token) else { return };
    let going = pair.turn(pipes).unwrap_or(false) && pair.wait(epoll, token).is_ok();
    if !going {
        pairs.remove(&token);
    }
}

fn parse(words: &str) -> Option<(Key, SocketAddr)> {
    let mut words = words.split(' ');
    let kind = words.next()?.to_owned();
    let listen = words.next()?.parse().ok()?;
    Some(((kind, listen), words.next()?.parse().ok()?))
}
