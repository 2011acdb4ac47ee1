//! Cutting subnets out of pools, and telling whether prefixes overlap.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::Exhausted;

/// Whether two prefixes share an address.
pub fn overlaps(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// The first subnet of `length` bits, in the order of `pools`, that overlaps nothing in `used`.
///
/// A pool that is itself longer than `length` is given out whole.
///
/// # Errors
/// [`Exhausted`] naming the pools when no such subnet is left.
pub fn choose_subnet(pools: &[IpNet], length: u8, used: &[IpNet]) -> Result<IpNet, Exhausted> {
    pools.iter().find_map(|pool| first_free(*pool, length, used)).ok_or_else(|| {
        let size = pools.iter().map(|pool| count(*pool, length)).sum();
        Exhausted {
            pool: pools.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            used: size,
            size,
        }
    })
}

/// The unique local prefix (RFC 4193 section 3.2.2) of 64 bits for a 40-bit global ID and a subnet
/// number.
pub fn unique_local(global_id: u64, subnet: u16) -> IpNet {
    let bits = (0xfd_u128 << 120)
        | (u128::from(global_id & 0xff_ffff_ffff) << 80)
        | (u128::from(subnet) << 64);
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(bits), 64))
}

fn count(pool: IpNet, length: u8) -> u128 {
    1u128 << u32::from(length.saturating_sub(pool.prefix_len())).min(127)
}

/// Walks the pool in steps of the subnet's size, and leaps over each used prefix that is larger than
/// a step, so that a nearly full pool costs as many steps as it has users.
fn first_free(pool: IpNet, length: u8, used: &[IpNet]) -> Option<IpNet> {
    let length = length.max(pool.prefix_len()).min(pool.max_prefix_len());
    let last = bits(pool.broadcast());
    let mut at = bits(pool.network());
    loop {
        let candidate = net(pool, at, length);
        let Some(taken) = used.iter().find(|used| overlaps(**used, candidate)) else {
            return Some(candidate);
        };
        let end = bits(taken.broadcast()).max(bits(candidate.broadcast()));
        at = end.checked_add(1)?;
        if end >= last {
            return None;
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn net(family: IpNet, bits: u128, length: u8) -> IpNet {
    match family {
        // The value came from an IPv4 pool, so it fits 32 bits.
        IpNet::V4(_) => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(bits as u32), length).trunc()),
        IpNet::V6(_) => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(bits), length).trunc()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn n(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn leaps_over_what_is_used() {
        let pools = [n("10.0.0.0/8")];
        assert_eq!(choose_subnet(&pools, 24, &[]), Ok(n("10.0.0.0/24")));
        assert_eq!(choose_subnet(&pools, 24, &[n("10.0.0.0/16")]), Ok(n("10.1.0.0/24")));
        assert_eq!(choose_subnet(&pools, 24, &[n("10.0.0.7/32")]), Ok(n("10.0.1.0/24")));
        assert_eq!(choose_subnet(&[n("10.0.0.0/30")], 24, &[]), Ok(n("10.0.0.0/30")));
    }

    #[test]
    fn says_which_pools_are_full() {
        let error = choose_subnet(&[n("10.0.0.0/23")], 24, &[n("0.0.0.0/0")]).unwrap_err();
        assert_eq!(error.to_string(), "10.0.0.0/23 is exhausted: 2 of 2 in use");
    }

    #[test]
    fn goes_to_the_last_subnet_of_the_address_space() {
        let used = [n("255.255.254.0/24")];
        assert_eq!(choose_subnet(&[n("255.255.254.0/23")], 24, &used), Ok(n("255.255.255.0/24")));
        let used = [n("255.255.255.0/24"), n("255.255.254.0/24")];
        assert!(choose_subnet(&[n("255.255.254.0/23")], 24, &used).is_err());
    }

    proptest! {
        #[test]
        fn never_overlaps_and_fills_the_pool(lengths in prop::collection::vec(20u8..28, 0..40)) {
            let pool = n("172.16.0.0/18");
            let mut used = Vec::new();
            for length in lengths {
                match choose_subnet(&[pool], length, &used) {
                    Ok(subnet) => {
                        prop_assert!(pool.contains(&subnet));
                        prop_assert!(used.iter().all(|used| !overlaps(*used, subnet)));
                        used.push(subnet);
                    }
                    Err(_) => {
                        // No aligned subnet of that size is free of every used one.
                        let free = pool.subnets(length).unwrap()
                            .any(|s| used.iter().all(|used| !overlaps(*used, s)));
                        prop_assert!(!free);
                    }
                }
            }
        }
    }
}
