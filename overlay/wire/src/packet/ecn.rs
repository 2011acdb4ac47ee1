//! Explicit congestion notification through tunnels (RFC 6040).

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

    /// What a header has after the tunnel around it had `outer` (RFC 6040, figure 4).
    pub fn after(self, _outer: Self) -> Result<Self, CongestionLost> {
        unimplemented!()
    }
}

/// Merges what the tunnel's header had at its end into the IP header of the frame, if it has one.
pub fn leave_tunnel(_outer: Ecn, _frame: &mut [u8]) -> Result<(), CongestionLost> {
    unimplemented!()
}
