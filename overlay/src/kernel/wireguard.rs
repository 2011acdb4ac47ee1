//! WireGuard devices by generic netlink (linux/wireguard.h).
//!
//! A device is asked for in the host's namespace, where its UDP socket stays, and born in the tunnel's. Keys
//! are in the messages and nowhere else: no error and no operation prints them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use nix::sched::{CloneFlags, unshare};
use weft_wire::PeerStatus;

use super::KernelError;
use super::route::link;
use super::socket::Socket;
use super::uapi::*;
use super::wire::{Message, attribute, attributes, get_ip, get_u16, ip_bytes};
use crate::plane::{Link, LinkKind, Peer};

/// Length of `struct genlmsghdr`.
const FIXED: usize = 4;
/// A session ends after this time without a new handshake (REJECT_AFTER_TIME of the WireGuard paper,
/// section 6.1): what was authentic before may be elsewhere by now.
const SESSION: Duration = Duration::from_secs(180);

/// The number of the generic netlink family, which differs from boot to boot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family(u16);

/// A device as the kernel tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) key: Option<weft_wire::Key>,
    pub(crate) port: u16,
    pub(crate) peers: Vec<SeenPeer>,
}

/// A peer as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenPeer {
    pub(crate) key: weft_wire::Key,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) keepalive: u16,
    /// Since 1970, by the host's clock.
    pub(crate) handshake: Option<Duration>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) allowed: Vec<IpNet>,
}

impl SeenPeer {
    /// Time since its last handshake.
    pub(crate) fn handshake_age(&self, now: SystemTime) -> Option<Duration> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(now.saturating_sub(self.handshake?))
    }

    /// Whether it has a session, so that its endpoint is authentic.
    pub(crate) fn is_alive(&self, now: SystemTime) -> bool {
        self.handshake_age(now).is_some_and(|age| age < SESSION)
    }
}

/// One node's link as the sum over its keys and ours, with the endpoint of the last handshake.
pub(crate) fn status(peers: &[&SeenPeer], now: SystemTime) -> PeerStatus {
    let last = peers.iter().max_by_key(|peer| (peer.handshake, peer.endpoint.is_some()));
    PeerStatus {
        endpoint: last.and_then(|peer| peer.endpoint),
        handshake_age: last.and_then(|peer| peer.handshake_age(now)),
        sent: peers.iter().map(|peer| peer.sent).sum(),
        received: peers.iter().map(|peer| peer.received).sum(),
        ..PeerStatus::default()
    }
}

/// Whether this kernel has WireGuard: a device is made, and goes, in a namespace that nobody else sees. Where
/// it is a module this loads it.
///
/// # Errors
/// Why not, in words.
pub fn wireguard_available() -> Result<(), KernelError> {
    let thread = std::thread::Builder::new().name("weft-wireguard".to_owned()).spawn(try_out);
    let thread = thread.map_err(|error| KernelError::io("thread", &error))?;
    let panicked = |_| KernelError::errno("trying WireGuard", libc::EIO);
    thread.join().map_err(panicked)?
}

fn try_out() -> Result<(), KernelError> {
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|errno| KernelError::errno("unshare", errno as i32))?;
    let mut route = Socket::open(libc::NETLINK_ROUTE)?;
    let create = link::create("wg", &Link::bare(LinkKind::WireGuard))
        .ok_or_else(|| refusal(libc::EINVAL))?;
    let answers = route.request(vec![create]);
    let answers = answers.map_err(|error| KernelError::io("rtnetlink", &error))?;
    answers.into_iter().find(Result::is_err).unwrap_or(Ok(())).map_err(refusal)?;
    family(&mut Socket::open(libc::NETLINK_GENERIC)?).map(drop)
}

/// What a refusal to make a device means.
pub(crate) fn refusal(errno: i32) -> KernelError {
    match errno {
        // No module provides the type (rtnetlink, "Unknown device type").
        libc::EOPNOTSUPP => KernelError::Missing { what: "WireGuard", option: "CONFIG_WIREGUARD" },
        _ => KernelError::errno("making a WireGuard device", errno),
    }
}

/// Asks for the family's number.
pub(crate) fn family(socket: &mut Socket) -> Result<Family, KernelError> {
    let header = [CTRL_CMD_GETFAMILY, 1, 0, 0];
    let mut question = Message::new(GENL_ID_CTRL, NLM_F_REQUEST | NLM_F_ACK, &header);
    question.text(CTRL_ATTR_FAMILY_NAME, WG_GENL_NAME);
    let mut found = None;
    let asked = socket.ask("WireGuard's netlink family", question, |message| {
        if message.kind == GENL_ID_CTRL {
            let id = attribute(message.body, FIXED, CTRL_ATTR_FAMILY_ID);
            found = id.and_then(|value| get_u16(value, 0));
        }
    });
    match (asked, found) {
        (Ok(()), Some(id)) => Ok(Family(id)),
        (Ok(()), None) | (Err(KernelError::Refused { errno: libc::ENOENT, .. }), _) => {
            Err(refusal(libc::EOPNOTSUPP))
        }
        (Err(error), _) => Err(error),
    }
}

/// Reads a device.
pub(crate) fn read(socket: &mut Socket, family: Family, index: u32) -> Result<Device, KernelError> {
    let header = [WG_CMD_GET_DEVICE, WG_GENL_VERSION, 0, 0];
    let mut question = Message::new(family.0, NLM_F_REQUEST | NLM_F_DUMP, &header);
    question.u32(WGDEVICE_A_IFINDEX, index);
    // A device with many peers comes in several messages.
    let parts = socket.dump("WireGuard device", &question, |message, parts| {
        if message.kind == family.0 {
            parts.push(parse(message.body));
        }
    })?;
    Ok(parts.into_iter().fold(Device::default(), joined))
}

/// Puts the parts of a device together; a peer whose list was cut goes on in the next part.
fn joined(mut device: Device, part: Device) -> Device {
    device.key = device.key.or(part.key);
    device.port = device.port.max(part.port);
    for peer in part.peers {
        match device.peers.iter_mut().find(|there| there.key == peer.key) {
            Some(there) => there.allowed.extend(peer.allowed),
            None => device.peers.push(peer),
        }
    }
    device
}

fn parse(body: &[u8]) -> Device {
    let get = |kind| attribute(body, FIXED, kind);
    let peers = get(WGDEVICE_A_PEERS).unwrap_or(&[]);
    Device {
        key: get(WGDEVICE_A_PRIVATE_KEY).and_then(key),
        port: get(WGDEVICE_A_LISTEN_PORT).and_then(|value| get_u16(value, 0)).unwrap_or(0),
        peers: attributes(peers, 0).filter_map(|(_, peer)| parse_peer(peer)).collect(),
    }
}

fn parse_peer(peer: &[u8]) -> Option<SeenPeer> {
    let get = |kind| attribute(peer, 0, kind);
    let number = |kind| {
        let value = get(kind).and_then(|value| <[u8; 8]>::try_from(value).ok());
        value.map_or(0, u64::from_ne_bytes)
    };
    let allowed = get(WGPEER_A_ALLOWEDIPS).unwrap_or(&[]);
    Some(SeenPeer {
        key: get(WGPEER_A_PUBLIC_KEY).and_then(key)?,
        endpoint: get(WGPEER_A_ENDPOINT).and_then(get_endpoint),
        keepalive: get(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL)
            .and_then(|value| get_u16(value, 0))
            .unwrap_or(0),
        handshake: get(WGPEER_A_LAST_HANDSHAKE_TIME).and_then(get_time),
        received: number(WGPEER_A_RX_BYTES),
        sent: number(WGPEER_A_TX_BYTES),
        allowed: attributes(allowed, 0).filter_map(|(_, net)| get_allowed(net)).collect(),
    })
}

fn key(bytes: &[u8]) -> Option<weft_wire::Key> {
    bytes.try_into().ok().map(weft_wire::Key)
}

/// A `struct __kernel_timespec`; zero is never.
fn get_time(bytes: &[u8]) -> Option<Duration> {
    let part = |at: usize| {
        let bytes = bytes.get(at..at + 8)?.try_into().ok()?;
        u64::try_from(i64::from_ne_bytes(bytes)).ok()
    };
    let (seconds, nanoseconds) = (part(0)?, u32::try_from(part(8)?).ok()?);
    (seconds != 0 || nanoseconds != 0).then(|| Duration::new(seconds, nanoseconds))
}

fn get_allowed(net: &[u8]) -> Option<IpNet> {
    let address = attribute(net, 0, WGALLOWEDIP_A_IPADDR).and_then(get_ip)?;
    let length = *attribute(net, 0, WGALLOWEDIP_A_CIDR_MASK)?.first()?;
    IpNet::new(address, length).ok()
}

/// A `struct sockaddr_in` or `sockaddr_in6`.
fn get_endpoint(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let address: IpAddr = match i32::from(get_u16(bytes, 0)?) {
        libc::AF_INET => Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?).into(),
        libc::AF_INET6 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

/// The same, written: family, port, and for IPv6 no flow, the address, no scope.
fn endpoint_bytes(endpoint: SocketAddr) -> Vec<u8> {
    let family = super::wire::family_byte(endpoint.ip());
    let mut bytes = u16::from(family).to_ne_bytes().to_vec();
    bytes.extend(endpoint.port().to_be_bytes());
    if endpoint.is_ipv6() {
        bytes.extend([0; 4]);
    }
    bytes.extend(ip_bytes(endpoint.ip()));
    let length = if endpoint.is_ipv6() {
        size_of::<libc::sockaddr_in6>()
    } else {
        size_of::<libc::sockaddr_in>()
    };
    bytes.resize(length, 0);
    bytes
}

fn change(family: Family, index: u32) -> Message {
    let header = [WG_CMD_SET_DEVICE, WG_GENL_VERSION, 0, 0];
    let mut message = Message::new(family.0, NLM_F_REQUEST | NLM_F_ACK, &header);
    message.u32(WGDEVICE_A_IFINDEX, index);
    message
}

/// Gives a device its key and port.
pub(crate) fn write_secret(family: Family, index: u32, key: weft_wire::Key, port: u16) -> Message {
    let mut message = change(family, index);
    message.put(WGDEVICE_A_PRIVATE_KEY, &key.0);
    message.put(WGDEVICE_A_LISTEN_PORT, &port.to_ne_bytes());
    message
}

/// Makes or changes a peer. Without an endpoint it stays where it is.
pub(crate) fn write_peer(family: Family, index: u32, peer: &Peer) -> Message {
    let mut message = change(family, index);
    one_peer(&mut message, peer, WGPEER_F_REPLACE_ALLOWEDIPS, |item| {
        if let Some(endpoint) = peer.endpoint {
            item.put(WGPEER_A_ENDPOINT, &endpoint_bytes(endpoint));
        }
        item.put(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, &peer.keepalive.to_ne_bytes());
        item.nest(WGPEER_A_ALLOWEDIPS, |list| {
            for net in &peer.allowed {
                list.nest(0, |allowed| {
                    let family = u16::from(super::wire::family_byte(net.addr()));
                    allowed.put(WGALLOWEDIP_A_FAMILY, &family.to_ne_bytes());
                    allowed.put(WGALLOWEDIP_A_IPADDR, &ip_bytes(net.addr()));
                    allowed.put(WGALLOWEDIP_A_CIDR_MASK, &[net.prefix_len()]);
                });
            }
        });
    });
    message
}

/// Removes a peer.
pub(crate) fn remove_peer(family: Family, index: u32, peer: &Peer) -> Message {
    let mut message = change(family, index);
    one_peer(&mut message, peer, WGPEER_F_REMOVE_ME, |_| {});
    message
}

fn one_peer(message: &mut Message, peer: &Peer, flags: u32, fill: impl FnOnce(&mut Message)) {
    message.nest(WGDEVICE_A_PEERS, |peers| {
        peers.nest(0, |item| {
            item.put(WGPEER_A_PUBLIC_KEY, &peer.key.0).u32(WGPEER_A_FLAGS, flags);
            fill(item);
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::wire::messages;

    const FAMILY: Family = Family(0x21);

    fn peer(endpoint: &str) -> Peer {
        Peer {
            link: "weft-wg0".into(),
            key: weft_wire::Key([7; 32]),
            allowed: vec!["100.64.0.4/32".parse().unwrap()],
            endpoint: endpoint.parse().ok(),
            keepalive: 25,
        }
    }

    /// The bytes as `wg set` of wireguard-tools sends them, but for what is ours: the sequence number.
    #[test]
    fn a_peer_is_written_as_the_header_says() {
        let bytes = write_peer(FAMILY, 3, &peer("192.0.2.2:51822")).finish(1);
        let mut expected: Vec<u8> = vec![
            140, 0, 0, 0, 0x21, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, // nlmsghdr
            1, 1, 0, 0, // WG_CMD_SET_DEVICE
            8, 0, 1, 0, 3, 0, 0, 0, // ifindex
            112, 0, 8, 0x80, 108, 0, 0, 0x80, // peers, the first
            36, 0, 1, 0, // public key
        ];
        expected.extend([7; 32]);
        expected.extend([8, 0, 3, 0, 2, 0, 0, 0]); // replace the allowed addresses
        expected.extend([20, 0, 4, 0, 2, 0, 0xca, 0x6e, 192, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([6, 0, 5, 0, 25, 0, 0, 0]); // keepalive
        expected.extend([32, 0, 9, 0x80, 28, 0, 0, 0x80]);
        expected
            .extend([6, 0, 1, 0, 2, 0, 0, 0, 8, 0, 2, 0, 100, 64, 0, 4, 5, 0, 3, 0, 32, 0, 0, 0]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_is_written_can_be_read() {
        for endpoint in ["192.0.2.2:51822", "[2001:db8::2]:51823"] {
            let mut message = write_peer(FAMILY, 3, &peer(endpoint));
            message.put(WGDEVICE_A_PRIVATE_KEY, &[9; 32]);
            message.put(WGDEVICE_A_LISTEN_PORT, &51820u16.to_ne_bytes());
            let bytes = message.finish(1);
            let device = parse(messages(&bytes).next().unwrap().body);
            assert_eq!((device.key, device.port), (Some(weft_wire::Key([9; 32])), 51820));
            let [seen] = &device.peers[..] else { panic!("{device:?}") };
            assert_eq!(seen.endpoint, endpoint.parse().ok());
            assert_eq!((seen.keepalive, seen.handshake), (25, None));
            assert_eq!(seen.allowed, peer(endpoint).allowed);
        }
    }

    #[test]
    fn a_peer_that_is_cut_goes_on_in_the_next_part() {
        let one = |net: &str| {
            let allowed = vec![net.parse().unwrap()];
            let bytes = write_peer(FAMILY, 3, &Peer { allowed, ..peer("") }).finish(1);
            parse(messages(&bytes).next().unwrap().body)
        };
        let whole = joined(joined(Device::default(), one("100.64.0.4/32")), one("100.64.0.5/32"));
        assert_eq!(whole.peers.len(), 1);
        assert_eq!(whole.peers[0].allowed.len(), 2);
        assert_eq!(whole.peers[0].endpoint, None);
    }

    #[test]
    fn a_session_is_over_after_three_minutes() {
        let bytes = write_peer(FAMILY, 3, &peer("")).finish(1);
        let mut seen = parse(messages(&bytes).next().unwrap().body).peers.remove(0);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert!(!seen.is_alive(now));
        seen.handshake = get_time(&[821i64.to_ne_bytes(), 0i64.to_ne_bytes()].concat());
        assert!(seen.is_alive(now));
        assert!(!seen.is_alive(now + Duration::from_secs(1)));
        assert_eq!(get_time(&[0; 16]), None);
    }

    #[test]
    fn no_key_is_printed() {
        let device = Device { key: Some(weft_wire::Key([9; 32])), ..Device::default() };
        assert!(!format!("{device:?}{:?}", peer("")).contains("9, 9"), "{device:?}");
    }

    #[test]
    fn a_kernel_without_it_says_so() {
        assert_eq!(
            refusal(libc::EOPNOTSUPP).to_string(),
            "this kernel has no WireGuard (CONFIG_WIREGUARD)"
        );
    }
}
