//! The parts of an Ethernet frame.

use super::{bytes::be16, checksum::Sum, tcp};

/// Length of an Ethernet header without tags.
pub(super) const ETHERNET: usize = 14;
/// A tag of IEEE 802.1Q, and one of a provider (802.1ad).
const TAGS: [u16; 2] = [0x8100, 0x88a8];
const TAG: usize = 4;
/// 802.1ad allows two; what is deeper is no IP to us.
const MAX_TAGS: usize = 2;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Protocols of IP.
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
/// Extension headers of IPv6 that may stand before a transport.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// RFC 8200 (section 4.1) orders at most five; a frame with more than this is refused, so that nobody
/// makes us walk.
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
    /// What the checksum of a transport of so many bytes covers besides itself (RFC 9293, section 3.1;
    /// RFC 8200, section 8.1), if the packet is not routed by its source.
    pub(super) fn pseudo_header(&self, frame: &[u8], length: u16) -> Sum {
        let addresses = match self.family {
            Family::V4 => self.network + 12..self.network + 20,
            Family::V6 => self.network + 8..self.network + 40,
        };
        Sum::default().bytes(&frame[addresses]).word(u16::from(self.protocol)).word(length)
    }

    /// Of TCP, or else of UDP, from the beginning of its header.
    pub(super) fn checksum_offset(&self) -> usize {
        if self.protocol == TCP { tcp::CHECKSUM } else { 6 }
    }

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
}
