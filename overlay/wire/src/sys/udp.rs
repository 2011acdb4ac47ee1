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
        self, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockFlag,
        SockType, SockaddrIn, SockaddrIn6, SockaddrStorage, setsockopt, sockopt,
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
    /// Traffic class of their IP headers, which is the same in all: the kernel puts no others together.
    pub class: u8,
}

/// What is sent in one call.
#[derive(Clone, Copy, Debug)]
pub struct Sending<'a> {
    /// All datagrams, one behind the other.
    pub bytes: &'a [u8],
    /// Bytes of each; the last may be shorter.
    pub segment: usize,
    /// Traffic class of their IP headers.
    pub class: u8,
}

impl<'a> Sending<'a> {
    /// One datagram of no class.
    pub fn one(bytes: &'a [u8]) -> Self {
        Self { bytes, segment: bytes.len(), class: 0 }
    }
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
        // Packets of IPv4 too, if it is of IPv6: see ip(7) and ipv6(7).
        setsockopt(&fd, sockopt::IpRecvTos, &true)?;
        if family == AddressFamily::Inet6 {
            setsockopt(&fd, sockopt::Ipv6RecvTClass, &true)?;
        }
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
        let mut control = nix::cmsg_space!(i32, i32);
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
        let (mut segment, mut class) = (None, 0);
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::UdpGroSegments(bytes) => segment = usize::try_from(bytes).ok(),
                ControlMessageOwned::Ipv4Tos(tos) => class = tos,
                // It has eight bits.
                ControlMessageOwned::Ipv6TClass(bits) => class = bits as u8,
                _ => {}
            }
        }
        let Some(source) = message.address.as_ref().and_then(plain) else {
            return Ok(None);
        };
        let length = message.bytes;
        Ok(Some(Received { length, segment: segment.unwrap_or(length).max(1), source, class }))
    }

    /// Sends datagrams to one destination.
    ///
    /// # Errors
    /// What the kernel says of the last datagram that it did not take; `WouldBlock` when its buffer
    /// is full.
    pub fn send(&self, sending: Sending<'_>, to: SocketAddr) -> io::Result<()> {
        let Sending { bytes, segment, class } = sending;
        let wide = i32::from(class);
        let class = match to {
            _ if class == 0 => None,
            SocketAddr::V4(_) => Some(ControlMessage::Ipv4Tos(&class)),
            SocketAddr::V6(_) => Some(ControlMessage::Ipv6TClass(&wide)),
        };
        let to = self.address(to);
        if bytes.len() <= segment {
            return Ok(self.call(bytes, class.as_slice(), &to)?);
        }
        if self.segments.load(Ordering::Relaxed) {
            let size = u16::try_from(segment).map_err(|_| Errno::EMSGSIZE)?;
            let cut = ControlMessage::UdpGsoSegments(&size);
            let result = match class {
                None => self.call(bytes, &[cut], &to),
                Some(class) => self.call(bytes, &[cut, class], &to),
            };
            match result {
                // The device has no checksums of its own: see udp(7), UDP_SEGMENT.
                Err(Errno::EIO) => self.segments.store(false, Ordering::Relaxed),
                // A segment is larger than this path's MTU: each alone is fragmented.
                Err(Errno::EINVAL | Errno::EMSGSIZE) => {}
                result => return Ok(result?),
            }
        }
        self.send_each(bytes.chunks(segment), class.as_slice(), to)
    }

    fn call(
        &self,
        bytes: &[u8],
        control: &[ControlMessage<'_>],
        to: &SockaddrStorage,
    ) -> nix::Result<()> {
        let pieces = [IoSlice::new(bytes)];
        loop {
            let flags = MsgFlags::empty();
            match socket::sendmsg(self.fd.as_raw_fd(), &pieces, control, flags, Some(to)) {
                Err(Errno::EINTR) => {}
                result => return result.map(drop),
            }
        }
    }

    /// Datagrams that the kernel does not cut: all of them in one call, if it takes all.
    fn send_each<'a>(
        &self,
        datagrams: impl Iterator<Item = &'a [u8]>,
        control: &[ControlMessage<'_>],
        to: SockaddrStorage,
    ) -> io::Result<()> {
        let pieces: Vec<_> = datagrams.map(|datagram| [IoSlice::new(datagram)]).collect();
        let to = vec![Some(to); pieces.len()];
        let (mut rest, mut result) = (&pieces[..], Ok(()));
        while !rest.is_empty() {
            let room = (!control.is_empty()).then(|| nix::cmsg_space!(i32));
            let mut headers = MultiHeaders::preallocate(rest.len(), room);
            let flags = MsgFlags::empty();
            let fd = self.fd.as_raw_fd();
            match socket::sendmmsg(fd, &mut headers, rest, &to, control, flags) {
                Ok(sent) => rest = &rest[sent.count().max(1)..],
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(Errno::EAGAIN.into()),
                // It is of the first of them; the others may pass.
                Err(errno) => (rest, result) = (&rest[1..], Err(errno.into())),
            }
        }
        result
    }

    /// As the kernel takes it on this socket.
    fn address(&self, to: SocketAddr) -> SockaddrStorage {
        match (self.family, to) {
            (AddressFamily::Inet6, SocketAddr::V4(to)) => {
                let mapped = SocketAddrV6::new(to.ip().to_ipv6_mapped(), to.port(), 0, 0);
                SockaddrStorage::from(mapped)
            }
            (_, to) => SockaddrStorage::from(to),
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
