//! What an Ethernet frame says of itself.

use std::net::IpAddr;

use crate::Mac;

/// Why a frame cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    #[error("the frame is shorter than its headers say")]
    Truncated,
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
pub fn claims(_frame: &[u8]) -> Result<Claims, BadFrame> {
    unimplemented!()
}

/// Where the frame goes.
pub fn destination(_frame: &[u8]) -> Result<Destination, BadFrame> {
    unimplemented!()
}

/// The same for all packets of a flow. Ports of UDP take the low 14 bits; for the choice of a lane take
/// others. Fragments count only by their addresses, what is not IP by its hardware addresses.
pub fn flow_hash(_frame: &[u8]) -> u32 {
    unimplemented!()
}
