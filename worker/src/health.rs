//! Health checks: a command that is run in the container from time to time, by Docker's rules.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use weft_model::{
    TaskId,
    object::HealthState,
    spec::{Health as Spec, HealthTest},
};

use crate::container::{ContainerId, Error, ExecConfig, ExecIo, Runtime, Terminal};

/// Probes of a container's health that are kept (Docker's number).
pub const PROBES_KEPT: usize = 5;

/// What is meant where the user says 0 (Docker's).
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const RETRIES: u32 = 3;
/// Bytes of a probe's output that are kept (Docker's).
const OUTPUT_KEPT: u64 = 4096;
/// Exit code of a probe that did not end in time, or could not be run (Docker's).
const NO_CODE: i32 = -1;

/// One look at a container's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// When it began.
    pub started: SystemTime,
    /// When it ended.
    pub finished: SystemTime,
    /// Of the command; -1 if it did not end in time.
    pub exit_code: i32,
    /// The beginning of what it said.
    pub output: String,
}

/// What is known of a container's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// As a whole.
    pub state: HealthState,
    /// Probes that failed in a row.
    pub failing: u32,
    /// The last ones, the newest last.
    pub probes: VecDeque<Probe>,
}

impl Health {
    /// Before the first probe.
    pub fn unprobed(state: HealthState) -> Self {
        Self { state, failing: 0, probes: VecDeque::new() }
    }
}

/// The health of the tasks' containers that are checked.
#[derive(Debug, Default)]
pub struct HealthBook(Mutex<BTreeMap<TaskId, Health>>);

impl HealthBook {
    /// Notes what is known now.
    pub fn note(&self, task: TaskId, health: Health) {
        self.lock().insert(task, health);
    }

    /// Forgets a container that has ended.
    pub fn forget(&self, task: TaskId) {
        self.lock().remove(&task);
    }

    /// What was noted last.
    pub fn of(&self, task: TaskId) -> Option<Health> {
        self.lock().get(&task).cloned()
    }

    /// The map is whole also if a holder of the lock panicked: each change is one call.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskId, Health>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The checks of one run. Dropping it ends them.
pub(crate) struct Watching(JoinHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is to be checked.
pub(crate) struct Checked {
    pub runtime: Arc<dyn Runtime>,
    pub id: ContainerId,
    /// As it is when the checks begin: an earlier run of the daemon may have seen it healthy.
    pub health: Health,
}

/// The command of a health check; none if nothing is checked.
pub(crate) fn command(spec: Option<&Spec>) -> Option<Vec<String>> {
    match &spec?.test {
        HealthTest::Off => None,
        HealthTest::Shell(line) => Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()]),
        HealthTest::Exec(args) => Some(args.clone()),
    }
}

/// Begins to check a container that runs, if its spec has a check; each change goes to `see`.
pub(crate) fn watch(
    checked: Checked,
    spec: Option<&Spec>,
    see: impl Fn(&Health) + Send + Sync + 'static,
) -> Option<Watching> {
    let args = command(spec)?;
    let Checked { runtime, id, health } = checked;
    let checks = Checks { runtime, id, args, spec: spec?.clone() };
    Some(Watching(tokio::spawn(checks.run(health, see))))
}

struct Checks {
    runtime: Arc<dyn Runtime>,
    id: ContainerId,
    args: Vec<String>,
    spec: Spec,
}

impl Checks {
    async fn run(self, mut health: Health, see: impl Fn(&Health)) {
        let begun = Instant::now();
        loop {
            sleep(or(self.spec.interval, INTERVAL)).await;
            let probe = self.probe().await;
            let early = begun.elapsed() < self.spec.start_period;
            let retries = if self.spec.retries == 0 { RETRIES } else { self.spec.retries };
            note(&mut health, probe, early, retries);
            see(&health);
        }
    }

    async fn probe(&self) -> Probe {
        let started = SystemTime::now();
        let limit = or(self.spec.timeout, TIMEOUT);
        let (exit_code, output) = match timeout(limit, self.ask()).await {
            Ok(Ok(told)) => told,
            Ok(Err(error)) => (NO_CODE, error.to_string()),
            Err(_) => (NO_CODE, format!("Health check exceeded timeout ({limit:?})")),
        };
        Probe { started, finished: SystemTime::now(), exit_code, output }
    }

    /// Exit code and output. Dropping it kills the command.
    async fn ask(&self) -> Result<(i32, String), Error> {
        let config = ExecConfig {
            args: self.args.clone(),
            env: Vec::new(),
            cwd: None,
            terminal: Terminal::No,
            user: String::new(),
            privileged: false,
        };
        let mut session = match self.runtime.exec(&self.id, config).await {
            Ok(session) => session,
            Err(Error::NotExecuted { exit_code, reason, .. }) => return Ok((exit_code, reason)),
            Err(error) => return Err(error),
        };
        let mut output = Vec::new();
        if let ExecIo::Pipes { stdout, stderr, .. } = &mut session.io {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            tokio::join!(read(stdout, &mut out), read(stderr, &mut err));
            output = [out, err].concat();
        }
        let code = session.wait().await?;
        Ok((code, String::from_utf8_lossy(&output).into_owned()))
    }
}

/// The beginning is kept; the rest is read, so that nobody waits.
async fn read(from: &mut (impl AsyncRead + Unpin), into: &mut Vec<u8>) {
    // What was read up to an error is all there is.
    let _ = from.take(OUTPUT_KEPT).read_to_end(into).await;
    let _ = tokio::io::copy(from, &mut tokio::io::sink()).await;
}

fn or(asked: Duration, default: Duration) -> Duration {
    if asked.is_zero() { default } else { asked }
}

/// A success makes it healthy at once; failures make it unhealthy when there are `retries` in a row,
/// and do not count while it starts.
fn note(health: &mut Health, probe: Probe, early: bool, retries: u32) {
    if probe.exit_code == 0 {
        health.failing = 0;
        health.state = HealthState::Healthy;
    } else if health.state != HealthState::Starting || !early {
        health.failing = health.failing.saturating_add(1);
        if health.failing >= retries {
            health.state = HealthState::Unhealthy;
        }
    }
    health.probes.push_back(probe);
    while health.probes.len() > PROBES_KEPT {
        health.probes.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(codes: &[(i32, bool)]) -> (HealthState, u32) {
        let mut health = Health::unprobed(HealthState::Starting);
        for (exit_code, early) in codes {
            let at = SystemTime::UNIX_EPOCH;
            let output = String::new();
            let probe = Probe { started: at, finished: at, exit_code: *exit_code, output };
            note(&mut health, probe, *early, 3);
        }
        assert!(health.probes.len() <= PROBES_KEPT);
        (health.state, health.failing)
    }

    #[test]
    fn dockers_rules() {
        use HealthState::{Healthy, Starting, Unhealthy};
        assert_eq!(seen(&[(1, false), (1, false)]), (Starting, 2));
        assert_eq!(seen(&[(1, false), (1, false), (1, false)]), (Unhealthy, 3));
        assert_eq!(seen(&[(1, true), (1, true), (1, true), (1, true)]), (Starting, 0));
        assert_eq!(seen(&[(0, true), (1, true), (1, true), (1, true)]), (Unhealthy, 3));
        assert_eq!(seen(&[(1, false), (1, false), (0, false), (1, false)]), (Healthy, 1));
        let many = [(1, false); 9];
        assert_eq!(seen(&many), (Unhealthy, 9));
    }
}
