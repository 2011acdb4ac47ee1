//! Datagrams to published ports: who has sent some gets the answers for as long as he goes on.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::epoll::{Epoll, READ};

/// Senders that are remembered, of all ports together; a new one takes the place of the one that
/// has been silent longest.
const MAX_FLOWS: usize = 1024;
/// How long a silent one is remembered (Docker's).
const IDLE: Duration = Duration::from_secs(90);
/// How often the silent ones are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// Datagrams moved before others get their turn.
const DATAGRAMS: usize = 64;
/// The longest datagram there is.
const MAX_DATAGRAM: usize = 64 << 10;

/// One sender to one port.
struct Flow {
    port: u64,
    sender: SocketAddr,
    /// Connected to the target, in the container.
    socket: UdpSocket,
    last: Instant,
}

/// All of them, by their tokens.
#[derive(Default)]
pub struct Flows {
    all: BTreeMap<u64, Flow>,
    tokens: BTreeMap<(u64, SocketAddr), u64>,
    swept: Option<Instant>,
}

impl Flows {
    /// When the next look for silent ones is due.
    pub fn timeout(&self) -> Option<Duration> {
        (!self.all.is_empty()).then_some(SWEEP)
    }

    pub fn sweep(&mut self) {
        let now = Instant::now();
        if self.swept.is_some_and(|swept| now - swept < SWEEP) {
            return;
        }
        self.swept = Some(now);
        self.forget(|flow| now - flow.last > IDLE);
    }

    /// Forgets the senders to a port that is closed.
    pub fn close(&mut self, port: u64) {
        self.forget(|flow| flow.port == port);
    }

    fn forget(&mut self, gone: impl Fn(&Flow) -> bool) {
        let tokens = &mut self.tokens;
        self.all.retain(|_, flow| {
            let gone = gone(flow);
            if gone {
                tokens.remove(&(flow.port, flow.sender));
            }
            !gone
        });
    }

    /// Passes on what has come to a port. `next` draws a token.
    pub fn inward(
        &mut self,
        epoll: &Epoll,
        port: u64,
        host: &UdpSocket,
        target: SocketAddr,
        mut next: impl FnMut() -> u64,
    ) {
        let mut buffer = vec![0u8; MAX_DATAGRAM];
        for _ in 0..DATAGRAMS {
            // An error is one datagram's: that of an earlier answer nobody took.
            let Ok((n, sender)) = host.recv_from(&mut buffer) else { return };
            let token = match self.tokens.get(&(port, sender)) {
                Some(token) => *token,
                None => match self.open(epoll, port, sender, target, next()) {
                    Ok(token) => token,
                    Err(_) => continue,
                },
            };
            if let Some(flow) = self.all.get_mut(&token) {
                flow.last = Instant::now();
                // As on any network, a datagram may be lost.
                let _ = flow.socket.send(&buffer[..n]);
            }
        }
    }

    fn open(
        &mut self,
        epoll: &Epoll,
        port: u64,
        sender: SocketAddr,
        target: SocketAddr,
        token: u64,
    ) -> io::Result<u64> {
        if self.all.len() >= MAX_FLOWS
            && let Some(oldest) = self.all.values().map(|flow| flow.last).min()
        {
            self.forget(|flow| flow.last == oldest);
        }
        let any: SocketAddr = match target {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(target)?;
        socket.set_nonblocking(true)?;
        epoll.change(socket.as_raw_fd(), token, 0, READ)?;
        self.all.insert(token, Flow { port, sender, socket, last: Instant::now() });
        self.tokens.insert((port, sender), token);
        Ok(token)
    }

    /// Which port a flow belongs to.
    pub fn port(&self, token: u64) -> Option<u64> {
        self.all.get(&token).map(|flow| flow.port)
    }

    /// Passes the container's answers on to the sender.
    pub fn outward(&mut self, token: u64, host: &UdpSocket) {
        let Some(flow) = self.all.get_mut(&token) else { return };
        let mut buffer = vec![0u8; MAX_DATAGRAM];
        for _ in 0..DATAGRAMS {
            // An error is told once: that nobody listens there.
            let Ok(n) = flow.socket.recv(&mut buffer) else { return };
            flow.last = Instant::now();
            let _ = host.send_to(&buffer[..n], flow.sender);
        }
    }
}
