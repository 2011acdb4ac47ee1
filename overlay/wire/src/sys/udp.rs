//! The UDP socket of one lane: many datagrams of one peer in each system call.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use nix::{
    errno::Errno,
    sys::socket::{
        self, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
        SockaddrIn, SockaddrIn6, SockaddrStorage, setsockopt, sockopt,
    },
};

/// Bytes that may wait in the kernel in each direction. With the default a burst of 64 KB frames
/// loses datagrams at half load.
const BUFFER: usize = 8 << 20;

/// A bound socket, of IPv6 that takes IPv4 too, or of IPv4 on a node without IPv6.
#[derive(Debug)]
pub struct Udp {
    fd: OwnedFd,
    family: AddressFamily,
    /// Whether the kernel cuts what is sent. Off for good once a device could not.
    segments: AtomicBool,
    opened: Instant,
}

/// What one call has received: equal datagrams one after the other, the last may be shorter.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Bytes of all datagrams.
    pub length: usize,
    /// Bytes of one datagram.
    pub segment: usize,
    /// Who sent them.
    pub source: SocketAddr,
}

impl Udp {
    /// Binds `port` on all addresses.
    ///
    /// # Errors
    /// The port is in use, or whatever else the kernel refuses.
    pub fn bind(port: u16) -> io::Result<Self> {
        match Self::bind_v6(port) {
            Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => Ok(Self::bind_v4(port)?),
            bound => Ok(bound?),
        }
    }

    fn bind_v6(port: u16) -> nix::Result<Self> {
        let udp = Self::open(AddressFamily::Inet6)?;
        setsockopt(&udp.fd, sockopt::Ipv6V6Only, &false)?;
        let address = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
        socket::bind(udp.fd.as_raw_fd(), &SockaddrIn6::from(address))?;
        Ok(udp)
    }

    fn bind_v4(port: u16) -> nix::Result<Self> {
        let udp = Self::open(AddressFamily::Inet)?;
        let address = std::net::SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
        socket::bind(udp.fd.as_raw_fd(), &SockaddrIn::from(address))?;
        Ok(udp)
    }

    fn open(family: AddressFamily) -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket::socket(family, SockType::Datagram, flags, None)?;
        // Without CAP_NET_ADMIN in the first user namespace the limits of the system hold.
        if setsockopt(&fd, sockopt::RcvBufForce, &BUFFER).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &BUFFER)?;
        }
        if setsockopt(&fd, sockopt::SndBufForce, &BUFFER).is_err() {
            setsockopt(&fd, sockopt::SndBuf, &BUFFER)?;
        }
        // Routers may cut an outer packet: the path's MTU is not always what was configured.
        super::sockopt::let_routers_fragment(&fd, family)?;
        // An old kernel has none of it; each datagram then comes alone.
        let _ = setsockopt(&fd, sockopt::UdpGroSegment, &true);
        Ok(Self { fd, family, segments: AtomicBool::new(true), opened: Instant::now() })
    }

    /// When it was opened.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// Receives datagrams of one sender; `None` when there are none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut control = nix::cmsg_space!(i32);
        let mut pieces = [IoSliceMut::new(buffer)];
        let message = match socket::recvmsg::<SockaddrStorage>(
            self.fd.as_raw_fd(),
            &mut pieces,
            Some(&mut control),
            MsgFlags::empty(),
        ) {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let segment = message.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::UdpGroSegments(bytes) => usize::try_from(bytes).ok(),
            _ => None,
        });
        let Some(source) = message.address.as_ref().and_then(plain) else {
            return Ok(None);
        };
        let length = message.bytes;
        Ok(Some(Received { length, segment: segment.unwrap_or(length).max(1), source }))
    }

    /// Sends datagrams of `segment` bytes, the last may be shorter, to one destination.
    ///
    /// # Errors
    /// What the kernel says of the last datagram that it did not take; `WouldBlock` when its buffer
    /// is full.
    pub fn send(&self, bytes: &[u8], segment: usize, to: SocketAddr) -> io::Result<()> {
        if bytes.len() <= segment {
            return self.send_one(bytes, to);
        }
        if self.segments.load(Ordering::Relaxed) {
            let size = u16::try_from(segment).map_err(|_| Errno::EMSGSIZE)?;
            match self.call(bytes, &[ControlMessage::UdpGsoSegments(&size)], to) {
                // The device has no checksums of its own: see udp(7), UDP_SEGMENT.
                Err(Errno::EIO) => self.segments.store(false, Ordering::Relaxed),
                // A segment is larger than this path's MTU: one by one they are fragmented.
                Err(Errno::EINVAL | Errno::EMSGSIZE) => {}
                result => return Ok(result?),
            }
        }
        let mut result = Ok(());
        for datagram in bytes.chunks(segment) {
            result = self.send_one(datagram, to).or(result).and(Ok(()));
        }
        result
    }

    fn send_one(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        Ok(self.call(datagram, &[], to)?)
    }

    fn call(
        &self,
        bytes: &[u8],
        control: &[ControlMessage<'_>],
        to: SocketAddr,
    ) -> nix::Result<()> {
        let to = match (self.family, to) {
            (AddressFamily::Inet6, SocketAddr::V4(to)) => {
                let mapped = SocketAddrV6::new(to.ip().to_ipv6_mapped(), to.port(), 0, 0);
                SockaddrStorage::from(mapped)
            }
            (_, to) => SockaddrStorage::from(to),
        };
        let pieces = [IoSlice::new(bytes)];
        loop {
            match socket::sendmsg(
                self.fd.as_raw_fd(),
                &pieces,
                control,
                MsgFlags::empty(),
                Some(&to),
            ) {
                Err(Errno::EINTR) => {}
                result => return result.map(drop),
            }
        }
    }
}

impl AsFd for Udp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The address as users write it: IPv4 mapped into IPv6 is IPv4.
fn plain(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::new(IpAddr::V4(v4.ip()), v4.port()));
    }
    let v6 = address.as_sockaddr_in6()?;
    Some(match v6.ip().to_ipv4_mapped() {
        Some(v4) => SocketAddr::new(v4.into(), v6.port()),
        None => SocketAddrV6::new(v6.ip(), v6.port(), 0, v6.scope_id()).into(),
    })
}
