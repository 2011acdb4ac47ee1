//! A token bucket: a rate with room for a burst. Pure; the time comes in.

use std::time::{Duration, Instant};

/// Tokens that come back at a rate, up to a burst.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// Time one token takes to come back.
    each: Duration,
    /// Time a full bucket is worth.
    burst: Duration,
    /// The time at which the bucket would be full. Later is emptier.
    full_at: Instant,
}

impl Bucket {
    /// A full bucket. `rate` is tokens a second, above zero.
    pub(crate) fn new(rate: u32, burst: u32, now: Instant) -> Self {
        let each = Duration::from_secs(1) / rate;
        Self { each, burst: each * burst, full_at: now }
    }

    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let next = self.full_at.max(now) + self.each;
        let there = next <= now + self.burst;
        if there {
            self.full_at = next;
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 5, start);
        let taken = |bucket: &mut Bucket, at: u64| {
            let now = start + Duration::from_millis(at);
            (0..100).filter(|_| bucket.take(now)).count()
        };
        assert_eq!(taken(&mut bucket, 0), 5);
        assert_eq!(taken(&mut bucket, 99), 0);
        assert_eq!(taken(&mut bucket, 100), 1);
        assert_eq!(taken(&mut bucket, 400), 3);
        assert_eq!(taken(&mut bucket, 60_000), 5, "never more than the burst");
    }
}
