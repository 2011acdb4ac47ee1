//! The process that carries the encrypted links where the kernel has no WireGuard.
//!
//! It outlives the daemon, which finds it by its socket. It is looked after by the loop that keeps the
//! kernel: started before that tells it what to do, and ended when nothing of it is wanted any more.
//! One of another version goes on as long as both can speak with each other, so that an update of the
//! daemon cuts no flow; it is replaced when it next ends.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    net::UnixStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};
use weft_overlay::wire::{Client, ClientError, SOCKET};

use crate::container::OwnGroups;

/// Name of its cgroup beside the containers'.
const GROUP: &str = "weft-wire";
/// How long it may take from its start to its socket.
const START_WITHIN: Duration = Duration::from_secs(5);
/// How long it may take to end by itself, and then to be gone.
const END_WITHIN: Duration = Duration::from_secs(2);
/// How long it may take to answer; it takes milliseconds, and seconds on a machine with far too much to do.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks at what has no event.
const POLL: Duration = Duration::from_millis(5);
/// One that lived as long as this is started anew at once.
const LIVED_WELL: Duration = Duration::from_secs(10);
/// Shortest and longest time before one that did not is started anew.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The system refused.
    #[error("cannot start the engine of encrypted networks")]
    Start(#[source] io::Error),
    /// It ended, or did not open its socket.
    #[error("the engine of encrypted networks does not come up")]
    Silent,
    /// It ends again and again.
    #[error("the engine of encrypted networks ends again and again")]
    Waiting,
}

/// What is started.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// The words before the run directory.
    pub words: Vec<OsString>,
}

impl Default for Program {
    /// This process's own program.
    fn default() -> Self {
        Self { path: "/proc/self/exe".into(), words: vec!["wire".into(), "--run-dir".into()] }
    }
}

/// The process, or the place where one may be. Dropping it leaves the process as it is.
#[derive(Debug)]
pub struct Process {
    program: Program,
    run_dir: PathBuf,
    group: Option<PathBuf>,
    /// A connection that ends with the process.
    line: Option<UnixStream>,
    /// It, if this daemon has started it: to be reaped.
    child: Option<Child>,
    started: Option<Instant>,
    wait: Duration,
    /// Whether there may be something to clear away.
    used: bool,
}

impl Process {
    /// The one of a run directory, with its cgroup beside this process's own.
    pub fn new(program: Program, run_dir: &Path) -> Self {
        Self {
            program,
            run_dir: run_dir.to_owned(),
            group: OwnGroups::detect().beside(GROUP),
            line: None,
            child: None,
            started: None,
            wait: Duration::ZERO,
            used: true,
        }
    }

    /// Sees to it that it runs.
    ///
    /// # Errors
    /// When it does not come up, or only ended a moment ago.
    pub async fn ensure(&mut self) -> Result<(), ProcessError> {
        if self.is_alive() || self.adopt().await {
            return Ok(());
        }
        if self.started.is_some_and(|started| started.elapsed() < self.wait) {
            return Err(ProcessError::Waiting);
        }
        self.start().await
    }

    /// Waits until it ends; for ever if it does not run.
    pub async fn ended(&mut self) {
        match &self.line {
            Some(line) => hung_up(line).await,
            None => std::future::pending().await,
        }
        tracing::warn!("the engine of encrypted networks has ended");
        self.forget();
    }

    /// Ends it if it hangs: it would keep everybody waiting who asks it, and may carry nothing.
    pub async fn end_if_hung(&mut self) {
        let Some(line) = &self.line else { return };
        if timeout(ANSWER_WITHIN, self.ask()).await.is_err() {
            tracing::error!("the engine of encrypted networks hangs, and is replaced");
            signal(line, Signal::SIGKILL).await;
        }
    }

    /// Ends it, if it runs, and leaves nothing of it.
    pub async fn stop(&mut self) {
        if !self.used {
            return;
        }
        if self.line.is_none() {
            self.line = self.connect().await;
        }
        if let Some(line) = self.line.take() {
            end(&line).await;
            tracing::info!("the engine of encrypted networks is not needed any more");
        }
        if let Some(mut child) = self.child.take() {
            // It is gone already, so this does not wait.
            let _ = timeout(END_WITHIN, child.wait()).await;
        }
        self.clear_group().await;
        (self.started, self.wait, self.used) = (None, Duration::ZERO, false);
    }

    fn is_alive(&mut self) -> bool {
        let alive = self.line.as_ref().is_some_and(is_open);
        if !alive && self.line.is_some() {
            self.forget();
        }
        alive
    }

    /// Takes on the process that an earlier daemon has started; one that does not understand us is ended.
    async fn adopt(&mut self) -> bool {
        let Some(line) = self.connect().await else { return false };
        match self.ask().await {
            // One that is only slow is not the worse for it.
            Answer::Understood | Answer::None => {}
            // A process that is being killed takes connections for a moment yet.
            Answer::Ended => return false,
            Answer::Refused(why) => {
                tracing::warn!(why, "the engine of encrypted networks is replaced");
                end(&line).await;
                return false;
            }
        }
        tracing::info!(
            pid = pid(&line).map(Pid::as_raw),
            "the engine of encrypted networks is adopted"
        );
        (self.line, self.used) = (Some(line), true);
        true
    }

    async fn connect(&self) -> Option<UnixStream> {
        UnixStream::connect(self.run_dir.join(SOCKET)).await.ok()
    }

    /// Whether both speak the same language.
    async fn ask(&self) -> Answer {
        let run_dir = self.run_dir.clone();
        let asked = tokio::task::spawn_blocking(move || Client::connect(&run_dir)?.get()).await;
        match asked {
            Ok(Ok(_)) => Answer::Understood,
            Ok(Err(ClientError::Refused(why))) => Answer::Refused(why),
            Ok(Err(error @ ClientError::Confused)) => Answer::Refused(error.to_string()),
            Ok(Err(ClientError::Unreachable(error))) if is_over(&error) => Answer::Ended,
            Ok(Err(ClientError::Unreachable(_))) | Err(_) => Answer::None,
        }
    }

    async fn start(&mut self) -> Result<(), ProcessError> {
        (self.started, self.used) = (Some(Instant::now()), true);
        self.wait = (self.wait * 2).clamp(BACK_OFF.0, BACK_OFF.1);
        let mut child = Command::new(&self.program.path)
            .args(&self.program.words)
            .arg(&self.run_dir)
            .current_dir("/")
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // What ends the daemon's group from a terminal does not end it.
            .process_group(0)
            .spawn()
            .map_err(ProcessError::Start)?;
        self.join_group(child.id());
        let until = Instant::now() + START_WITHIN;
        while Instant::now() < until && !matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            // The one before may take connections for a moment yet.
            if let Some(line) = self.connect().await.filter(|line| is_of(line, &child)) {
                tracing::info!(pid = child.id(), "the engine of encrypted networks has started");
                (self.line, self.child) = (Some(line), Some(child));
                return Ok(());
            }
            sleep(POLL).await;
        }
        // One that runs and does not answer would keep the next from starting.
        let _ = child.start_kill();
        self.child = Some(child);
        Err(ProcessError::Silent)
    }

    /// A cgroup of version 2 with processes in it can have no groups below, so it must not be in the
    /// daemon's.
    fn join_group(&self, pid: Option<u32>) {
        let (Some(group), Some(pid)) = (&self.group, pid) else { return };
        // One that is there is as good as a new one.
        let _ = fs::create_dir(group);
        if let Err(error) = fs::write(group.join("cgroup.procs"), pid.to_string()) {
            tracing::warn!(group = %group.display(), %error, "no cgroup for the engine");
        }
    }

    async fn clear_group(&self) {
        let Some(group) = &self.group else { return };
        let until = Instant::now() + END_WITHIN;
        let procs = group.join("cgroup.procs");
        // It is busy for a moment after its last process has ended. With processes in it, it is also that
        // of another daemon, which was started in the same cgroup.
        while fs::remove_dir(group).is_err()
            && fs::read_to_string(&procs).is_ok_and(|pids| pids.is_empty())
            && Instant::now() < until
        {
            sleep(POLL).await;
        }
    }

    fn forget(&mut self) {
        // Dropped, it is reaped behind our back.
        (self.line, self.child) = (None, None);
        if self.started.is_none_or(|started| started.elapsed() >= LIVED_WELL) {
            self.wait = Duration::ZERO;
        }
    }
}

/// What a process says that is asked whether it understands us.
enum Answer {
    Understood,
    Refused(String),
    /// It has hung up, or there is none.
    Ended,
    /// None, in the time that a client waits.
    None,
}

/// Whether an error says more than that somebody is slow (`SO_RCVTIMEO`, socket(7)).
fn is_over(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Whether the other end is there; it says nothing unless it is asked.
fn is_open(line: &UnixStream) -> bool {
    matches!(line.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

async fn hung_up(line: &UnixStream) {
    while is_open(line) {
        if line.readable().await.is_err() {
            return;
        }
    }
}

/// The process at the other end of its socket.
fn pid(line: &UnixStream) -> Option<Pid> {
    line.peer_cred().ok()?.pid().map(Pid::from_raw)
}

fn is_of(line: &UnixStream, child: &Child) -> bool {
    pid(line).and_then(|pid| u32::try_from(pid.as_raw()).ok()) == child.id()
}

async fn end(line: &UnixStream) {
    signal(line, Signal::SIGTERM).await;
    if is_open(line) {
        signal(line, Signal::SIGKILL).await;
    }
}

/// Sends it a signal and waits a while for its end.
async fn signal(line: &UnixStream, signal: Signal) {
    if let Some(pid) = pid(line) {
        // It may be ending already.
        let _ = kill(pid, signal);
    }
    // Another signal follows, or it is beyond help.
    let _ = timeout(END_WITHIN, hung_up(line)).await;
}
