//! What goes around a container's frame inside the tunnel: IPv4, UDP and VXLAN (RFC 7348).

use std::{net::Ipv4Addr, ops::Range};

use super::ecn::Ecn;

/// The headers before a frame: everything that is equal in all packets of one network between two
/// tunnel addresses.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    #[expect(dead_code)]
    header: [u8; Outer::LEN],
}

impl Outer {
    /// Length in bytes: IPv4 20, UDP 8, VXLAN 8.
    pub const LEN: usize = 36;

    /// From this node's tunnel address to another's, in the network with this identifier (24 bits).
    pub fn new(_source: Ipv4Addr, _destination: Ipv4Addr, _vni: u32) -> Self {
        unimplemented!()
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

/// Reads an authentic packet: IPv4, UDP, VXLAN, Ethernet frame, and any bytes after the IPv4 packet.
pub fn receive(_packet: &[u8]) -> Result<Received, NotVxlan> {
    unimplemented!()
}
