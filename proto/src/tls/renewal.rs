//! When to renew a certificate: early enough to survive a long outage, and not all nodes at once.

use std::time::SystemTime;

/// The first part of a certificate's life in which it is never renewed.
const EARLIEST: f64 = 0.5;
/// By this part of its life the renewal has been tried; the rest is for retries while no manager
/// answers.
const LATEST: f64 = 0.8;

/// The moment between 50 % and 80 % of the certificate's life that belongs to `jitter` (0 to 1,
/// clamped).
///
/// A certificate whose end is not after its beginning is due at its beginning.
pub fn renew_at(not_before: SystemTime, not_after: SystemTime, jitter: f64) -> SystemTime {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    let jitter = if jitter.is_nan() { 0.0 } else { jitter.clamp(0.0, 1.0) };
    not_before + life.mul_f64(EARLIEST + (LATEST - EARLIEST) * jitter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn bounds() {
        let end = UNIX_EPOCH + DAY;
        let hours = |hours: f64| UNIX_EPOCH + Duration::from_secs_f64(hours * 3600.0);
        let cases = [(0.0, 12.0), (1.0, 19.2), (-3.0, 12.0), (9.0, 19.2), (f64::NAN, 12.0)];
        for (jitter, expected) in cases {
            assert_eq!(renew_at(UNIX_EPOCH, end, jitter), hours(expected), "jitter {jitter}");
        }
        assert_eq!(renew_at(end, UNIX_EPOCH, 0.5), end);
    }

    proptest! {
        #[test]
        fn always_within_the_window(start in 0u64..1 << 33, life in 0u64..1 << 31, jitter in 0.0..1.0f64) {
            let from = UNIX_EPOCH + Duration::from_secs(start);
            let life = Duration::from_secs(life);
            let when = renew_at(from, from + life, jitter);
            prop_assert!(when >= from + life / 2 && when <= from + life * 4 / 5 + Duration::from_micros(1));
        }
    }
}
