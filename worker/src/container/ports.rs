//! Ports of the host that lead to a container: the daemon's side.
//!
//! The daemon binds the sockets in its own network namespace and gives them to the container's
//! shim, which keeps the ports while no daemon runs and passes on what reaches the sockets
//! (`shim/src/proxy.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{Backlog, SockaddrStorage, bind, listen, setsockopt, sockopt};

use super::Error;
use super::shim::Shim;

/// Connections that wait to be accepted, for each port (the kernel's default limit).
const BACKLOG: i32 = 4096;
/// Sockets in one message to the shim, which has room for as many; a unix socket carries 253
/// (SCM_MAX_FD).
const BATCH: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A port of the host that leads to one of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    pub protocol: Protocol,
    /// On the host. An IPv6 one takes no IPv4.
    pub listen: SocketAddr,
    /// An address of the container itself.
    pub target: SocketAddr,
}

impl HostPort {
    fn key(&self) -> (Protocol, SocketAddr) {
        (self.protocol, self.listen)
    }

    /// The words the shim takes: `tcp LISTEN TARGET`.
    pub(super) fn words(&self) -> String {
        format!("{} {} {}", self.protocol, self.listen, self.target)
    }

    pub(super) fn parse(words: &str) -> Option<Self> {
        let mut words = words.split(' ');
        let name = words.next()?;
        let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.name() == name)?;
        let listen = words.next()?.parse().ok()?;
        Some(Self { protocol, listen, target: words.next()?.parse().ok()? })
    }
}

/// What must change for the shim to have what is wanted.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    close: Vec<HostPort>,
    open: Vec<HostPort>,
    /// The same port with another target.
    lead: Vec<HostPort>,
}

impl Plan {
    fn new(have: &[HostPort], wanted: &[HostPort]) -> Self {
        let have: BTreeMap<_, _> = have.iter().map(|port| (port.key(), *port)).collect();
        let wanted: BTreeMap<_, _> = wanted.iter().map(|port| (port.key(), *port)).collect();
        let gone = have.iter().filter(|(key, _)| !wanted.contains_key(key));
        let new = wanted.iter().filter(|(key, _)| !have.contains_key(key));
        let other = wanted.iter().filter(|(key, port)| have.get(key).is_some_and(|h| h != *port));
        Self {
            close: gone.map(|(_, port)| *port).collect(),
            open: new.map(|(_, port)| *port).collect(),
            lead: other.map(|(_, port)| *port).collect(),
        }
    }

    /// Whether a port that goes may stand in the way of one that comes: `0.0.0.0:80` holds the port
    /// on every address.
    fn collides(&self) -> bool {
        let number = |port: &HostPort| (port.protocol, port.listen.port());
        let going: BTreeSet<_> = self.close.iter().map(number).collect();
        self.open.iter().any(|port| going.contains(&number(port)))
    }
}

/// Makes the shim have these ports and no others.
pub(super) async fn publish(shim: &mut Shim, wanted: &[HostPort]) -> Result<(), Error> {
    let have = shim.ports().await?;
    crate::failpoint!("container.publish.asked");
    let plan = Plan::new(&have, wanted);
    let early = plan.collides();
    if early {
        close(shim, &plan.close).await?;
    }
    if let Err(error) = open(shim, &plan.open).await {
        // What was opened before the one that failed; the shim knows the rest as it was.
        close(shim, &plan.open).await?;
        return Err(error);
    }
    crate::failpoint!("container.publish.opened");
    for batch in plan.lead.chunks(BATCH) {
        shim.publish(batch, &[]).await?;
    }
    if !early {
        close(shim, &plan.close).await?;
    }
    crate::failpoint!("container.publish.closed");
    Ok(())
}

async fn open(shim: &mut Shim, ports: &[HostPort]) -> Result<(), Error> {
    for batch in ports.chunks(BATCH) {
        let bound: Vec<(HostPort, OwnedFd)> = batch
            .iter()
            .filter_map(|port| match socket(port) {
                Ok(socket) => Some(Ok((*port, socket))),
                // A kernel that does not speak the protocol gives its ports to nobody.
                Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => None,
                Err(source) => {
                    let HostPort { protocol, listen, .. } = *port;
                    Some(Err(Error::PortInUse { listen, protocol, source }))
                }
            })
            .collect::<Result<_, _>>()?;
        crate::failpoint!("container.publish.bound");
        let (ports, sockets): (Vec<_>, Vec<_>) = bound.into_iter().unzip();
        let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        shim.publish(&ports, &sockets).await?;
    }
    Ok(())
}

async fn close(shim: &mut Shim, ports: &[HostPort]) -> Result<(), Error> {
    for batch in ports.chunks(BATCH) {
        shim.unpublish(batch).await?;
    }
    Ok(())
}

/// A bound socket, listening if its protocol does that.
fn socket(port: &HostPort) -> io::Result<OwnedFd> {
    let family = if port.listen.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let (kind, protocol) = match port.protocol {
        Protocol::Tcp => (libc::SOCK_STREAM, libc::IPPROTO_TCP),
        Protocol::Udp => (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        Protocol::Sctp => (libc::SOCK_STREAM, libc::IPPROTO_SCTP),
    };
    let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket takes plain values, and a result that is no error is a fresh descriptor.
    let socket =
        unsafe { OwnedFd::from_raw_fd(Errno::result(libc::socket(family, kind, protocol))?) };
    if port.listen.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    if port.protocol != Protocol::Udp {
        // Connections of an earlier owner that are still closing are no reason to wait.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(port.listen))?;
    if port.protocol != Protocol::Udp {
        listen(&socket, Backlog::new(BACKLOG)?)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(listen: &str, target: &str) -> HostPort {
        HostPort::parse(&format!("tcp {listen} {target}")).expect("words")
    }

    #[test]
    fn words_come_back() {
        for words in ["tcp 0.0.0.0:80 10.0.0.2:8080", "sctp [::1]:1 [fd00::2]:2"] {
            assert_eq!(HostPort::parse(words).expect("words").words(), words);
        }
        assert_eq!(HostPort::parse("icmp 0.0.0.0:80 10.0.0.2:8080"), None);
    }

    #[test]
    fn what_stays_is_not_touched() {
        let [a, b, c] = ["0.0.0.0:1", "0.0.0.0:2", "0.0.0.0:3"].map(|l| port(l, "10.0.0.2:1"));
        let moved = port("0.0.0.0:2", "10.0.0.3:1");
        let plan = Plan::new(&[a, b], &[a, moved, c]);
        assert_eq!(plan, Plan { close: vec![], open: vec![c], lead: vec![moved] });
        assert_eq!(Plan::new(&[a, b], &[]).close, [a, b]);
        let narrow = port("127.0.0.1:1", "10.0.0.2:1");
        assert!(Plan::new(&[a], &[narrow]).collides() && !Plan::new(&[b], &[narrow]).collides());
    }

    #[test]
    fn a_taken_port_and_a_strange_address_are_told() {
        let first = socket(&port("127.0.0.1:0", "10.0.0.2:1")).expect("any port");
        let at: SockaddrStorage = nix::sys::socket::getsockname(first.as_raw_fd()).expect("name");
        let number = at.as_sockaddr_in().expect("IPv4").port();
        let again = socket(&port(&format!("127.0.0.1:{number}"), "10.0.0.2:1"));
        assert_eq!(again.expect_err("taken").raw_os_error(), Some(libc::EADDRINUSE));
        let away = socket(&port("192.0.2.1:1", "10.0.0.2:1")).expect_err("not here");
        assert_eq!(away.raw_os_error(), Some(libc::EADDRNOTAVAIL));
    }
}
