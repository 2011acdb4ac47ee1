//! The one clock of a simulation, and what each host believes the time of day to be.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use weft_manager::clock::Clock;
use weft_model::Time;

/// The date on which every simulation begins, in milliseconds since 1970: any will do, so long as it
/// is far enough from 0 for a clock that is slow.
const BEGINNING: u64 = 1_800_000_000_000;

/// Milliseconds since the beginning. Clones show the same.
#[derive(Clone, Debug, Default)]
pub(super) struct SimClock {
    now: Arc<AtomicU64>,
    /// By how much the time of day is ahead of that everywhere.
    ahead: Arc<AtomicU64>,
}

impl SimClock {
    pub(super) fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    pub(super) fn advance(&self, by: Duration) {
        self.now.fetch_add(millis(by), Ordering::Relaxed);
    }

    /// The time of day goes forward at once, on all hosts, as when nothing has happened for so long.
    pub(super) fn skip(&self, by: Duration) {
        self.ahead.fetch_add(millis(by), Ordering::Relaxed);
    }
}

/// A host's wall clock, which is fast or slow by a fixed time.
pub(super) struct WallClock {
    pub(super) clock: SimClock,
    /// Milliseconds.
    pub(super) skew: i64,
}

impl Clock for WallClock {
    fn now(&self) -> Time {
        let ahead = self.clock.ahead.load(Ordering::Relaxed);
        Time((BEGINNING + self.clock.now() + ahead).saturating_add_signed(self.skew))
    }
}

/// Whole milliseconds of a span, the resolution of everything here.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
