//! How large a container's packets may be.

use std::net::IpAddr;

/// Outer Ethernet is not counted by the underlay's MTU; IPv4 (20) + UDP (8) + VXLAN (8) + inner Ethernet (14).
pub const OVERHEAD_V4: u32 = 50;
/// The same with an IPv6 header (40) outside.
pub const OVERHEAD_V6: u32 = 70;
/// What WireGuard adds: IPv4 (20) + UDP (8) + its header (16) + the tag of authenticity (16). It pads to a
/// multiple of 16, but never beyond its own MTU.
pub const WIREGUARD_V4: u32 = 60;
/// The same with an IPv6 header (40) outside.
pub const WIREGUARD_V6: u32 = 80;
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

/// The MTU of the encrypted link itself, in bytes.
pub fn tunnel(device: Option<u32>, vtep: Option<IpAddr>) -> u32 {
    let overhead = match vtep {
        None | Some(IpAddr::V4(_)) => WIREGUARD_V4,
        Some(IpAddr::V6(_)) => WIREGUARD_V6,
    };
    // What a container may send at least is not cut into pieces inside the tunnel, but outside.
    device.unwrap_or(ETHERNET).saturating_sub(overhead).max(MINIMUM + OVERHEAD_V4)
}

/// The MTU inside an encrypted network, in bytes; see [`inner`]. Inside the tunnel VXLAN goes over IPv4.
pub fn encrypted(device: Option<u32>, vtep: Option<IpAddr>, option: Option<u32>) -> u32 {
    let limit = tunnel(device, vtep) - OVERHEAD_V4;
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

    #[test]
    fn encryption_is_subtracted_too() {
        let v4 = Some("192.0.2.1".parse().unwrap());
        let v6 = Some("2001:db8::1".parse().unwrap());
        // Underlay, endpoint, the network's own option, what a container may send.
        let table = [
            (Some(1500), v4, None, 1390),
            (Some(1500), v6, None, 1370),
            (Some(1500), v4, Some(1300), 1300),
            (Some(1500), v4, Some(1450), 1390),
            (Some(1500), v6, Some(1390), 1370),
            (Some(1492), v4, None, 1382),
            (Some(9000), v4, None, 8890),
            (Some(9000), v6, None, 8870),
            (Some(9000), v6, Some(1500), 1500),
            (Some(1390), v4, None, 1280),
            (Some(1280), v6, None, 1280),
            (None, v4, None, 1390),
        ];
        for (device, vtep, option, expected) in table {
            assert_eq!(encrypted(device, vtep, option), expected, "{device:?} {vtep:?} {option:?}");
        }
        // Header, tag and the outer headers fit what is outside, to the byte.
        assert_eq!(tunnel(Some(1500), v4) + 16 + 16 + 8 + 20, 1500);
        assert_eq!(tunnel(Some(1500), v6) + 16 + 16 + 8 + 40, 1500);
    }
}
