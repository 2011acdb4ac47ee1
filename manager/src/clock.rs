//! The wall clock as a value that is handed in.
//!
//! Only what ends up in commands and certificates reads it. Deadlines and debounces use the
//! monotonic time of the runtime, which a step of the wall clock does not move.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use weft_model::Time;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Time;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    /// A clock set before 1970 counts as 1970.
    fn now(&self) -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time::default() + since
    }
}

/// A clock that is moved by hand.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Shows `time` until it is moved.
    pub fn at(time: Time) -> Self {
        Self(AtomicU64::new(time.0))
    }

    /// Moves it on.
    pub fn advance(&self, span: Duration) {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        Time(self.0.load(Ordering::SeqCst))
    }
}

/// The same instant as the standard library writes it.
pub fn system_time(time: Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(time.0)
}

/// The same instant as the model writes it; before 1970 counts as 1970.
pub fn model_time(time: SystemTime) -> Time {
    Time::default() + time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_translate_and_a_manual_clock_moves_only_by_hand() {
        let clock = ManualClock::at(Time(5));
        clock.advance(Duration::from_millis(7));
        assert_eq!(clock.now(), Time(12));
        assert_eq!(model_time(system_time(Time(12))), Time(12));
    }
}
