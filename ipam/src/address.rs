//! Choosing an address in a subnet: serially from a cursor, the freed ones last.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use crate::Exhausted;

/// Where addresses may be taken from.
#[derive(Debug, Clone, Copy)]
pub struct Pool<'a> {
    /// The whole subnet; its network and broadcast addresses are never given out.
    pub subnet: IpNet,
    /// The part of it that addresses are chosen from.
    pub range: IpNet,
    /// Never given out: the gateway and the auxiliary addresses.
    pub reserved: &'a BTreeSet<IpAddr>,
    /// The address given out most recently.
    pub cursor: Option<IpAddr>,
}

/// What is known of the addresses of a pool.
#[derive(Debug, Clone, Copy)]
pub struct Use<'a> {
    /// Held by somebody.
    pub taken: &'a BTreeSet<IpAddr>,
    /// Released a short while ago, with a number that grows with the time of release.
    pub resting: &'a BTreeMap<IpAddr, u64>,
}

/// The next free address after the cursor, wrapping; if only addresses at rest are left, the one
/// that has rested longest.
///
/// Addresses are given out in order so that one that was freed is reused as late as possible: stale
/// DNS answers and connection tracking entries may still point at it.
///
/// # Errors
/// [`Exhausted`] when every address is taken or reserved.
pub fn choose_address(pool: Pool<'_>, usage: Use<'_>) -> Result<IpAddr, Exhausted> {
    let (first, last) = pool.bounds();
    let start = match pool.cursor.map(bits) {
        Some(cursor) if cursor >= first && cursor < last => cursor + 1,
        Some(_) | None => first,
    };
    // Each step leaves behind an address that is in one of three finite sets, so the search ends
    // after as many steps as those have members, however large the subnet is.
    let fresh = (start..=last).chain(first..start).map(|bits| pool.address(bits)).find(|address| {
        !pool.reserved.contains(address)
            && !usage.taken.contains(address)
            && !usage.resting.contains_key(address)
    });
    let rested = || {
        usage
            .resting
            .iter()
            .filter(|(address, _)| pool.may_give(address) && !usage.taken.contains(address))
            .min_by_key(|(_, released)| **released)
            .map(|(address, _)| *address)
    };
    fresh.or_else(rested).ok_or_else(|| pool.exhausted(usage))
}

impl Pool<'_> {
    /// How many addresses the pool can give out in all.
    pub fn size(&self) -> u128 {
        let (first, last) = self.bounds();
        let reserved = self
            .reserved
            .iter()
            .filter(|address| (first..=last).contains(&bits(**address)))
            .count();
        (last + 1).saturating_sub(first).saturating_sub(reserved as u128)
    }

    /// Whether the address may be given to anybody at all, by choice or on request.
    pub fn may_give(&self, address: &IpAddr) -> bool {
        let (first, last) = self.bounds();
        self.subnet.contains(address)
            && (first..=last).contains(&bits(*address))
            && !self.reserved.contains(address)
    }

    fn exhausted(&self, usage: Use<'_>) -> Exhausted {
        let used = usage.taken.iter().filter(|address| self.may_give(address)).count();
        Exhausted { pool: self.subnet.to_string(), used: used as u128, size: self.size() }
    }

    /// First and last address of the range, without the subnet's network and broadcast addresses.
    fn bounds(&self) -> (u128, u128) {
        let usable_first = bits(self.subnet.network()) + 1;
        let usable_last = match self.subnet {
            IpNet::V4(_) => bits(self.subnet.broadcast()) - 1,
            // IPv6 has no broadcast address.
            IpNet::V6(_) => bits(self.subnet.broadcast()),
        };
        (
            bits(self.range.network()).max(usable_first),
            bits(self.range.broadcast()).min(usable_last),
        )
    }

    fn address(&self, bits: u128) -> IpAddr {
        match self.subnet {
            // The bounds lie in an IPv4 subnet, so the value fits 32 bits.
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(bits as u32)),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(bits)),
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn a(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn pool<'a>(subnet: &str, reserved: &'a BTreeSet<IpAddr>, cursor: Option<IpAddr>) -> Pool<'a> {
        let subnet = subnet.parse().unwrap();
        Pool { subnet, range: subnet, reserved, cursor }
    }

    #[test]
    fn a_slash_29_holds_five_beside_its_gateway() {
        let reserved = BTreeSet::from([a("10.0.0.1")]);
        let (mut taken, resting, mut cursor) = (BTreeSet::new(), BTreeMap::new(), None);
        for wanted in 2..=6 {
            let usage = Use { taken: &taken, resting: &resting };
            let got = choose_address(pool("10.0.0.0/29", &reserved, cursor), usage).unwrap();
            assert_eq!(got, a(&format!("10.0.0.{wanted}")));
            taken.insert(got);
            cursor = Some(got);
        }
        let usage = Use { taken: &taken, resting: &resting };
        let error = choose_address(pool("10.0.0.0/29", &reserved, cursor), usage).unwrap_err();
        assert_eq!(error, Exhausted { pool: "10.0.0.0/29".into(), used: 5, size: 5 });
    }

    #[test]
    fn the_freed_come_last_and_the_longest_rested_first() {
        let reserved = BTreeSet::new();
        let taken = BTreeSet::from([a("10.0.0.1"), a("10.0.0.3")]);
        let resting = BTreeMap::from([(a("10.0.0.2"), 9), (a("10.0.0.4"), 5), (a("10.0.0.6"), 7)]);
        let usage = Use { taken: &taken, resting: &resting };
        let got = choose_address(pool("10.0.0.0/29", &reserved, Some(a("10.0.0.1"))), usage);
        assert_eq!(got, Ok(a("10.0.0.5")));
        let taken = BTreeSet::from([a("10.0.0.1"), a("10.0.0.3"), a("10.0.0.5")]);
        let usage = Use { taken: &taken, resting: &resting };
        let got = choose_address(pool("10.0.0.0/29", &reserved, None), usage);
        assert_eq!(got, Ok(a("10.0.0.4")));
    }

    #[test]
    fn a_range_bounds_the_choice() {
        let reserved = BTreeSet::from([a("10.0.0.129")]);
        let pool = Pool {
            subnet: "10.0.0.0/24".parse().unwrap(),
            range: "10.0.0.128/25".parse().unwrap(),
            reserved: &reserved,
            cursor: None,
        };
        let (taken, resting) = (BTreeSet::new(), BTreeMap::new());
        let usage = Use { taken: &taken, resting: &resting };
        assert_eq!(choose_address(pool, usage), Ok(a("10.0.0.128")));
        assert_eq!(pool.size(), 126);
        assert!(!pool.may_give(&a("10.0.0.255")));
        assert!(!pool.may_give(&a("10.0.0.2")));
    }

    #[test]
    fn ipv6_subnets_are_searched_without_walking_them() {
        let reserved = BTreeSet::from([a("fd00::1")]);
        let (taken, resting) = (BTreeSet::from([a("fd00::2")]), BTreeMap::new());
        let usage = Use { taken: &taken, resting: &resting };
        assert_eq!(choose_address(pool("fd00::/64", &reserved, None), usage), Ok(a("fd00::3")));
    }

    proptest! {
        #[test]
        fn gives_each_address_once_until_none_is_left(
            length in 24u8..30,
            releases in prop::collection::vec(any::<prop::sample::Index>(), 0..64),
        ) {
            let reserved = BTreeSet::from([a("10.9.0.1")]);
            let subnet = format!("10.9.0.0/{length}");
            let (mut taken, mut resting) = (BTreeSet::new(), BTreeMap::new());
            let (mut cursor, mut clock) = (None, 0);
            let mut releases = releases.into_iter();
            loop {
                let p = pool(&subnet, &reserved, cursor);
                match choose_address(p, Use { taken: &taken, resting: &resting }) {
                    Ok(got) => {
                        prop_assert!(p.may_give(&got));
                        prop_assert!(taken.insert(got), "given twice");
                        resting.remove(&got);
                        cursor = Some(got);
                    }
                    Err(error) => {
                        prop_assert_eq!(error.used, p.size());
                        prop_assert_eq!(taken.len() as u128, p.size());
                        let Some(index) = releases.next() else { break };
                        let freed = *index.get(&taken.iter().copied().collect::<Vec<_>>());
                        taken.remove(&freed);
                        clock += 1;
                        resting.insert(freed, clock);
                    }
                }
            }
        }
    }
}
