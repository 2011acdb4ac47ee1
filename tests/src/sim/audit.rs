//! Looks at every state that any manager shows: it must be sound, and the same one everywhere.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use weft_manager::Manager;
use weft_model::State;

use super::trace::Trace;

/// The states seen so far, by revision. Clones share them.
#[derive(Clone)]
pub(super) struct Audit {
    trace: Trace,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    states: BTreeMap<u64, Arc<State>>,
    figures: Figures,
}

/// How much was looked at: a check that never looked proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    /// States checked.
    pub(super) checked: u64,
    /// States compared with another manager's at the same revision.
    pub(super) compared: u64,
    /// The highest revision.
    pub(super) revision: u64,
}

impl Audit {
    pub(super) fn new(trace: Trace) -> Self {
        Self { trace, seen: Arc::default() }
    }

    /// Looks at all that `manager` shows, for ever.
    pub(super) async fn follow(self, who: String, manager: Manager) {
        let mut changes = manager.store().watch();
        let mut last = 0;
        loop {
            let state = manager.view();
            if state.revision() < last {
                self.trace.violated(&who, format!("went back from {last} to {}", state.revision()));
            }
            if state.revision() > last {
                last = state.revision();
                self.look(&who, state);
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn look(&self, who: &str, state: Arc<State>) {
        let revision = state.revision();
        for violation in state.check() {
            self.trace.violated(who, format!("revision {revision}: {violation:?}"));
        }
        // The map is whole whatever a holder of the lock did.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.figures.checked += 1;
        seen.figures.revision = seen.figures.revision.max(revision);
        match seen.states.get(&revision) {
            Some(other) => {
                let same = **other == *state;
                seen.figures.compared += 1;
                drop(seen);
                if !same {
                    self.trace.violated(who, format!("another state at revision {revision}"));
                }
            }
            None => {
                seen.states.insert(revision, state);
                drop(seen);
                self.trace.note(who, format!("revision {revision}"));
            }
        }
    }

    pub(super) fn figures(&self) -> Figures {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).figures
    }
}
