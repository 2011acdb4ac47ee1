//! Which packets belong together.

use super::{
    bytes::{be32, ipv6},
    frame::{Family, Layers, TCP, UDP, layers},
};
use crate::Mac;

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

impl Layers {
    /// See [`flow_hash`].
    pub(super) fn hash(&self, frame: &[u8]) -> u32 {
        let ports =
            matches!(self.protocol, TCP | UDP) && !self.fragment && self.end >= self.transport + 4;
        let ports = if ports { be32(frame, self.transport) } else { 0 };
        // Only the first fragment of IPv6 must say what it is a part of (RFC 8200, section 4.5).
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
