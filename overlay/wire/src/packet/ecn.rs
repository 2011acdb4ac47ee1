//! Explicit congestion notification through tunnels (RFC 6040).

use super::{
    bytes::{be16, put16},
    checksum::Sum,
    frame::{Family, link},
};

/// The two lowest bits of an IP header's traffic class (RFC 3168).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ecn {
    /// The flow does not know of it (00).
    #[default]
    NotCapable,
    /// ECT(1) (01).
    Capable1,
    /// ECT(0) (10).
    Capable0,
    /// A router was congested (11).
    Congested,
}

/// A router was congested and the flow cannot be told but by the loss of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("congestion on the way of a flow without ECN")]
pub struct CongestionLost;

impl Ecn {
    /// Of a traffic class, as `IP_TOS` and `IPV6_TCLASS` control messages give it.
    pub fn of_class(class: u8) -> Self {
        match class & 3 {
            0 => Self::NotCapable,
            1 => Self::Capable1,
            2 => Self::Capable0,
            _ => Self::Congested,
        }
    }

    /// As a traffic class with no other bit set.
    pub fn class(self) -> u8 {
        match self {
            Self::NotCapable => 0,
            Self::Capable1 => 1,
            Self::Capable0 => 2,
            Self::Congested => 3,
        }
    }

    /// What a header has after the tunnel around it had `outer` (RFC 6040, figure 4).
    pub fn after(self, outer: Self) -> Result<Self, CongestionLost> {
        match (self, outer) {
            (Self::NotCapable, Self::Congested) => Err(CongestionLost),
            (Self::NotCapable, _) => Ok(Self::NotCapable),
            (_, Self::Congested) => Ok(Self::Congested),
            (Self::Capable0, Self::Capable1) => Ok(Self::Capable1),
            (inner, _) => Ok(inner),
        }
    }

    /// Of a frame's IP header; what is not IP, or too short for it, is not capable.
    pub(super) fn of_frame(frame: &[u8]) -> Self {
        place(frame).map_or(Self::NotCapable, |place| Self::of_class(place.class(frame)))
    }
}

/// Merges what the tunnel's header had at its end into the IP header of the frame, if it has one.
///
/// Leave the tunnels from outside to inside: first `inner.after(underlay)` for the header inside the
/// tunnel, then this with the result.
pub fn leave_tunnel(outer: Ecn, frame: &mut [u8]) -> Result<(), CongestionLost> {
    // These two change nothing inside, whatever is there.
    if matches!(outer, Ecn::NotCapable | Ecn::Capable0) {
        return Ok(());
    }
    let Some(place) = place(frame) else { return Ok(()) };
    let class = place.class(frame);
    let inner = Ecn::of_class(class);
    let merged = inner.after(outer)?;
    if merged != inner {
        place.set(frame, class & !3 | merged.class());
    }
    Ok(())
}

/// Where a traffic class lies.
#[derive(Clone, Copy)]
struct Place {
    family: Family,
    /// Offset of the IP header, whose fixed part is there.
    network: usize,
}

fn place(frame: &[u8]) -> Option<Place> {
    let (ethertype, network) = link(frame).ok()?;
    let family = Family::of_ethertype(ethertype)?;
    (frame.len() >= network + family.fixed_length()).then_some(Place { family, network })
}

impl Place {
    fn class(self, frame: &[u8]) -> u8 {
        match self.family {
            Family::V4 => frame[self.network + 1],
            Family::V6 => (be16(frame, self.network) >> 4) as u8,
        }
    }

    fn set(self, frame: &mut [u8], class: u8) {
        let old = be16(frame, self.network);
        match self.family {
            Family::V4 => {
                frame[self.network + 1] = class;
                let new = be16(frame, self.network);
                let sum = Sum::default().less(be16(frame, self.network + 10)).less(old).word(new);
                frame[self.network + 10..self.network + 12].copy_from_slice(&sum.finish());
            }
            Family::V6 => put16(frame, self.network, old & 0xf00f | u16::from(class) << 4),
        }
    }
}
