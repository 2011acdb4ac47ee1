//! What is seen of containers at the moment, beside what the state keeps of them; and how those who
//! call reach the drivers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::{oneshot, watch};
use weft_model::ContainerId;

use crate::{
    container::{AttachConfig, AttachSession, Error},
    health::Health,
};

/// How far a container is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It does not run, and no restart is due.
    #[default]
    Down,
    /// It is made, plumbed and started.
    Starting,
    /// Its command runs.
    Up {
        /// Its first process, on the host.
        pid: i32,
        /// Since when.
        since: SystemTime,
    },
    /// It has ended, and is started again in a while.
    Restarting,
    /// What is left of it is removed.
    Removing,
}

/// How a run ended that was begun since the daemon is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// [`Live::run`] it had.
    pub run: u64,
    /// Of the command; 125 to 127 if it never ran.
    pub exit_code: i32,
    /// Why it did not run; empty if it did.
    pub error: String,
}

/// Why a start that somebody asked for did not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `Container::starts` of the request.
    pub start: u64,
    /// 125, 126 or 127, as in Docker.
    pub exit_code: i32,
    /// Why.
    pub message: String,
}

/// What is seen of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// How far it is.
    pub phase: Phase,
    /// `Container::starts` that was taken up last.
    pub start: u64,
    /// Counts the runs since the daemon is there; the present one, or the last.
    pub run: u64,
    /// Restarts by policy since it was started by hand.
    pub restarts: u32,
    /// The last run's end.
    pub ended: Option<End>,
    /// Why the last start did not come about.
    pub failed: Option<Failure>,
    /// Its health while it runs; none without a health check.
    pub health: Option<Health>,
    /// Nobody drives it any more: it was removed.
    pub gone: bool,
}

/// How a container is to be stopped the next time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steer {
    /// Time between the stop signal and SIGKILL; none is the container's own.
    pub grace: Option<Duration>,
    /// SIGKILL at once.
    pub kill: bool,
    /// It was told to end: no restart follows, whatever its policy is.
    pub last: bool,
}

/// A client that is to be attached as soon as the container is made, before it is started.
pub struct Attaching {
    /// What it wants.
    pub config: AttachConfig,
    /// Gets the session and the number of the run it is of.
    pub tell: oneshot::Sender<Result<(AttachSession, u64), Error>>,
}

/// One container's.
#[derive(Default)]
pub struct Cell {
    /// What is seen.
    pub live: watch::Sender<Live>,
    steer: Mutex<Steer>,
    attaching: Mutex<Vec<Attaching>>,
}

impl Cell {
    /// Changes what is seen.
    pub fn see(&self, change: impl FnOnce(&mut Live)) {
        self.live.send_modify(change);
    }

    /// Says how the next stop is done.
    pub fn steer(&self, steer: Steer) {
        *lock(&self.steer) = steer;
    }

    /// How this stop is done.
    pub fn take_steer(&self) -> Steer {
        std::mem::take(&mut *lock(&self.steer))
    }

    /// Leaves a client for the next start.
    pub fn attach(&self, attaching: Attaching) {
        lock(&self.attaching).push(attaching);
    }

    /// The clients that wait.
    pub fn take_attaching(&self) -> Vec<Attaching> {
        std::mem::take(&mut *lock(&self.attaching))
    }
}

/// All containers'.
#[derive(Default)]
pub struct Table {
    cells: Mutex<BTreeMap<ContainerId, Arc<Cell>>>,
}

impl Table {
    /// A container's; made if it is new.
    pub fn cell(&self, id: ContainerId) -> Arc<Cell> {
        Arc::clone(lock(&self.cells).entry(id).or_default())
    }

    /// What is seen of a container now.
    pub fn live(&self, id: ContainerId) -> Live {
        lock(&self.cells).get(&id).map_or_else(Live::default, |cell| cell.live.borrow().clone())
    }

    /// Drops a container's; those who look at it see that there is no more.
    pub fn forget(&self, id: ContainerId) {
        if let Some(cell) = lock(&self.cells).remove(&id) {
            cell.see(|live| live.gone = true);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one assignment, so the value is whole also if a holder of the lock panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
