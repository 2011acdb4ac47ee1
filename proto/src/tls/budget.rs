//! How many connections one source may hold, so that no single host can use up the others' share.
//!
//! Connections are counted by what they have proven. An unprivileged process on a node can open
//! connections from the node's address, and strangers from many addresses; neither must lock out
//! those who have shown a certificate.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Prefix that one IPv6 customer commonly controls (RFC 6177): its addresses are one source.
const IPV6_SOURCE_BITS: u32 = 64;

/// Counts connections by standing and source. Clones share the counts.
#[derive(Debug, Clone)]
pub struct Budget {
    shares: Shares,
    counts: Arc<Mutex<Counts>>,
}

/// How many connections there may be. Handshakes together are not limited here: they end by
/// themselves, and the accept loop begins no more than it can carry.
#[derive(Debug, Clone, Copy)]
pub struct Shares {
    /// From one source, in each standing.
    pub per_source: usize,
    /// Without a certificate, from everybody.
    pub anonymous: usize,
    /// With a certificate, from everybody.
    pub proven: usize,
}

/// What a connection has proven so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing yet.
    Handshaking,
    /// That it speaks TLS; it has no certificate.
    Anonymous,
    /// That it holds a certificate of the cluster.
    Proven,
}

#[derive(Debug, Default)]
struct Counts {
    totals: BTreeMap<Standing, usize>,
    by_key: BTreeMap<Key, usize>,
}

type Key = (Standing, IpAddr);

/// The room of one connection, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    key: Key,
    budget: Budget,
}

impl Budget {
    /// An empty budget.
    pub fn new(shares: Shares) -> Self {
        Self { shares, counts: Arc::default() }
    }

    /// Takes room for a handshake, or nothing if the source has used its room up.
    pub fn admit(&self, from: IpAddr) -> Option<Permit> {
        let key = (Standing::Handshaking, source(from));
        self.lock().take(key, &self.shares).then(|| Permit { key, budget: self.clone() })
    }

    /// The counts are plain numbers that are right after every statement, so a poisoned lock is no
    /// harm.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Moves the connection to another standing; `None`, which ends it, if there is no room.
    pub fn settle(mut self, standing: Standing) -> Option<Self> {
        let key = (standing, self.key.1);
        {
            let mut counts = self.budget.lock();
            if !counts.take(key, &self.budget.shares) {
                return None;
            }
            counts.give_back(self.key);
        }
        self.key = key;
        Some(self)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.lock().give_back(self.key);
    }
}

impl Counts {
    fn take(&mut self, key: Key, shares: &Shares) -> bool {
        let total = self.totals.entry(key.0).or_default();
        let count = self.by_key.get(&key).copied().unwrap_or(0);
        if *total >= shares.total(key.0) || count >= shares.per_source {
            return false;
        }
        *total += 1;
        self.by_key.insert(key, count + 1);
        true
    }

    /// Forgets a source with its last connection, so that the table is never larger than the
    /// number of connections.
    fn give_back(&mut self, key: Key) {
        if let Entry::Occupied(mut count) = self.by_key.entry(key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        if let Some(total) = self.totals.get_mut(&key.0) {
            *total -= 1;
        }
    }
}

impl Shares {
    fn total(&self, standing: Standing) -> usize {
        match standing {
            Standing::Handshaking => usize::MAX,
            Standing::Anonymous => self.anonymous,
            Standing::Proven => self.proven,
        }
    }
}

/// What counts as one source: an IPv4 address, or the /64 of an IPv6 address.
pub fn source(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let host_bits = 128 - IPV6_SOURCE_BITS;
            Ipv6Addr::from_bits(address.to_bits() >> host_bits << host_bits).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn budget(per_source: usize, anonymous: usize, proven: usize) -> Budget {
        Budget::new(Shares { per_source, anonymous, proven })
    }

    #[test]
    fn one_source_cannot_take_the_room_of_another() {
        let budget = budget(2, 9, 9);
        let held: Vec<_> = (0..2).filter_map(|_| budget.admit(ip("10.0.0.1"))).collect();
        assert_eq!(held.len(), 2);
        assert!(budget.admit(ip("10.0.0.1")).is_none());
        assert!(budget.admit(ip("::ffff:10.0.0.1")).is_none(), "the same host, mapped");
        assert!(budget.admit(ip("10.0.0.2")).is_some());
        drop(held);
        assert!(budget.admit(ip("10.0.0.1")).is_some());
        assert!(budget.lock().by_key.is_empty(), "sources without connections are forgotten");
        assert!(budget.lock().totals.values().all(|total| *total == 0));
    }

    #[test]
    fn strangers_from_many_sources_leave_room_for_members() {
        let budget = budget(9, 2, 1);
        let settle = |host: u8, standing| {
            budget.admit(ip(&format!("10.0.0.{host}"))).and_then(|permit| permit.settle(standing))
        };
        let _strangers = [1, 2].map(|host| settle(host, Standing::Anonymous).unwrap());
        assert!(settle(3, Standing::Anonymous).is_none());
        let member = settle(4, Standing::Proven).unwrap();
        assert!(settle(5, Standing::Proven).is_none());
        drop(member);
        assert!(settle(5, Standing::Proven).is_some());
    }

    #[test]
    fn each_standing_of_a_source_is_counted_apart() {
        let budget = budget(1, 9, 9);
        let admit = || budget.admit(ip("10.0.0.1"));
        let _proven = admit().unwrap().settle(Standing::Proven).unwrap();
        let _anonymous = admit().unwrap().settle(Standing::Anonymous).unwrap();
        let handshake = admit().unwrap();
        assert!(admit().is_none());
        assert!(handshake.settle(Standing::Proven).is_none());
        assert!(admit().is_some(), "a refused connection gives back what it had");
    }

    #[test]
    fn one_ipv6_customer_is_one_source() {
        let budget = budget(1, 9, 9);
        let _held = budget.admit(ip("2001:db8::1")).unwrap();
        assert!(budget.admit(ip("2001:db8::ffff:2")).is_none());
        assert!(budget.admit(ip("2001:db8:0:1::1")).is_some());
    }
}
