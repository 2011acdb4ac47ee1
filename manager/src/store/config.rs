//! What a store is told when it is opened.

use std::path::PathBuf;
use std::time::Duration;

use crate::raft::log::memory::MemoryDisk;

/// How to open a store. [`StoreConfig::new`] fills in what rarely changes.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Where the store lives; used by [`super::Store::open`].
    pub dir: PathBuf,
    /// This manager's number. Numbers come from the log and are never used twice.
    pub number: u64,
    /// Which cluster it belongs to; a message of another one is refused.
    pub cluster_id: String,
    /// Source of all randomness of this run: election times, and the name of a store that is
    /// made now. A new random number at every start; in a simulation, a chosen one.
    pub seed: u64,
    pub timings: Timings,
    pub limits: LogLimits,
    /// Proposals in flight at most; more wait for their turn until their deadline.
    pub proposals_in_flight: usize,
    /// How long a proposal, a read barrier or a change of members may take.
    pub deadline: Duration,
}

/// When a leader is held for dead. A dead one is replaced after between
/// `election_max + election_min` and twice `election_max`, plus two rounds of votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    pub heartbeat: Duration,
    pub election_min: Duration,
    /// Also how long a leader is trusted after it was last heard.
    pub election_max: Duration,
}

/// Usual reserve: four chunks of the log, or a snapshot of a large cluster twice.
const RESERVE: u64 = 64 * 1024 * 1024;

/// When the log is compacted, and when it must not grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Entries after the last snapshot that cause the next one.
    pub snapshot_after: u64,
    /// Entries kept although a snapshot has them. A follower behind by more gets the snapshot.
    /// Applying never lags this far, which keeps clear of openraft #2116 (entries purged while
    /// they are being applied).
    pub keep: u64,
    /// Entries by which a learner may be behind when it becomes a voter.
    pub promote_lag: u64,
    /// Free bytes of the store's file system below which no more is written for callers. It must
    /// have room for a snapshot and for a chunk of the log.
    pub reserve: u64,
}

/// Where a store keeps what must survive.
#[derive(Clone, Debug)]
pub enum Backend {
    /// A directory of its own.
    Disk(PathBuf),
    /// A disk in memory, for simulation.
    Memory(MemoryDisk),
}

/// A configuration that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("manager number 0 is reserved")]
    NumberZero,
    #[error(
        "heartbeat {heartbeat:?}, election {min:?} to {max:?}: must grow, and the shortest \
         election time must be at least twice the heartbeat"
    )]
    Timings { heartbeat: Duration, min: Duration, max: Duration },
    #[error("{name} must not be 0")]
    Zero { name: &'static str },
}

impl Default for Timings {
    fn default() -> Self {
        Timings {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(500),
        }
    }
}

impl Default for LogLimits {
    fn default() -> Self {
        LogLimits { snapshot_after: 10_000, keep: 10_000, promote_lag: 200, reserve: RESERVE }
    }
}

impl StoreConfig {
    /// A configuration with the usual timings and limits.
    pub fn new(dir: PathBuf, number: u64, cluster_id: impl Into<String>, seed: u64) -> Self {
        StoreConfig {
            dir,
            number,
            cluster_id: cluster_id.into(),
            seed,
            timings: Timings::default(),
            limits: LogLimits::default(),
            proposals_in_flight: 1024,
            deadline: Duration::from_secs(5),
        }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// [`ConfigError`] names the values.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.number == 0 {
            return Err(ConfigError::NumberZero);
        }
        let Timings { heartbeat, election_min: min, election_max: max } = self.timings;
        if heartbeat.is_zero() || min < heartbeat * 2 || max <= min {
            return Err(ConfigError::Timings { heartbeat, min, max });
        }
        if self.proposals_in_flight == 0 {
            return Err(ConfigError::Zero { name: "proposals_in_flight" });
        }
        if self.limits.snapshot_after == 0 {
            return Err(ConfigError::Zero { name: "limits.snapshot_after" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_named() {
        let good = StoreConfig::new("/nowhere".into(), 1, "c", 1);
        assert_eq!(good.validate(), Ok(()));
        let mut bad = good.clone();
        bad.number = 0;
        assert_eq!(bad.validate(), Err(ConfigError::NumberZero));
        let mut bad = good.clone();
        bad.timings.election_min = bad.timings.heartbeat;
        assert!(matches!(bad.validate(), Err(ConfigError::Timings { .. })));
        let mut bad = good.clone();
        bad.timings.election_max = bad.timings.election_min;
        assert!(matches!(bad.validate(), Err(ConfigError::Timings { .. })));
        let mut bad = good;
        bad.proposals_in_flight = 0;
        assert_eq!(bad.validate(), Err(ConfigError::Zero { name: "proposals_in_flight" }));
    }
}
