//! Hardware addresses are derived from network addresses, so that a static forwarding row never lies.

use std::{hash::Hasher, net::IpAddr};

use siphasher::sip::SipHasher13;

/// The locally administered hardware address of the holder of `addresses`: `02:42` and the IPv4
/// address, as Docker has it; for a holder without one, `02:57` and a hash of the IPv6 address.
pub fn derive(addresses: &[IpAddr]) -> [u8; 6] {
    let ipv4 = addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(address.octets()),
        IpAddr::V6(_) => None,
    });
    if let Some([a, b, c, d]) = ipv4 {
        return [0x02, 0x42, a, b, c, d];
    }
    let mut hasher = SipHasher13::new();
    for address in addresses {
        if let IpAddr::V6(address) = address {
            hasher.write(&address.octets());
        }
    }
    let [a, b, c, d, ..] = hasher.finish().to_be_bytes();
    [0x02, 0x57, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_shows_in_it_and_ipv6_differs() {
        let v4 = "10.0.0.2".parse().unwrap();
        let (a, b) = ("fd00::2".parse().unwrap(), "fd00::3".parse().unwrap());
        assert_eq!(derive(&[a, v4]), [2, 0x42, 10, 0, 0, 2]);
        assert_ne!(derive(&[a]), derive(&[b]));
    }
}
