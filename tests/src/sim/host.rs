//! One machine: what outlives its daemon, and the daemon, which runs, sleeps or is dead.
//!
//! A daemon is a runtime of its own, so that a crash is the end of everything in it between two polls,
//! and a sleeping one does nothing at all.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::{
    TICK,
    clock::millis,
    daemon::{self, Site, Slots},
    link::Liveness,
    net::HostId,
};

/// How a daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// The process is killed: whoever is connected is told at once.
    Killed,
    /// The power is cut: nobody is told.
    PowerCut,
}

/// What a host is doing.
#[derive(Debug)]
enum Condition {
    Running,
    /// Stopped by a signal, since then.
    Asleep {
        since: u64,
    },
    Dead(Death),
}

/// One machine.
pub(super) struct Host {
    pub(super) site: Site,
    pub(super) slots: Slots,
    condition: Condition,
    runtime: Option<Runtime>,
    /// How often the daemon was started.
    starts: u64,
}

impl Host {
    /// A machine whose daemon was never started.
    pub(super) fn new(site: Site) -> Self {
        Self {
            site,
            slots: Slots::empty(),
            condition: Condition::Dead(Death::Killed),
            runtime: None,
            starts: 0,
        }
    }

    pub(super) fn id(&self) -> HostId {
        self.site.id
    }

    /// Starts the daemon, if it is dead.
    pub(super) fn start(&mut self) {
        if !matches!(self.condition, Condition::Dead(_)) {
            return;
        }
        self.starts += 1;
        self.site.note(format!("starts ({})", self.starts));
        let runtime = runtime();
        runtime.spawn(daemon::run(self.site.clone(), self.slots.clone(), self.starts));
        self.runtime = Some(runtime);
        self.condition = Condition::Running;
    }

    /// Ends the daemon without asking it.
    pub(super) fn kill(&mut self, death: Death) {
        let Some(runtime) = self.runtime.take() else { return };
        self.site.note(format!("dies: {death:?}"));
        self.site.home.raft().crash();
        self.condition = Condition::Dead(death);
        drop(runtime);
        self.slots.manager.store(None);
        self.slots.worker.store(None);
        match death {
            Death::Killed => {}
            Death::PowerCut => self.site.machine.lose_power(),
        }
    }

    /// A dead machine is made anew: nothing that was on it is left.
    pub(super) fn wipe(&mut self) {
        self.kill(Death::PowerCut);
        self.site.note("is wiped");
        self.site.home.erase();
        self.site.machine.wipe();
        self.site.told.erase();
        for entry in std::fs::read_dir(self.site.dir.path()).into_iter().flatten().flatten() {
            // What cannot be removed is found by the next start, which then fails.
            let path = entry.path();
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
        }
    }

    /// Stops the daemon's clock and all its work.
    pub(super) fn pause(&mut self) {
        if matches!(self.condition, Condition::Running) {
            self.site.note("falls asleep");
            self.condition = Condition::Asleep { since: self.site.clock.now() };
        }
    }

    /// Goes on where it was; the clock shows the time that has passed.
    pub(super) fn resume(&mut self) {
        if let (Condition::Asleep { since }, Some(runtime)) = (&self.condition, &self.runtime) {
            let missed = Duration::from_millis(self.site.clock.now() - since);
            self.site.note("wakes up");
            runtime.block_on(async { tokio::time::advance(missed).await });
            self.condition = Condition::Running;
        }
    }

    pub(super) fn is_asleep(&self) -> bool {
        matches!(self.condition, Condition::Asleep { .. })
    }

    /// What its connections show of it.
    pub(super) fn liveness(&self) -> Liveness {
        match self.condition {
            Condition::Running => Liveness::Awake,
            Condition::Asleep { .. } | Condition::Dead(Death::PowerCut) => Liveness::Silent,
            Condition::Dead(Death::Killed) => Liveness::Gone,
        }
    }

    /// How it died, if it did.
    pub(super) fn death(&self) -> Option<Death> {
        match self.condition {
            Condition::Running | Condition::Asleep { .. } => None,
            Condition::Dead(death) => Some(death),
        }
    }

    /// Lives through one tick.
    pub(super) fn tick(&self) {
        if let (Condition::Running, Some(runtime)) = (&self.condition, &self.runtime) {
            runtime.block_on(async { tokio::time::sleep(TICK).await });
        }
    }

    /// Runs a task in the daemon.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(task);
        }
    }
}

/// A runtime with one thread, the caller's, and a clock that only its own waiting moves.
pub(super) fn runtime() -> Runtime {
    // A tick moves the clock by whole milliseconds, which is as fine as the runtime's timers are.
    debug_assert!(millis(TICK) > 0);
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without IO needs nothing of the system that can be refused")
}
