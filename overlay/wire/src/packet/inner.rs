//! What an Ethernet frame says of itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::bytes::{be16, be32};
use crate::Mac;

/// Length of an Ethernet header without tags.
pub(super) const ETHERNET: usize = 14;
/// A tag of IEEE 802.1Q, and one of a provider (802.1ad).
const TAGS: [u16; 2] = [0x8100, 0x88a8];
const TAG: usize = 4;
/// 802.1ad allows two; what is deeper is no IP to us.
const MAX_TAGS: usize = 2;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Protocols of IP.
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// Extension headers of IPv6 that may stand before a transport.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// RFC 8200 (section 4.1) orders at most five; a frame with more than this is refused, so that nobody makes us walk.
const MAX_EXTENSIONS: usize = 8;

/// Why a frame cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    #[error("the frame is shorter than its headers say")]
    Truncated,
    #[error("the frame is longer than a packet can be")]
    TooLong,
    #[error("the IP header contradicts itself or the frame")]
    Network,
    #[error("the header of the transport contradicts itself or the frame")]
    Transport,
    #[error("the device's header does not fit the frame")]
    Offload,
    #[error("an ARP or neighbour message tells of another hardware address than it comes from")]
    Neighbor,
}

/// Who a frame says that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The hardware address; ARP and neighbour messages that name another one are errors.
    pub source: Mac,
    /// The source of the IP packet or the sender of the ARP message, unless it is unspecified (`0.0.0.0`, `::`).
    pub address: Option<IpAddr>,
    /// The target of a neighbour advertisement.
    pub advertised: Option<IpAddr>,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    One(Mac),
    /// Broadcast or multicast.
    Many,
}

/// Who the frame says that it comes from.
///
/// A host learns neighbours from the source of IP packets only by asking, from ARP senders, and from
/// the link-layer options of neighbour messages (RFC 4861): these are what must be true.
pub fn claims(frame: &[u8]) -> Result<Claims, BadFrame> {
    let (ethertype, network) = link(frame)?;
    let source = mac(frame, 6);
    let claims = Claims { source, address: None, advertised: None };
    if ethertype == ETHERTYPE_ARP {
        return Ok(Claims { address: arp_sender(&frame[network..], source)?, ..claims });
    }
    let Some(layers) = layers(frame)? else { return Ok(claims) };
    Ok(Claims {
        address: layers.source(frame),
        advertised: advertised(frame, &layers, source)?,
        ..claims
    })
}

/// Where the frame goes.
pub fn destination(frame: &[u8]) -> Result<Destination, BadFrame> {
    link(frame)?;
    // The lowest bit of the first byte tells groups from single interfaces (IEEE 802).
    Ok(if frame[0] & 1 == 0 { Destination::One(mac(frame, 0)) } else { Destination::Many })
}

/// The same for all packets of a flow. Source ports of UDP take the low 14 bits; for the choice of a lane
/// take others. Fragments count only by their addresses, what is not IP by its hardware addresses.
pub fn flow_hash(frame: &[u8]) -> u32 {
    match layers(frame) {
        Ok(Some(layers)) => layers.hash(frame),
        _ => hardware_hash(frame),
    }
}

/// Of frames that are not IP.
pub(super) fn hardware_hash(frame: &[u8]) -> u32 {
    let mut hardware = [0; 16];
    let known = frame.len().min(2 * size_of::<Mac>());
    hardware[..known].copy_from_slice(&frame[..known]);
    let (high, low) = halves(u128::from_ne_bytes(hardware));
    spread(mix(high, low))
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of_ethertype(ethertype: u16) -> Option<Self> {
        match ethertype {
            ETHERTYPE_IPV4 => Some(Self::V4),
            ETHERTYPE_IPV6 => Some(Self::V6),
            _ => None,
        }
    }

    /// Of the header without options or extensions.
    pub(super) fn fixed_length(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }
}

/// The type of what an Ethernet frame carries, and where that begins.
pub(super) fn link(frame: &[u8]) -> Result<(u16, usize), BadFrame> {
    if frame.len() < ETHERNET {
        return Err(BadFrame::Truncated);
    }
    let mut network = ETHERNET;
    for _ in 0..MAX_TAGS {
        if !TAGS.contains(&be16(frame, network - 2)) {
            break;
        }
        network += TAG;
        if frame.len() < network {
            return Err(BadFrame::Truncated);
        }
    }
    Ok((be16(frame, network - 2), network))
}

/// Where the parts of an IP packet lie in its frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layers {
    pub(super) family: Family,
    /// Offset of the IP header.
    pub(super) network: usize,
    /// Offset of what comes after the IP header and its extensions.
    pub(super) transport: usize,
    /// What is there.
    pub(super) protocol: u8,
    /// It is a fragment, so that there may be no transport's header.
    pub(super) fragment: bool,
    /// Offset of the first byte after the packet; the rest of the frame is padding.
    pub(super) end: usize,
}

/// Of a frame that carries IP; `network <= transport <= end <= frame.len()`.
pub(super) fn layers(frame: &[u8]) -> Result<Option<Layers>, BadFrame> {
    let (ethertype, network) = link(frame)?;
    match Family::of_ethertype(ethertype) {
        Some(Family::V4) => layers4(frame, network).map(Some),
        Some(Family::V6) => layers6(frame, network).map(Some),
        None => Ok(None),
    }
}

fn layers4(frame: &[u8], network: usize) -> Result<Layers, BadFrame> {
    let packet = &frame[network..];
    if packet.len() < Family::V4.fixed_length() {
        return Err(BadFrame::Truncated);
    }
    let header = usize::from(packet[0] & 0xf) * 4;
    let total = usize::from(be16(packet, 2));
    if packet[0] >> 4 != 4 || header < Family::V4.fixed_length() || total < header {
        return Err(BadFrame::Network);
    }
    if total > packet.len() {
        return Err(BadFrame::Truncated);
    }
    Ok(Layers {
        family: Family::V4,
        network,
        transport: network + header,
        protocol: packet[9],
        // "More fragments" and the offset (RFC 791).
        fragment: be16(packet, 6) & 0x3fff != 0,
        end: network + total,
    })
}

fn layers6(frame: &[u8], network: usize) -> Result<Layers, BadFrame> {
    let packet = &frame[network..];
    if packet.len() < Family::V6.fixed_length() {
        return Err(BadFrame::Truncated);
    }
    if packet[0] >> 4 != 6 {
        return Err(BadFrame::Network);
    }
    let total = Family::V6.fixed_length() + usize::from(be16(packet, 4));
    let packet = packet.get(..total).ok_or(BadFrame::Truncated)?;
    let mut layers = Layers {
        family: Family::V6,
        network,
        transport: network + Family::V6.fixed_length(),
        protocol: packet[6],
        fragment: false,
        end: network + total,
    };
    if is_extension(layers.protocol) {
        layers.skip_extensions(frame)?;
    }
    Ok(layers)
}

fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}

impl Layers {
    fn skip_extensions(&mut self, frame: &[u8]) -> Result<(), BadFrame> {
        for _ in 0..=MAX_EXTENSIONS {
            // What follows the header of a later fragment is no header.
            if !is_extension(self.protocol) || self.fragment {
                return Ok(());
            }
            let rest = &frame[self.transport..self.end];
            let &[next, units, ..] = rest else { return Err(BadFrame::Network) };
            let length = match self.protocol {
                FRAGMENT => 8,
                _ => 8 + usize::from(units) * 8,
            };
            if rest.len() < length {
                return Err(BadFrame::Network);
            }
            // "M" and the offset (RFC 8200, section 4.5); with neither it is the whole packet.
            self.fragment = self.protocol == FRAGMENT && be16(rest, 2) & 0xfff9 != 0;
            self.transport += length;
            self.protocol = next;
        }
        Err(BadFrame::Network)
    }

    /// The source, unless it is unspecified.
    fn source(&self, frame: &[u8]) -> Option<IpAddr> {
        let address = match self.family {
            Family::V4 => Ipv4Addr::from(be32(frame, self.network + 12)).into(),
            Family::V6 => ipv6(frame, self.network + 8).into(),
        };
        specified(address)
    }

    /// See [`flow_hash`].
    pub(super) fn hash(&self, frame: &[u8]) -> u32 {
        let ports =
            matches!(self.protocol, TCP | UDP) && !self.fragment && self.end >= self.transport + 4;
        let ports = if ports { be32(frame, self.transport) } else { 0 };
        // The fragments of IPv6 do not agree on what comes next.
        let protocol = if self.fragment { 0 } else { self.protocol };
        let flow = u64::from(ports) << 8 | u64::from(protocol);
        spread(match self.family {
            Family::V4 => {
                let addresses = u64::from(be32(frame, self.network + 12)) << 32
                    | u64::from(be32(frame, self.network + 16));
                mix(addresses, flow)
            }
            Family::V6 => {
                let (high, low) = halves(ipv6(frame, self.network + 8).to_bits());
                let source = mix(high, low);
                let (high, low) = halves(ipv6(frame, self.network + 24).to_bits());
                mix(source ^ flow, mix(high, low))
            }
        })
    }
}

fn mac(frame: &[u8], at: usize) -> Mac {
    let mut mac = Mac::default();
    mac.copy_from_slice(&frame[at..at + 6]);
    mac
}

fn ipv6(bytes: &[u8], at: usize) -> Ipv6Addr {
    let mut address = [0; 16];
    address.copy_from_slice(&bytes[at..at + 16]);
    address.into()
}

fn specified(address: IpAddr) -> Option<IpAddr> {
    Some(address).filter(|address| !address.is_unspecified())
}

/// The sender of an ARP message of IPv4 over Ethernet (RFC 826). Other kinds cannot be checked.
fn arp_sender(message: &[u8], source: Mac) -> Result<Option<IpAddr>, BadFrame> {
    /// Ethernet, IPv4, addresses of six and four bytes.
    const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
    const LENGTH: usize = 28;
    if message.len() < LENGTH {
        return Err(BadFrame::Truncated);
    }
    if message[..6] != KIND || message[8..14] != source {
        return Err(BadFrame::Neighbor);
    }
    Ok(specified(Ipv4Addr::from(be32(message, 14)).into()))
}

/// The target of a neighbour advertisement. Every link-layer address in a neighbour message (RFC 4861,
/// section 4) must be the sender's own: also in redirects, which nobody needs to send here.
fn advertised(frame: &[u8], layers: &Layers, source: Mac) -> Result<Option<IpAddr>, BadFrame> {
    const ADVERTISEMENT: u8 = 136;
    if layers.family != Family::V6 || layers.protocol != ICMPV6 || layers.fragment {
        return Ok(None);
    }
    let message = &frame[layers.transport..layers.end];
    let fixed = match message.first() {
        // Solicitations of routers, their advertisements, solicitations of neighbours, their advertisements, redirects.
        Some(133) => 8,
        Some(134) => 16,
        Some(135 | 136) => 24,
        Some(137) => 40,
        _ => return Ok(None),
    };
    let mut options = message.get(fixed..).ok_or(BadFrame::Truncated)?;
    while let &[kind, units, ..] = options {
        let length = usize::from(units) * 8;
        let option = options.get(..length).filter(|option| !option.is_empty());
        let option = option.ok_or(BadFrame::Transport)?;
        // Source and target link-layer address.
        if matches!(kind, 1 | 2) && option[2..8] != source {
            return Err(BadFrame::Neighbor);
        }
        options = &options[length..];
    }
    Ok((message[0] == ADVERTISEMENT).then(|| ipv6(message, 8).into()))
}

/// Both halves of the product with these constants, from the digits of pi, depend on all bits of both.
fn mix(left: u64, right: u64) -> u64 {
    let (left, right) = (left ^ 0x243f_6a88_85a3_08d3, right ^ 0x1319_8a2e_0370_7344);
    let (high, low) = halves(u128::from(left) * u128::from(right));
    high ^ low
}

fn spread(hash: u64) -> u32 {
    (hash >> 32) as u32 ^ hash as u32
}

fn halves(number: u128) -> (u64, u64) {
    ((number >> 64) as u64, number as u64)
}
