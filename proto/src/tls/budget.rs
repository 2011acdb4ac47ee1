//! How many connections one source may hold, so that no single host can use up the others' share.
//!
//! Those that have shown a certificate are counted apart from those that have not: an unprivileged
//! process on a node can open connections from the node's address, and must not lock out the node
//! itself.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Prefix that one IPv6 customer commonly controls (RFC 6177): its addresses are one source.
const IPV6_SOURCE_BITS: u32 = 64;

/// Counts connections by source. Clones share the counts.
#[derive(Debug, Clone)]
pub struct Budget {
    per_source: usize,
    total: usize,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_key: BTreeMap<Key, usize>,
}

type Key = (Standing, IpAddr);

/// What a connection has proven so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Unproven,
    Proven,
}

/// The room of one connection, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    key: Key,
    budget: Budget,
}

impl Budget {
    /// Room for `total` connections, of which `per_source` from one source before and as many after
    /// it has shown a certificate.
    pub fn new(per_source: usize, total: usize) -> Self {
        Self { per_source, total, counts: Arc::default() }
    }

    /// Takes room for a new connection, or nothing if its source or everybody together has used
    /// theirs up.
    pub fn admit(&self, from: IpAddr) -> Option<Permit> {
        let key = (Standing::Unproven, source(from));
        let mut counts = self.lock();
        if counts.total >= self.total || !counts.take(key, self.per_source) {
            return None;
        }
        counts.total += 1;
        Some(Permit { key, budget: self.clone() })
    }

    /// Connections that hold a permit.
    pub fn used(&self) -> usize {
        self.lock().total
    }

    /// The counts are plain numbers that are right after every statement, so a poisoned lock is no
    /// harm.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Moves the connection to the proven ones of its source; `None` if those are used up.
    pub fn prove(mut self) -> Option<Self> {
        let proven = (Standing::Proven, self.key.1);
        {
            let mut counts = self.budget.lock();
            if !counts.take(proven, self.budget.per_source) {
                return None;
            }
            counts.give_back(self.key);
        }
        self.key = proven;
        Some(self)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.budget.lock();
        counts.give_back(self.key);
        counts.total -= 1;
    }
}

impl Counts {
    fn take(&mut self, key: Key, limit: usize) -> bool {
        let count = self.by_key.entry(key).or_default();
        let room = *count < limit;
        *count += usize::from(room);
        room
    }

    /// Forgets a source with its last connection, so that the table is never larger than the number
    /// of connections.
    fn give_back(&mut self, key: Key) {
        if let Entry::Occupied(mut count) = self.by_key.entry(key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

fn source(from: IpAddr) -> IpAddr {
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

    #[test]
    fn one_source_cannot_take_the_room_of_another() {
        let budget = Budget::new(2, 5);
        let held: Vec<_> = (0..2).filter_map(|_| budget.admit(ip("10.0.0.1"))).collect();
        assert_eq!(held.len(), 2);
        assert!(budget.admit(ip("10.0.0.1")).is_none());
        assert!(
            budget.admit(ip("::ffff:10.0.0.1")).is_none(),
            "the same host by its mapped address"
        );
        assert!(budget.admit(ip("10.0.0.2")).is_some());
        drop(held);
        assert!(budget.admit(ip("10.0.0.1")).is_some());
        assert_eq!(budget.used(), 0);
        assert!(budget.lock().by_key.is_empty(), "sources without connections are forgotten");
    }

    #[test]
    fn the_total_is_a_limit_too() {
        let budget = Budget::new(2, 3);
        let _held: Vec<_> =
            (1..=3).map(|host| budget.admit(ip(&format!("10.0.0.{host}"))).unwrap()).collect();
        assert!(budget.admit(ip("10.0.0.9")).is_none());
    }

    #[test]
    fn proven_connections_are_counted_apart() {
        let budget = Budget::new(1, 9);
        let proven = budget.admit(ip("10.0.0.1")).unwrap().prove().unwrap();
        let stranger = budget.admit(ip("10.0.0.1")).unwrap();
        assert!(budget.admit(ip("10.0.0.1")).is_none());
        assert!(stranger.prove().is_none(), "the proven ones are used up as well");
        drop(proven);
        assert!(budget.admit(ip("10.0.0.1")).unwrap().prove().is_some());
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn one_ipv6_customer_is_one_source() {
        let budget = Budget::new(1, 9);
        let _held = budget.admit(ip("2001:db8::1")).unwrap();
        assert!(budget.admit(ip("2001:db8::ffff:2")).is_none());
        assert!(budget.admit(ip("2001:db8:0:1::1")).is_some());
    }
}
