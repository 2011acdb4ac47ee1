//! How often one source may be wrong about a join token.
//!
//! A secret of 128 bits is not guessed; this keeps somebody who tries from keeping the managers
//! busy, and makes each burst one line in the log instead of thousands.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use weft_model::Time;
use weft_proto::tls::budget;

/// Wrong tokens that a source may show at once.
pub const BURST: u32 = 5;
/// How long it takes to be allowed one more.
pub const REFILL: Duration = Duration::from_secs(1);
/// Sources that are remembered; the one that was wrong longest ago is forgotten first.
pub const MAX_SOURCES: usize = 4096;

/// Recent failures by source.
#[derive(Debug, Clone, Default)]
pub struct Throttle {
    sources: BTreeMap<IpAddr, Failures>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    /// Wrong tokens not yet forgiven.
    open: u32,
    /// When the last one was shown or forgiven.
    since: Time,
}

impl Throttle {
    /// How long `source` has to wait before a token of it is looked at, or nothing.
    pub fn wait(&self, source: IpAddr, now: Time) -> Option<Duration> {
        let failures = self.sources.get(&budget::source(source))?.at(now);
        // One below the burst is enough to be heard again.
        (failures.open >= BURST).then(|| REFILL.saturating_sub(now.since(failures.since)))
    }

    /// Counts a wrong token. Returns true for the one that exhausts the burst, which is the one to
    /// log.
    pub fn failed(&mut self, source: IpAddr, now: Time) -> bool {
        let source = budget::source(source);
        let before = self.sources.get(&source).map_or(Failures::none(now), |known| known.at(now));
        if !self.sources.contains_key(&source) && self.sources.len() >= MAX_SOURCES {
            self.forget_oldest();
        }
        let open = (before.open + 1).min(BURST);
        self.sources.insert(source, Failures { open, since: before.since_after(now) });
        before.open + 1 == BURST
    }

    fn forget_oldest(&mut self) {
        let oldest = self.sources.iter().min_by_key(|(_, failures)| failures.since);
        if let Some(source) = oldest.map(|(source, _)| *source) {
            self.sources.remove(&source);
        }
    }
}

impl Failures {
    fn none(now: Time) -> Self {
        Self { open: 0, since: now }
    }

    /// The same with one failure forgiven for each whole refill that has passed.
    fn at(self, now: Time) -> Self {
        let refills = now.since(self.since).as_millis() / REFILL.as_millis();
        let forgiven = u32::try_from(refills).unwrap_or(u32::MAX).min(self.open);
        Self { open: self.open - forgiven, since: self.since + REFILL * forgiven }
    }

    /// The refill of an untouched source begins with its first failure, not before.
    fn since_after(self, now: Time) -> Time {
        if self.open == 0 { now } else { self.since }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const START: Time = Time(1_000_000);

    #[test]
    fn a_burst_is_heard_and_then_one_try_for_each_refill() {
        let mut throttle = Throttle::default();
        for attempt in 1..=BURST {
            assert_eq!(throttle.wait(HOME, START), None, "attempt {attempt}");
            assert_eq!(throttle.failed(HOME, START), attempt == BURST);
        }
        assert_eq!(throttle.wait(HOME, START), Some(REFILL));
        assert_eq!(throttle.wait(OTHER, START), None);
        let almost = START + (REFILL - Duration::from_millis(1));
        assert_eq!(throttle.wait(HOME, almost), Some(Duration::from_millis(1)));
        let later = START + REFILL;
        assert_eq!(throttle.wait(HOME, later), None);
        throttle.failed(HOME, later);
        assert_eq!(throttle.wait(HOME, later), Some(REFILL));
        assert_eq!(throttle.wait(HOME, START + Duration::from_secs(3600)), None);
    }

    #[test]
    fn the_table_has_a_limit_and_forgets_the_oldest() {
        let mut throttle = Throttle::default();
        let source = |number: u32| IpAddr::from(number.to_be_bytes());
        for number in 0..=MAX_SOURCES as u32 {
            throttle.failed(source(number), START + Duration::from_millis(number.into()));
        }
        assert_eq!(throttle.sources.len(), MAX_SOURCES);
        assert!(!throttle.sources.contains_key(&source(0)));
        assert!(throttle.sources.contains_key(&source(1)));
    }

    #[test]
    fn one_ipv6_customer_is_one_source() {
        let mut throttle = Throttle::default();
        for host in 1..=BURST {
            throttle.failed(format!("2001:db8::{host}").parse().unwrap(), START);
        }
        assert!(throttle.wait("2001:db8::ffff".parse().unwrap(), START).is_some());
        assert!(throttle.wait("2001:db8:0:1::1".parse().unwrap(), START).is_none());
    }

    proptest! {
        /// Whatever the rhythm, nobody is heard more often than the burst and the refills allow.
        #[test]
        fn nobody_is_heard_more_often(gaps in proptest::collection::vec(0u64..1500, 1..200)) {
            let (mut throttle, mut now, mut heard) = (Throttle::default(), START, 0);
            for gap in gaps {
                now = now + Duration::from_millis(gap);
                if throttle.wait(HOME, now).is_none() {
                    heard += 1;
                    throttle.failed(HOME, now);
                }
            }
            prop_assert!(heard <= u128::from(BURST) + now.since(START).as_millis() / REFILL.as_millis());
        }
    }
}
