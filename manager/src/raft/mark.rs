//! How far a store has come, in a form that never goes back.
//!
//! A log can shrink (a new leader cuts off what was never committed), so its length proves
//! nothing. But in one term there is one leader, and what a follower has of *that leader's*
//! entries it never gives back while the term lasts. The pair (term voted in, last index of an
//! entry of that very term) therefore only grows, on a store that keeps its promises.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// The durable progress of a store. Order: first the term, then the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// Term of the last vote that reached the disk.
    pub term: u64,
    /// Last index on the disk whose entry is of that term; 0 when there is none.
    pub index: u64,
}

/// The mark of a running store, moved by its log and read by every message.
#[derive(Debug, Default)]
pub(crate) struct DurableMark(Mutex<Mark>);

impl DurableMark {
    pub(crate) fn get(&self) -> Mark {
        *self.lock()
    }

    /// A vote of `term` is on the disk.
    pub(crate) fn voted(&self, term: u64) {
        let mut mark = self.lock();
        if term > mark.term {
            *mark = Mark { term, index: 0 };
        }
    }

    /// The log is on the disk up to an entry of `term` at `index`.
    pub(crate) fn flushed(&self, term: u64, index: u64) {
        let mut mark = self.lock();
        if term == mark.term && index > mark.index {
            mark.index = index;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Mark> {
        // Both fields are plain numbers: a panic elsewhere cannot leave them half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Vote(u64),
        Flush(u64, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u64..6).prop_map(Step::Vote),
            (0_u64..6, 0_u64..20).prop_map(|(term, index)| Step::Flush(term, index)),
        ]
    }

    proptest! {
        #[test]
        fn a_mark_never_goes_back(steps in prop::collection::vec(step(), 0..40)) {
            let mark = DurableMark::default();
            let mut before = mark.get();
            for step in steps {
                match step {
                    Step::Vote(term) => mark.voted(term),
                    Step::Flush(term, index) => mark.flushed(term, index),
                }
                prop_assert!(mark.get() >= before);
                before = mark.get();
            }
        }
    }

    #[test]
    fn entries_of_another_term_do_not_count() {
        let mark = DurableMark::default();
        mark.voted(3);
        mark.flushed(2, 9);
        assert_eq!(mark.get(), Mark { term: 3, index: 0 });
        mark.flushed(3, 10);
        assert_eq!(mark.get(), Mark { term: 3, index: 10 });
        mark.voted(4);
        assert_eq!(mark.get(), Mark { term: 4, index: 0 });
    }
}
