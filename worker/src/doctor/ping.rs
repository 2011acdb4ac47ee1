//! ICMP echo to many addresses at once, of any size, never cut on the way.
//!
//! Unprivileged sockets (`SOCK_DGRAM`) where the kernel allows them (net.ipv4.ping_group_range, which is
//! empty in a new namespace), else raw ones.

use std::{
    collections::BTreeMap,
    io,
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Length of the header of ICMP echo (RFC 792, RFC 4443 section 4.1).
const HEADER: usize = 8;
/// Length of the IP headers.
const IPV4: usize = 20;
const IPV6: usize = 40;
/// Message types.
const ECHO_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const ECHO_V6: u8 = 128;
const REPLY_V6: u8 = 129;
/// Smallest packet that is sent, bytes with the IP header: nothing on a path is too narrow for it.
pub const SMALL: u32 = 84;
/// Every path carries this (RFC 8200, section 5), and most tunnels' MTUs are above.
const LEAST: u32 = 1280;
/// Looks for the largest packet that passes end when it is known as exactly as this.
const EXACT: u32 = 8;
/// Times that each address is asked before it counts as silent.
const TRIES: usize = 2;
/// How long each try waits.
const WAIT: Duration = Duration::from_millis(700);

/// Whether each of these answers packets of that many bytes, IP header included. Blocks for two waits at
/// most.
pub fn answers(addresses: &[IpAddr], size: u32) -> BTreeMap<IpAddr, bool> {
    let mut found: BTreeMap<IpAddr, bool> = addresses.iter().map(|to| (*to, false)).collect();
    for _ in 0..TRIES {
        for v6 in [false, true] {
            let silent = found.iter().filter(|(to, answers)| to.is_ipv6() == v6 && !**answers);
            let silent: Vec<IpAddr> = silent.map(|(to, _)| *to).collect();
            if silent.is_empty() {
                continue;
            }
            for from in ask(&silent, v6, size).unwrap_or_default() {
                found.insert(from, true);
            }
        }
    }
    found
}

/// The largest packet under `size` bytes that the address answers; `None`: none of those tried.
pub fn largest(address: IpAddr, size: u32) -> Option<u32> {
    let passes = |size| answers(&[address], size).get(&address).copied().unwrap_or(false);
    let mut low = if size > LEAST && passes(LEAST) { LEAST } else { return None };
    let mut high = size;
    while high - low > EXACT {
        let middle = low + (high - low) / 2;
        if passes(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(low)
}

/// Sends one echo to each, and gives those that answered in time.
fn ask(addresses: &[IpAddr], v6: bool, size: u32) -> io::Result<Vec<IpAddr>> {
    let (socket, raw) = open(v6)?;
    let id = rand::random::<u16>();
    for (number, to) in (0u16..).zip(addresses) {
        // A packet that the host itself does not let out is one without an answer.
        let _ = send(&socket, *to, &packet(v6, id, number, size));
    }
    let until = Instant::now() + WAIT;
    let mut answered = Vec::new();
    while answered.len() < addresses.len() {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&socket), PollFlags::POLLIN)];
        if poll(&mut fds, timeout)? == 0 {
            break;
        }
        let Ok((from, bytes)) = receive(&socket) else { continue };
        let message = if raw && !v6 { after_ipv4(&bytes) } else { &bytes[..] };
        let number = reply(message, v6, raw.then_some(id));
        let asked = number.and_then(|number| addresses.get(usize::from(number)));
        if asked == Some(&from) && !answered.contains(&from) {
            answered.push(from);
        }
    }
    Ok(answered)
}

/// An echo request of `size` bytes with the IP header. The kernel fills in an ICMPv6 checksum.
fn packet(v6: bool, id: u16, number: u16, size: u32) -> Vec<u8> {
    let header = if v6 { IPV6 } else { IPV4 };
    let mut bytes = vec![0; (size as usize).saturating_sub(header).max(HEADER)];
    bytes[0] = if v6 { ECHO_V6 } else { ECHO_V4 };
    bytes[4..6].copy_from_slice(&id.to_be_bytes());
    bytes[6..8].copy_from_slice(&number.to_be_bytes());
    if !v6 {
        let sum = checksum(&bytes);
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// The sequence number of an echo reply with this identifier; the kernel chooses that of a socket that is
/// not raw, and gives it its own replies only.
fn reply(message: &[u8], v6: bool, id: Option<u16>) -> Option<u16> {
    let at = |from: usize| Some(u16::from_be_bytes(message.get(from..from + 2)?.try_into().ok()?));
    let kind = if v6 { REPLY_V6 } else { REPLY_V4 };
    let ours = id.is_none_or(|id| at(4) == Some(id));
    (*message.first()? == kind && ours).then(|| at(6))?
}

/// What follows an IPv4 header, whose length is in its first byte.
fn after_ipv4(bytes: &[u8]) -> &[u8] {
    let length = bytes.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    bytes.get(length..).unwrap_or(&[])
}

/// A socket, and whether it is raw.
fn open(v6: bool) -> io::Result<(OwnedFd, bool)> {
    let (family, protocol) = if v6 {
        (libc::AF_INET6, libc::IPPROTO_ICMPV6)
    } else {
        (libc::AF_INET, libc::IPPROTO_ICMP)
    };
    let one = |kind: libc::c_int| {
        // SAFETY: socket(2) takes numbers only.
        let fd = unsafe {
            libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is a descriptor that was made just now, and nobody else's.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    let (socket, raw) = match one(libc::SOCK_DGRAM) {
        Ok(socket) => (socket, false),
        Err(_) => (one(libc::SOCK_RAW)?, true),
    };
    // Never cut, and as large as asked for whatever the kernel believes of the path.
    let (level, option, probe) = match v6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
        false => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
    };
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to an integer of that length, which outlives the call.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const probe).cast(), length)
    };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok((socket, raw)) }
}

fn send(socket: &OwnedFd, to: IpAddr, bytes: &[u8]) -> nix::Result<usize> {
    let to = nix::sys::socket::SockaddrStorage::from(SocketAddr::new(to, 0));
    nix::sys::socket::sendto(socket.as_raw_fd(), bytes, &to, nix::sys::socket::MsgFlags::empty())
}

fn receive(socket: &OwnedFd) -> io::Result<(IpAddr, Vec<u8>)> {
    let mut bytes = vec![0; usize::from(u16::MAX)];
    let (length, from) = nix::sys::socket::recvfrom::<nix::sys::socket::SockaddrStorage>(
        socket.as_raw_fd(),
        &mut bytes,
    )?;
    bytes.truncate(length);
    let from = from.ok_or(io::ErrorKind::InvalidData)?;
    let v4 = from.as_sockaddr_in().map(|from| IpAddr::V4(from.ip()));
    let v6 = || from.as_sockaddr_in6().map(|from| IpAddr::V6(from.ip()));
    Ok((v4.or_else(v6).ok_or(io::ErrorKind::InvalidData)?, bytes))
}

/// The MTU of the device that has this address, bytes.
pub fn mtu_at(address: IpAddr) -> Option<u32> {
    let mut list = nix::ifaddrs::getifaddrs().ok()?;
    let device = list.find_map(|entry| {
        let found = entry.address?;
        let v4 = found.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = || found.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
        (v4.or_else(v6)? == address).then_some(entry.interface_name)
    })?;
    device_mtu(&device)
}

fn device_mtu(device: &str) -> Option<u32> {
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0)).ok()?;
    let name = device.as_bytes();
    // SAFETY: all bytes zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    if name.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = from.cast_signed() as libc::c_char;
    }
    // SAFETY: the pointer is to an `ifreq` with a name that ends in a zero.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) };
    // SAFETY: the kernel has filled in the MTU when it says so.
    (done == 0).then(|| u32::try_from(unsafe { request.ifr_ifru.ifru_mtu }).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_size_asked_for_and_a_right_checksum() {
        for (v6, header) in [(false, IPV4), (true, IPV6)] {
            let bytes = packet(v6, 7, 9, 1500);
            assert_eq!(bytes.len() + header, 1500);
            assert_eq!(&bytes[4..8], [0, 7, 0, 9]);
        }
        // With the sum in its place the sum over all is 0 (RFC 1071).
        assert_eq!(checksum(&packet(false, 7, 9, 1501)), 0);
    }

    #[test]
    fn only_the_answer_to_a_question_counts() {
        let mut message = packet(false, 7, 9, SMALL);
        assert_eq!(reply(&message, false, Some(7)), None, "a request");
        message[0] = REPLY_V4;
        assert_eq!(reply(&message, false, Some(7)), Some(9));
        assert_eq!(reply(&message, false, None), Some(9));
        assert_eq!(reply(&message, false, Some(8)), None, "somebody else's");
        assert_eq!(reply(&message[..6], false, None), None);
        let mut with_header = vec![0x45; 20];
        with_header.extend(&message);
        assert_eq!(after_ipv4(&with_header), message);
    }

    #[test]
    fn this_machine_answers_itself() {
        // Without the right to open either socket nothing answers.
        if open(false).is_ok() {
            let own: IpAddr = [127, 0, 0, 1].into();
            assert_eq!(answers(&[own], SMALL), [(own, true)].into());
        }
        assert_eq!(mtu_at([127, 0, 0, 1].into()), device_mtu("lo"));
    }
}
