//! One container's way: made, published, plumbed, started, watched, ended, started again, removed.
//!
//! Level-triggered: the driver looks at what the state wants and at what there is, and does the next
//! step. Whatever step a crash interrupts, the next run finds the container in its directories.

use std::{future::Future, pin::Pin, sync::Arc, time::SystemTime};

use tokio::{sync::watch, time::Instant};
use weft_model::{
    Command, Container, ContainerId, Time,
    object::{LastRun, Wanted},
};

use super::{
    Local,
    backoff::Backoff,
    health,
    live::{Cell, End, Failure, Phase as Seen, Steer},
    make::{self, Stop},
};
use crate::{
    container::{Error, Exit, Found, Phase},
    failpoint,
    health::Watching,
};

/// Exit code of a container whose end nobody has seen (Docker's).
const EXIT_UNKNOWN: i32 = 255;
/// Between tries to do what cannot fail for good: to note an end, to remove what is left.
const RETRY: std::time::Duration = std::time::Duration::from_secs(2);

/// The container as the state has it; none when it is forgotten.
pub(super) type Known = watch::Receiver<Option<Arc<Container>>>;

/// A run of the container's command.
struct Run {
    started: SystemTime,
    exit: Pin<Box<dyn Future<Output = Result<Exit, Error>> + Send>>,
    /// Ends with the run.
    _health: Option<Watching>,
}

/// Takes one container all its way. Ends when nothing of it is left. `left` is what an earlier run of
/// the daemon has left of it; none of a new one, which is run though somebody has asked for that already.
pub(super) async fn drive(
    local: Arc<Local>,
    id: ContainerId,
    known: Known,
    left: Option<Option<Found>>,
) {
    let cell = local.table.cell(id);
    let (taken, restarts) = (0, 0);
    let mut driver = Driver {
        local,
        id,
        known,
        cell,
        taken,
        restarts,
        backoff: Backoff::default(),
        made: false,
    };
    let mut up = match left {
        Some(found) => driver.adopt(found).await,
        None => None,
    };
    while let Some(container) = driver.container() {
        up = match (container.wanted, up.take()) {
            (Wanted::Removed, run) => return driver.remove(&container, run).await,
            (Wanted::Stopped, Some(run)) => driver.stop(&container, run).await,
            (Wanted::Stopped, None) => {
                driver.taken = container.starts;
                driver.rest().await;
                None
            }
            (Wanted::Running, Some(run)) if container.starts > driver.taken => {
                driver.stop(&container, run).await
            }
            (Wanted::Running, Some(run)) => driver.run(&container, run).await,
            (Wanted::Running, None) => driver.start(&container).await,
        };
    }
    driver.local.table.forget(id);
}

pub(super) struct Driver {
    pub(super) local: Arc<Local>,
    pub(super) id: ContainerId,
    known: Known,
    pub(super) cell: Arc<Cell>,
    /// `Container::starts` that was taken up.
    taken: u64,
    /// By policy, since then.
    restarts: u32,
    backoff: Backoff,
    /// The runtime has the container.
    pub(super) made: bool,
}

impl Driver {
    fn container(&mut self) -> Option<Arc<Container>> {
        self.known.borrow_and_update().clone()
    }

    /// Waits for a change; for ever when the daemon ends, which is not the container's end.
    async fn changed(&mut self) {
        if self.known.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn rest(&mut self) {
        self.cell.see(|live| {
            live.phase = Seen::Down;
            live.health = None;
        });
        self.changed().await;
    }

    /// Takes over what an earlier run of the daemon has left.
    async fn adopt(&mut self, found: Option<Found>) -> Option<Run> {
        let container = self.container()?;
        let was_wanted = container.wanted == Wanted::Running;
        let noted = container.last.as_ref().is_some_and(|last| last.start == container.starts);
        let Some(found) = found else {
            // Never made; but one with --rm may have been removed already, and is not run twice.
            if was_wanted && container.spec.auto_remove {
                self.taken = container.starts;
                self.over(&container, &unseen(), SystemTime::UNIX_EPOCH).await;
            }
            return None;
        };
        self.made = true;
        if found.status.phase != Phase::Running && !make::is_whole(self) {
            // A crash has cut off the making: nothing has run, and its start is still due.
            make::unmake(self).await;
            self.clear().await;
            return None;
        }
        if was_wanted {
            // What has run is started again as its policy says.
            self.taken = container.starts;
        }
        let started = found.status.started.unwrap_or(SystemTime::UNIX_EPOCH);
        match &found.status.phase {
            Phase::Running => {
                self.taken = container.starts;
                self.restarts = container.last.as_ref().map_or(0, |last| last.restarts);
                if let Err(error) = make::adopt(self, &container, &found).await {
                    tracing::warn!(container = %self.id.short(), %error, "not wholly adopted");
                }
                return Some(self.up(&container, found.status.pid.unwrap_or(0), started));
            }
            // Half made: begun anew.
            Phase::Created | Phase::Starting => make::unmake(self).await,
            Phase::Exited(exit) if was_wanted && !is_known(&container, exit, noted) => {
                make::unmake(self).await;
                self.over(&container, exit, started).await;
            }
            Phase::Failed { .. } if was_wanted => {
                make::unmake(self).await;
                self.over(&container, &unseen(), started).await;
            }
            Phase::Exited(_) | Phase::Failed { .. } => make::unmake(self).await,
        }
        None
    }

    fn up(&mut self, container: &Container, pid: i32, started: SystemTime) -> Run {
        self.cell.see(|live| {
            live.run += 1;
            live.start = self.taken;
            live.restarts = self.restarts;
            live.phase = Seen::Up { pid, since: started };
            live.failed = None;
        });
        let (runtime, id) = (Arc::clone(&self.local.context.runtime), make::runtime_id(self.id));
        let exit = Box::pin(async move { runtime.wait(&id).await });
        Run { started, exit, _health: health::watch(self, container) }
    }

    /// Starts it: at once if somebody asks, after a while if it has ended by itself.
    async fn start(&mut self, container: &Arc<Container>) -> Option<Run> {
        let asked = container.starts > self.taken;
        if asked {
            self.taken = container.starts;
            self.restarts = 0;
            self.backoff = Backoff::default();
        } else {
            let next = Instant::now() + self.backoff.next();
            self.cell.see(|live| live.phase = Seen::Restarting);
            let unchanged = tokio::time::timeout_at(next, self.changed()).await.is_err();
            if !unchanged {
                return None;
            }
        }
        let started = SystemTime::now();
        self.cell.see(|live| live.phase = Seen::Starting);
        failpoint!("local.start.begin");
        match make::begin(self, container).await {
            Ok(pid) => Some(self.up(container, pid, started)),
            Err(Stop::Unwanted) => {
                make::unmake(self).await;
                None
            }
            Err(Stop::Failed(failure)) => {
                make::unmake(self).await;
                self.not_started(container, failure, asked, started).await;
                None
            }
        }
    }

    /// Notes a start that did not come about. One that somebody waits for is not tried again.
    async fn not_started(
        &mut self,
        container: &Container,
        failure: make::Failed,
        asked: bool,
        started: SystemTime,
    ) {
        tracing::warn!(container = %self.id.short(), why = failure.message, "not started");
        let make::Failed { exit_code, message } = failure;
        let again = !asked && container.spec.restart.follows(exit_code, self.restarts);
        let last = self.last(exit_code, message.clone(), false, started, SystemTime::now());
        self.note(container, last, again).await;
        if again {
            self.restarts += 1;
        }
        // Those who wait for its output wait for nothing.
        drop(self.cell.take_attaching());
        let start = self.taken;
        self.cell.see(|live| {
            live.start = start;
            live.run += 1;
            live.failed = Some(Failure { start, exit_code, message: message.clone() });
            live.ended = Some(End { run: live.run, exit_code, error: message });
            live.phase = if again { Seen::Restarting } else { Seen::Down };
        });
    }

    /// Watches a run until it ends or something else is wanted.
    async fn run(&mut self, container: &Container, mut run: Run) -> Option<Run> {
        let started = run.started;
        let exit = tokio::select! {
            exit = &mut run.exit => exit,
            () = self.changed() => {
                make::refresh(self).await;
                return Some(run);
            }
        };
        let exit = exit.unwrap_or_else(|error| Exit { error: Some(error.to_string()), ..unseen() });
        failpoint!("local.end.seen");
        // What the end means is decided on what is wanted now.
        let container = self.container().unwrap_or_else(|| Arc::new(container.clone()));
        self.ended(&container, started, &exit).await;
        None
    }

    /// Ends a run because that is wanted; a restart goes on from there.
    async fn stop(&mut self, container: &Container, run: Run) -> Option<Run> {
        let started = run.started;
        let Steer { grace, kill, last: _ } = self.cell.take_steer();
        let runtime = Arc::clone(&self.local.context.runtime);
        let id = make::runtime_id(self.id);
        let grace = grace.unwrap_or(container.spec.container.stop_grace);
        let stopping = async {
            if kill {
                // It may have ended by itself, which `stop` finds.
                let _ = runtime.kill(&id, libc::SIGKILL).await;
            }
            runtime.stop(&id, grace).await
        };
        tokio::pin!(stopping);
        let exit = loop {
            tokio::select! {
                exit = &mut stopping => break exit,
                () = self.changed() => {
                    let gone = self.container().is_none_or(|c| c.wanted == Wanted::Removed);
                    if gone || self.cell.take_steer().kill {
                        let _ = runtime.kill(&id, libc::SIGKILL).await;
                    }
                }
            }
        };
        let exit = match exit {
            Ok(exit) => exit,
            Err(error) => {
                tracing::warn!(container = %self.id.short(), %error, "not stopped in order");
                Exit { error: Some(error.to_string()), ..unseen() }
            }
        };
        drop(run);
        let container = self.container().unwrap_or_else(|| Arc::new(container.clone()));
        self.ended(&container, started, &exit).await;
        None
    }

    /// Lets go of what a run held, and notes its end.
    async fn ended(&mut self, container: &Container, started: SystemTime, exit: &Exit) {
        if started.elapsed().unwrap_or_default() >= Backoff::LASTED {
            self.backoff = Backoff::default();
        }
        make::unmake(self).await;
        failpoint!("local.end.unmade");
        self.over(container, exit, started).await;
    }

    /// Notes the end of a run that holds nothing any more, and what follows.
    async fn over(&mut self, container: &Container, exit: &Exit, started: SystemTime) {
        let by_itself = container.wanted == Wanted::Running && container.starts == self.taken;
        let again = by_itself
            && !self.cell.take_steer().last
            && container.spec.restart.follows(exit.code, self.restarts);
        // A restart by hand goes on, whatever the policy says.
        let restarted = container.wanted == Wanted::Running && container.starts > self.taken;
        let error = exit.error.clone().unwrap_or_default();
        let last = self.last(exit.code, error.clone(), exit.oom, started, exit.finished);
        let rm = self.note(container, last, again || restarted).await;
        if again {
            self.restarts += 1;
        }
        let code = exit.code;
        self.cell.see(|live| {
            live.ended = Some(End { run: live.run, exit_code: code, error });
            live.phase = match (rm, again || restarted) {
                (true, _) => Seen::Removing,
                (false, true) => Seen::Restarting,
                (false, false) => Seen::Down,
            };
            live.health = None;
        });
    }

    fn last(
        &self,
        exit_code: i32,
        error: String,
        oom: bool,
        started: SystemTime,
        finished: SystemTime,
    ) -> LastRun {
        let health = self.cell.live.borrow().health.as_ref().map(|health| health.state);
        LastRun {
            start: self.taken.max(1),
            exit_code,
            error,
            oom,
            started: time(started),
            finished: time(finished),
            restarts: self.restarts,
            health,
        }
    }

    /// Writes an end down; one entry of the log with all that follows of it. With `--rm` nothing is
    /// left then, which it tells.
    async fn note(&mut self, container: &Container, last: LastRun, again: bool) -> bool {
        let id = self.id;
        let rm = container.spec.auto_remove && !again;
        if rm {
            self.cell.see(|live| live.phase = Seen::Removing);
            self.clear().await;
            make::give_back(self, container).await;
        }
        let wanted = match (again, rm) {
            (true, _) => Wanted::Running,
            (false, true) => Wanted::Removed,
            (false, false) => Wanted::Stopped,
        };
        let note = Command::NoteContainer { id, last, wanted };
        let mut commands = vec![note];
        if rm {
            commands.push(Command::ForgetContainer { id });
        }
        self.certainly(commands).await;
        failpoint!("local.end.noted");
        rm
    }

    /// Removes it, with all that is left of it.
    async fn remove(&mut self, container: &Container, run: Option<Run>) {
        self.cell.see(|live| live.phase = Seen::Removing);
        let was_up = run.is_some();
        drop(run);
        make::unmake(self).await;
        self.clear().await;
        if was_up {
            let live = self.cell.live.borrow().run;
            let exit_code = 128 + libc::SIGKILL;
            let end = End { run: live, exit_code, error: String::new() };
            self.cell.see(|live| live.ended = Some(end));
        }
        make::give_back(self, container).await;
        failpoint!("local.remove.cleared");
        self.certainly(vec![Command::ForgetContainer { id: self.id }]).await;
        self.local.table.forget(self.id);
    }

    /// Removes what the runtime has of it.
    async fn clear(&mut self) {
        let id = make::runtime_id(self.id);
        while let Err(error) = self.local.context.runtime.remove(&id).await {
            tracing::warn!(container = %self.id.short(), %error, "cannot be removed");
            tokio::time::sleep(RETRY).await;
        }
        self.made = false;
        make::forget_files(self);
    }

    /// Changes the state, however long the disk takes to take it.
    async fn certainly(&self, commands: Vec<Command>) {
        loop {
            let given = commands.clone();
            match self.local.engine.propose(None, move |_| Ok(given)).await {
                Ok(_) => return,
                Err(super::ProposeError::Rejected(why)) => {
                    // Somebody was faster: the container is gone, or wanted otherwise.
                    return tracing::debug!(container = %self.id.short(), %why, "not noted");
                }
                Err(error) => {
                    tracing::error!(container = %self.id.short(), %error, "not noted");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Whether it is still to be started as it was when `start` was taken up.
    pub(super) fn is_wanted(&mut self) -> bool {
        let taken = self.taken;
        self.container().is_some_and(|c| c.wanted == Wanted::Running && c.starts == taken)
    }

    /// Waits until something else may be wanted.
    pub(super) async fn rethought(&mut self) {
        self.changed().await;
    }
}

/// Whether the state knows of this end already.
fn is_known(container: &Container, exit: &Exit, noted: bool) -> bool {
    let finished = time(exit.finished);
    noted && container.last.as_ref().is_some_and(|last| last.finished >= finished)
}

/// An end that nobody has seen.
fn unseen() -> Exit {
    Exit { code: EXIT_UNKNOWN, signal: None, oom: false, finished: SystemTime::now(), error: None }
}

pub(super) fn time(at: SystemTime) -> Time {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
