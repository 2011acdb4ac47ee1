//! What happened, in order: for whoever looks for the cause of a failure, and to tell whether two runs
//! were the same.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::clock::SimClock;

/// Lines written by everything that takes part. Clones are the same trace.
#[derive(Clone)]
pub(super) struct Trace {
    clock: SimClock,
    /// Takes each line as it comes: a run that hangs tells where.
    tell: Arc<dyn Fn(&str) + Send + Sync>,
    /// What should not have happened.
    violations: Arc<Mutex<Vec<String>>>,
}

impl Trace {
    pub(super) fn new(clock: SimClock, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { clock, tell: Arc::new(tell), violations: Arc::default() }
    }

    /// Notes what `who` did, or what was done to it.
    pub(super) fn note(&self, who: &str, what: impl std::fmt::Display) {
        (self.tell)(&format!("{:>7} {who:<4} {what}", self.clock.now()));
    }

    /// Notes that a promise was broken.
    pub(super) fn violated(&self, who: &str, what: impl std::fmt::Display) {
        let line = format!("{:>7} {who:<4} VIOLATION: {what}", self.clock.now());
        (self.tell)(&line);
        self.lock().push(line);
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.lock().clone()
    }

    /// Lines are only ever added, so they are whole whatever a holder did.
    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
