//! What goes around a container's frame inside the tunnel: IPv4, UDP and VXLAN (RFC 7348).

use std::{net::Ipv4Addr, ops::Range};

use super::{
    bytes::{be16, be32, put16},
    checksum::Sum,
    ecn::Ecn,
    frame::{ETHERNET, UDP},
};

/// UDP port of VXLAN.
const VXLAN_PORT: u16 = 4789;
/// The first of the ports that RFC 7348 (section 5) recommends as sources: 16,384 of them.
const FIRST_SOURCE_PORT: u16 = 49152;
/// "I": there is a network identifier.
const VXLAN_IDENTIFIED: u8 = 0x08;

const IPV4: usize = 20;
const UDP_HEADER: usize = 8;
const VXLAN: usize = 8;

/// `IP_DF` and `IP_MF | IP_OFFSET`
const DONT_FRAGMENT: u16 = 0x4000;
const FRAGMENT: u16 = 0x3fff;

/// The headers before a frame: everything that is equal in all packets of one network between two
/// tunnel addresses.
///
/// The differentiated services stay zero, as in the kernel's VXLAN and WireGuard: what a container
/// writes there must not reach the underlay. There is no UDP checksum, since the seal around it is
/// stronger. It must not be fragmented, so that its identification may be always the same (RFC 6864).
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    header: [u8; Outer::LEN],
    /// Of the IPv4 header without length and traffic class.
    sum: Sum,
}

impl Outer {
    /// Length in bytes: IPv4 20, UDP 8, VXLAN 8.
    pub const LEN: usize = IPV4 + UDP_HEADER + VXLAN;

    /// From this node's tunnel address to another's, in the network with this identifier (24 bits).
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, vni: u32) -> Self {
        let mut header = [0; Self::LEN];
        header[0] = 0x45;
        put16(&mut header, 6, DONT_FRAGMENT);
        header[8] = 64;
        header[9] = UDP;
        header[12..16].copy_from_slice(&source.octets());
        header[16..20].copy_from_slice(&destination.octets());
        put16(&mut header, 22, VXLAN_PORT);
        header[28] = VXLAN_IDENTIFIED;
        header[32..36].copy_from_slice(&(vni << 8).to_be_bytes());
        let sum = Sum::default().bytes(&header[..IPV4]);
        Self { header, sum }
    }

    /// Writes the headers of a frame of `length` bytes, of the flow with this hash.
    pub(super) fn write(&self, out: &mut [u8; Self::LEN], length: u16, hash: u32, ecn: Ecn) {
        *out = self.header;
        let total = Self::LEN as u16 + length;
        out[1] = ecn.class();
        put16(out, 2, total);
        let sum = self.sum.word(u16::from(ecn.class())).word(total).finish();
        out[10..12].copy_from_slice(&sum);
        put16(out, 20, FIRST_SOURCE_PORT | hash as u16 & !FIRST_SOURCE_PORT);
        put16(out, 24, total - IPV4 as u16);
    }
}

/// A packet that came out of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// VXLAN network identifier.
    pub vni: u32,
    /// The tunnel address that it comes from.
    pub source: Ipv4Addr,
    /// The tunnel address that it was sent to.
    pub destination: Ipv4Addr,
    /// Of the header inside the tunnel; the underlay's is outside of it.
    pub ecn: Ecn,
    /// Where in the packet the Ethernet frame lies.
    pub frame: Range<usize>,
}

/// Why a packet out of the tunnel is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotVxlan {
    #[error("it is shorter than its headers say")]
    Truncated,
    #[error("it is not IPv4")]
    Version,
    #[error("the length of its IP header or packet cannot be")]
    Length,
    #[error("the checksum of its IP header is wrong")]
    Checksum,
    #[error("it is a fragment")]
    Fragment,
    #[error("it is not UDP to port 4789")]
    Protocol,
    #[error("it has no VXLAN network identifier")]
    Unidentified,
}

/// Reads an authentic packet: IPv4, UDP, VXLAN, Ethernet frame, and any bytes after the IPv4 packet
/// (WireGuard pads to 16).
///
/// The UDP checksum, which a kernel may have set, is not looked at: the seal covers the same bytes.
/// Reserved flags of VXLAN are ignored, as RFC 7348 wants.
pub fn receive(packet: &[u8]) -> Result<Received, NotVxlan> {
    let (header, udp) = ipv4(packet)?;
    if header[9] != UDP {
        return Err(NotVxlan::Protocol);
    }
    let begin = header.len() + UDP_HEADER + VXLAN;
    if udp.len() < UDP_HEADER + VXLAN {
        return Err(NotVxlan::Truncated);
    }
    if be16(udp, 2) != VXLAN_PORT {
        return Err(NotVxlan::Protocol);
    }
    let length = usize::from(be16(udp, 4));
    if length > udp.len() || length < UDP_HEADER + VXLAN + ETHERNET {
        return Err(NotVxlan::Length);
    }
    if udp[UDP_HEADER] & VXLAN_IDENTIFIED == 0 {
        return Err(NotVxlan::Unidentified);
    }
    Ok(Received {
        vni: be32(udp, 12) >> 8,
        source: Ipv4Addr::from(be32(header, 12)),
        destination: Ipv4Addr::from(be32(header, 16)),
        ecn: Ecn::of_class(header[1]),
        frame: begin..header.len() + length,
    })
}

/// The header of an IPv4 packet that is whole, and what it carries.
fn ipv4(packet: &[u8]) -> Result<(&[u8], &[u8]), NotVxlan> {
    if packet.len() < IPV4 {
        return Err(NotVxlan::Truncated);
    }
    if packet[0] >> 4 != 4 {
        return Err(NotVxlan::Version);
    }
    let header = usize::from(packet[0] & 0xf) * 4;
    let total = usize::from(be16(packet, 2));
    if header < IPV4 || total < header {
        return Err(NotVxlan::Length);
    }
    let packet = packet.get(..total).ok_or(NotVxlan::Truncated)?;
    let (header, body) = packet.split_at(header);
    if !Sum::default().bytes(header).is_right() {
        return Err(NotVxlan::Checksum);
    }
    if be16(header, 6) & FRAGMENT != 0 {
        return Err(NotVxlan::Fragment);
    }
    Ok((header, body))
}
