//! The container's network namespace and the two DNS sockets in it.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;

use crate::sys::{check, owned};

/// Docker's address for the resolver inside a container.
const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// The TCP port must be the one the UDP socket drew; in a fresh namespace the first draw is free.
const PORT_DRAWS: usize = 16;

/// UDP and TCP on the same port of 127.0.0.11, bound for as long as the shim lives: queries wait in
/// them while the daemon is away.
pub struct Dns {
    pub udp: UdpSocket,
    pub tcp: TcpListener,
    pub port: u16,
}

/// What stands before the path of a namespace that is held for its DNS sockets only.
const HOLD: &str = "hold:";

/// Enters the namespace asked for: `own` (new, lo up), `host`, the path of one, or `hold:` and the
/// path of one that is somebody else's. DNS sockets exist in a new one and in one that is held: the
/// others already have a resolver of somebody else.
pub fn enter(net: &str) -> io::Result<Option<Dns>> {
    match net {
        "host" => Ok(None),
        "own" => {
            // SAFETY: unshare takes a plain flag; this process has one thread.
            check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
            loopback_up()?;
            dns().map(Some)
        }
        held if held.starts_with(HOLD) => {
            join(&held[HOLD.len()..])?;
            // An address of lo can be bound only while lo is up.
            loopback_up()?;
            dns().map(Some)
        }
        path => join(path).map(|()| None),
    }
}

fn join(path: &str) -> io::Result<()> {
    let file = std::fs::File::open(path)?;
    // SAFETY: setns takes a descriptor we own and a plain flag.
    check(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// The kernel gives lo its addresses when it comes up.
fn loopback_up() -> io::Result<()> {
    // SAFETY: socket takes plain values.
    let socket =
        owned(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) })?;
    Ok(())
}

fn dns() -> io::Result<Dns> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORT_DRAWS {
        let udp = UdpSocket::bind(SocketAddrV4::new(DNS_ADDRESS, 0))?;
        let port = udp.local_addr()?.port();
        match TcpListener::bind(SocketAddrV4::new(DNS_ADDRESS, port)) {
            Ok(tcp) => {
                udp.set_nonblocking(true)?;
                tcp.set_nonblocking(true)?;
                return Ok(Dns { udp, tcp, port });
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
