//! Subnets for networks of one node.

use ipnet::IpNet;

use crate::{Exhausted, choose_subnet, overlaps, unique_local};

/// A prefix that subnets are cut from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPool {
    /// All of it.
    pub base: IpNet,
    /// Prefix length of the subnets.
    pub size: u8,
}

/// Prefix length of the subnets that Docker cuts from `172.16.0.0/12`, and from `192.168.0.0/16`.
const LARGE: u8 = 16;
const SMALL: u8 = 20;

/// Docker's list, in its order: `172.17.0.0/16` to `172.31.0.0/16`, then the sixteen `/20` of
/// `192.168.0.0/16`.
pub fn default_pools() -> Vec<AddressPool> {
    let pool = |base: String, size| AddressPool { base: base.parse().expect("a prefix"), size };
    let mut pools: Vec<_> =
        (17..=31).map(|second| pool(format!("172.{second}.0.0/16"), LARGE)).collect();
    pools.push(pool("192.168.0.0/16".to_owned(), SMALL));
    pools
}

/// The first subnet of the pools that overlaps nothing in `used`.
///
/// # Errors
/// [`Exhausted`] naming the pools when none is left.
pub fn choose_local(pools: &[AddressPool], used: &[IpNet]) -> Result<IpNet, Exhausted> {
    let mut full = Exhausted { pool: String::new(), used: 0, size: 0 };
    for pool in pools {
        match choose_subnet(&[pool.base], pool.size, used) {
            Ok(subnet) => return Ok(subnet),
            Err(one) => {
                let comma = if full.pool.is_empty() { "" } else { ", " };
                full.pool += &format!("{comma}{}", one.pool);
                full.used = full.used.saturating_add(one.used);
                full.size = full.size.saturating_add(one.size);
            }
        }
    }
    Err(full)
}

/// The first unique local prefix of 64 bits under `global_id` (40 bits, RFC 4193 section 3.2.1) that
/// overlaps nothing in `used`.
///
/// # Errors
/// [`Exhausted`] when all are used.
pub fn choose_unique_local(global_id: u64, used: &[IpNet]) -> Result<IpNet, Exhausted> {
    let free = |subnet: &IpNet| !used.iter().any(|other| overlaps(*other, *subnet));
    (0..=u16::MAX).map(|number| unique_local(global_id, number)).find(free).ok_or_else(|| {
        let size = u128::from(u16::MAX) + 1;
        Exhausted { pool: "the node's IPv6 /48".to_owned(), used: size, size }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn dockers_list_in_its_order() {
        let mut used = Vec::new();
        while let Ok(subnet) = choose_local(&default_pools(), &used) {
            used.push(subnet);
        }
        assert_eq!(used.len(), 15 + 16);
        assert_eq!(used[0], n("172.17.0.0/16"));
        assert_eq!(used[14], n("172.31.0.0/16"));
        assert_eq!(used[15], n("192.168.0.0/20"));
        assert_eq!(used[30], n("192.168.240.0/20"));
        let error = choose_local(&default_pools(), &used).unwrap_err();
        assert_eq!((error.used, error.size), (31, 31));
        assert!(error.pool.ends_with("172.31.0.0/16, 192.168.0.0/16"), "{}", error.pool);
    }

    #[test]
    fn what_is_in_use_is_skipped() {
        let used = [n("172.17.4.0/24"), n("172.18.0.0/15")];
        assert_eq!(choose_local(&default_pools(), &used), Ok(n("172.20.0.0/16")));
        let pools = [AddressPool { base: n("10.9.0.0/16"), size: 24 }];
        assert_eq!(choose_local(&pools, &[n("10.9.0.0/24")]), Ok(n("10.9.1.0/24")));
        assert!(choose_local(&[], &[]).is_err());
        let first = choose_unique_local(7, &[]).unwrap();
        let second = choose_unique_local(7, &[first]).unwrap();
        assert_eq!((first, second), (n("fd00:0:7::/64"), n("fd00:0:7:1::/64")));
    }
}
