//! How large a container's packets may be.

use std::net::IpAddr;

/// Outer Ethernet is not counted by the underlay's MTU; IPv4 (20) + UDP (8) + VXLAN (8) + inner Ethernet (14).
pub const OVERHEAD_V4: u32 = 50;
/// The same with an IPv6 header (40) outside.
pub const OVERHEAD_V6: u32 = 70;
/// What Ethernet carries when nothing else is known, and the MTU of a network that leaves no node.
pub const ETHERNET: u32 = 1500;
/// Of an interface that takes the MTU of the device it is made on.
pub const OF_THE_PARENT: u32 = 0;
/// IPv6 demands links of at least this (RFC 8200, section 5).
pub const MINIMUM: u32 = 1280;

/// The MTU inside a network, in bytes: what the underlay's device leaves after encapsulation, or less if
/// the network asks for less. `vtep` is `None` on a node in no cluster.
pub fn inner(device: Option<u32>, vtep: Option<IpAddr>, option: Option<u32>) -> u32 {
    let device = device.unwrap_or(ETHERNET);
    let limit = match vtep {
        None => device,
        Some(IpAddr::V4(_)) => device.saturating_sub(OVERHEAD_V4).max(MINIMUM),
        Some(IpAddr::V6(_)) => device.saturating_sub(OVERHEAD_V6).max(MINIMUM),
    };
    option.map_or(limit, |wanted| wanted.min(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encapsulation_is_subtracted() {
        let v4 = Some("192.0.2.1".parse().unwrap());
        let v6 = Some("2001:db8::1".parse().unwrap());
        assert_eq!(inner(Some(1500), v4, None), 1450);
        assert_eq!(inner(Some(9000), v6, None), 8930);
        assert_eq!(inner(Some(1500), v4, Some(1400)), 1400);
        assert_eq!(inner(Some(1500), v4, Some(9000)), 1450);
        assert_eq!(inner(None, None, None), 1500);
        assert_eq!(inner(Some(1300), v4, None), 1280);
    }
}
