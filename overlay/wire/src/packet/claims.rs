//! Who a frame says that it comes from, and where it goes.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    bytes::{be32, ipv6},
    frame::{BadFrame, Family, Layers, layers, link},
};
use crate::Mac;

const ETHERTYPE_ARP: u16 = 0x0806;
/// Protocol of IP.
const ICMPV6: u8 = 58;

/// Who a frame says that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The hardware address; ARP and neighbour messages that name another one are errors.
    pub source: Mac,
    /// The source of the IP packet or the sender of the ARP message, unless it is unspecified
    /// (`0.0.0.0`, `::`).
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
        address: ip_source(frame, &layers),
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

/// The source of an IP packet, unless it is unspecified.
fn ip_source(frame: &[u8], layers: &Layers) -> Option<IpAddr> {
    let address = match layers.family {
        Family::V4 => Ipv4Addr::from(be32(frame, layers.network + 12)).into(),
        Family::V6 => ipv6(frame, layers.network + 8).into(),
    };
    specified(address)
}

fn mac(frame: &[u8], at: usize) -> Mac {
    let mut mac = Mac::default();
    mac.copy_from_slice(&frame[at..at + 6]);
    mac
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
        // Of routers: solicitations, advertisements; of neighbours: the same; redirects.
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
