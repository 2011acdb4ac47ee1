//! What of a session's assignments is on the disk, and what of them is acknowledged.
//!
//! Managers count on what is acknowledged: keys that no node needs any more are thrown away, for one.
//! So what a power cut would take back is not acknowledged, though it is in force.

use weft_model::Assignments;

use crate::cache::Cache;

/// Of one session.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// Revision of what is on the disk; 0 before anything came.
    kept: u64,
    /// Whether what is in force could not be written.
    owed: bool,
    acknowledged: u64,
}

impl Keeping {
    /// Writes down what is in force from now on.
    pub(super) fn keep(&mut self, cache: &Cache, assignments: &Assignments) {
        match cache.save(assignments) {
            Ok(()) => {
                if self.owed {
                    tracing::info!(revision = assignments.revision, "assignments are kept again");
                }
                (self.kept, self.owed) = (assignments.revision, false);
            }
            Err(error) => {
                if !self.owed {
                    let source = std::error::Error::source(&error);
                    tracing::error!(%error, ?source, "not kept, and so not acknowledged");
                }
                self.owed = true;
            }
        }
    }

    /// Whether what is in force is not on the disk.
    pub(super) fn is_owed(&self) -> bool {
        self.owed
    }

    /// What is to be acknowledged when the kernel agrees with revision `carried`, if it is news.
    pub(super) fn acknowledges(&mut self, carried: u64) -> Option<u64> {
        let done = carried.min(self.kept);
        let news = done > self.acknowledged;
        self.acknowledged = self.acknowledged.max(done);
        news.then_some(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(revision: u64) -> Assignments {
        Assignments { revision, ..Assignments::default() }
    }

    #[test]
    fn what_a_power_cut_would_take_back_is_not_acknowledged() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path());
        let mut keeping = Keeping::default();
        assert_eq!(keeping.acknowledges(5), None, "nothing has come in this session");
        keeping.keep(&cache, &set(7));
        assert_eq!(keeping.acknowledges(5), Some(5));
        assert_eq!(keeping.acknowledges(5), None, "it was said");
        // The file that is written first cannot be: its name is taken.
        let next = directory.path().join("assignments.new");
        std::fs::create_dir(&next).unwrap();
        keeping.keep(&cache, &set(8));
        assert!(keeping.is_owed());
        assert_eq!(keeping.acknowledges(8), Some(7), "no further than the disk");
        assert_eq!(cache.load(), Some(set(7)));
        std::fs::remove_dir(&next).unwrap();
        keeping.keep(&cache, &set(8));
        assert!(!keeping.is_owed());
        assert_eq!(cache.load(), Some(set(8)));
        assert_eq!(keeping.acknowledges(8), Some(8));
    }
}
