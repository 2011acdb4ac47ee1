//! What happened, in order: for whoever looks for the cause of a failure, and to tell whether two runs
//! were the same.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::clock::SimClock;

/// Lines written by everything that takes part. Clones are the same trace.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    clock: SimClock,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: Vec<String>,
    /// What should not have happened.
    violations: Vec<String>,
}

impl Trace {
    pub(super) fn new(clock: SimClock) -> Self {
        Self { clock, kept: Arc::default() }
    }

    /// Notes what `who` did, or what was done to it.
    pub(super) fn note(&self, who: &str, what: impl std::fmt::Display) {
        let line = format!("{:>7} {who:<4} {what}", self.clock.now());
        self.lock().lines.push(line);
    }

    /// Notes that a promise was broken.
    pub(super) fn violated(&self, who: &str, what: impl std::fmt::Display) {
        let line = format!("{:>7} {who:<4} VIOLATION: {what}", self.clock.now());
        let mut kept = self.lock();
        kept.lines.push(line.clone());
        kept.violations.push(line);
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// Lines are only ever added, so they are whole whatever a holder did.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
