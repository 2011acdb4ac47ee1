//! Commands in a running container: the daemon's side. The helper (`helper/exec.rs`) enters the
//! container and stays as the command's parent; it and the command end with the session.
//!
//! Both speak frames (`wire.rs`) on a socket pair, which is the helper's descriptor 0. The daemon
//! sends the request as JSON, with a pidfd of the container's first process and, without a
//! terminal, the three pipes; the helper answers `ok` (with a terminal: and its master side) or
//! `error`, CODE, REASON; then the daemon may send `kill`, SIGNAL, and the helper sends `exit`,
//! CODE.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use nix::unistd::pipe2;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::config::merged_env;
use super::kept::Kept;
use super::wire::{Connection, Fields};
use super::{ContainerId, EXIT_NOT_STARTED, Error, Ulimit, capabilities, helper};

/// Signals on their way to one command.
const SIGNAL_QUEUE: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Terminal {
    No,
    Yes(WindowSize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    pub rows: u16,
    pub columns: u16,
}

/// A command to run in a container.
#[derive(Clone, Debug)]
pub struct ExecConfig {
    pub args: Vec<String>,
    /// `KEY=VALUE`, over the container's own.
    pub env: Vec<String>,
    /// `None`: the container's own.
    pub cwd: Option<PathBuf>,
    pub terminal: Terminal,
    /// `USER[:GROUP]`; empty: the container's own.
    pub user: String,
    /// Refused.
    pub privileged: bool,
}

/// A command's input and output.
#[derive(Debug)]
pub enum ExecIo {
    /// Dropping `stdin` is the end of the command's input.
    Pipes {
        stdin: pipe::Sender,
        stdout: pipe::Receiver,
        stderr: pipe::Receiver,
    },
    Terminal(Pty),
}

/// A running command. Dropping it kills the command.
#[derive(Debug)]
pub struct ExecSession {
    pub io: ExecIo,
    signals: mpsc::Sender<i32>,
    task: JoinHandle<Result<i32, Error>>,
}

impl ExecSession {
    /// Sends a signal to the command; one that has ended takes none.
    pub async fn kill(&self, signal: i32) {
        let _ = self.signals.send(signal).await;
    }

    /// The exit code, 128 + signal after a death by signal. May be called again after a cancelled
    /// call.
    ///
    /// # Errors
    /// If the helper died.
    pub async fn wait(&mut self) -> Result<i32, Error> {
        let joined = (&mut self.task).await;
        joined
            .map_err(|e| Error::Os { what: "the exec session died", source: io::Error::other(e) })?
    }
}

impl Drop for ExecSession {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the helper needs to know; the pidfd and the pipes come beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ExecRequest {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: PathBuf,
    pub terminal: Terminal,
    pub capabilities: std::collections::BTreeSet<String>,
    /// As the container: no system call filter.
    pub privileged: bool,
    pub user: String,
    /// The environment says where the home is.
    pub home: bool,
    pub ulimits: Vec<Ulimit>,
    pub cgroups: Vec<PathBuf>,
}

/// Starts a command in the container whose first process is `pid`.
pub(super) async fn start(
    kept: &Kept,
    pid: i32,
    config: ExecConfig,
    program: &Path,
    program_args: &[OsString],
) -> Result<ExecSession, Error> {
    let id = &kept.config.id;
    let request = request(kept, config)?;
    let pidfd = pidfd_open(pid).map_err(|_| Error::NotRunning { id: id.clone() })?;
    let (ours, theirs) = UnixStream::pair().map_err(Error::os("socket pair"))?;
    let theirs = theirs.into_std().map_err(Error::os("socket pair"))?;
    theirs.set_nonblocking(false).map_err(Error::os("socket pair"))?;
    let child = tokio::process::Command::new(program)
        .arg0("weft")
        .args(program_args)
        .arg(helper::EXEC)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env_clear()
        .spawn()
        .map_err(Error::os("cannot run the exec helper"))?;
    let mut connection = Connection::new(ours);
    let failed =
        |reason: String| Error::NotExecuted { id: id.clone(), exit_code: EXIT_NOT_STARTED, reason };
    let text = serde_json::to_vec(&request).map_err(|e| failed(format!("encode request: {e}")))?;
    let pipes = match request.terminal {
        Terminal::No => Some(Pipes::new().map_err(Error::os("pipe"))?),
        Terminal::Yes(_) => None,
    };
    let mut fds: Vec<BorrowedFd<'_>> = vec![pidfd.as_fd()];
    fds.extend(pipes.iter().flat_map(Pipes::theirs));
    // JSON has no NUL, so it is one field.
    let sent = connection.send(&[b"exec", &text], &fds).await;
    sent.map_err(|e| failed(format!("the exec helper died: {e}")))?;
    let (answer, passed) =
        connection.receive().await.map_err(|e| failed(format!("the exec helper died: {e}")))?;
    refusal(id, &answer)?;
    let io = match pipes {
        Some(pipes) => pipes.into_io().map_err(Error::os("pipe"))?,
        None => {
            let master =
                passed.into_iter().next().ok_or_else(|| failed("no terminal came".into()))?;
            ExecIo::Terminal(Pty::new(master).map_err(Error::os("terminal"))?)
        }
    };
    let (signals, queue) = mpsc::channel(SIGNAL_QUEUE);
    let task = tokio::spawn(session(id.clone(), connection, queue, child));
    Ok(ExecSession { io, signals, task })
}

fn request(kept: &Kept, config: ExecConfig) -> Result<ExecRequest, Error> {
    let own = &kept.config;
    if config.args.first().is_none_or(String::is_empty) {
        return Err(Error::NoCommand { id: own.id.clone() });
    }
    if config.privileged {
        return Err(Error::PrivilegedExec { id: own.id.clone() });
    }
    let mut base = own.effective_env();
    if matches!(config.terminal, Terminal::Yes(_)) {
        base = merged_env(&["TERM=xterm"], &base);
    }
    let says_home = |env: &[String]| env.iter().any(|entry| entry.starts_with("HOME="));
    let base: Vec<&str> = base.iter().map(String::as_str).collect();
    Ok(ExecRequest {
        home: says_home(&own.env) || says_home(&config.env),
        env: merged_env(&base, &config.env),
        args: config.args,
        cwd: config.cwd.unwrap_or_else(|| own.cwd.clone()),
        terminal: config.terminal,
        capabilities: capabilities::of(own, kept.applied.guard())?,
        privileged: own.privileged,
        user: if config.user.is_empty() { own.user.clone() } else { config.user },
        ulimits: own.ulimits.clone(),
        cgroups: kept.applied.dirs.clone(),
    })
}

fn refusal(id: &ContainerId, answer: &Fields) -> Result<(), Error> {
    if answer.first().is_some_and(|f| f == b"ok") {
        return Ok(());
    }
    let text = |at: usize| answer.get(at).map(|f| String::from_utf8_lossy(f).into_owned());
    Err(Error::NotExecuted {
        id: id.clone(),
        exit_code: text(1).and_then(|c| c.parse().ok()).unwrap_or(EXIT_NOT_STARTED),
        reason: text(2).unwrap_or_else(|| "the exec helper said nothing".into()),
    })
}

/// Carries signals to the helper until it tells the exit code. The end of this task closes the
/// socket, which ends the command.
async fn session(
    id: ContainerId,
    mut connection: Connection,
    mut signals: mpsc::Receiver<i32>,
    mut child: tokio::process::Child,
) -> Result<i32, Error> {
    loop {
        let signal = tokio::select! {
            frame = connection.receive() => {
                let died = |reason: String| Error::NotExecuted { id: id.clone(), exit_code: EXIT_NOT_STARTED, reason };
                let (frame, _) = frame.map_err(|e| died(format!("the exec helper died: {e}")))?;
                let code = frame.get(1).and_then(|f| std::str::from_utf8(f).ok()?.parse().ok());
                // The helper ends by itself now; what it ended with tells nothing more.
                let _ = child.wait().await;
                return code.ok_or_else(|| died("the exec helper told no exit code".into()));
            }
            Some(signal) = signals.recv() => signal,
        };
        // A helper that is gone is told by the next receive.
        let _ = connection.send(&[b"kill", signal.to_string().as_bytes()], &[]).await;
    }
}

/// Both ends of a command's three pipes.
struct Pipes {
    stdin: (OwnedFd, OwnedFd),
    stdout: (OwnedFd, OwnedFd),
    stderr: (OwnedFd, OwnedFd),
}

impl Pipes {
    fn new() -> io::Result<Self> {
        let pipe = || pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(io::Error::from);
        Ok(Self { stdin: pipe()?, stdout: pipe()?, stderr: pipe()? })
    }

    fn theirs(&self) -> [BorrowedFd<'_>; 3] {
        [self.stdin.0.as_fd(), self.stdout.1.as_fd(), self.stderr.1.as_fd()]
    }

    fn into_io(self) -> io::Result<ExecIo> {
        Ok(ExecIo::Pipes {
            stdin: pipe::Sender::from_owned_fd(self.stdin.1)?,
            stdout: pipe::Receiver::from_owned_fd(self.stdout.0)?,
            stderr: pipe::Receiver::from_owned_fd(self.stderr.0)?,
        })
    }
}

/// The master side of a terminal inside of the container. Clones share it.
#[derive(Clone, Debug)]
pub struct Pty {
    master: Arc<AsyncFd<OwnedFd>>,
}

impl Pty {
    fn new(master: OwnedFd) -> io::Result<Self> {
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&master, nix::fcntl::FcntlArg::F_SETFL(flags))?;
        // SAFETY: an OwnedFd keeps its descriptor, the same one, open until it is dropped.
        let master = unsafe { AsyncFd::register(master) }.map_err(io::Error::from)?;
        Ok(Self { master: Arc::new(master) })
    }

    /// Reads what the command has written; 0 when it has ended.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read =
            self.master.async_io(Interest::READABLE, |fd| Ok(nix::unistd::read(fd, buffer)?)).await;
        match read {
            // How Linux says that the last process has closed the other side.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
            other => other,
        }
    }

    pub async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let write = |fd: &OwnedFd| Ok(nix::unistd::write(fd, data)?);
            let n = self.master.async_io(Interest::WRITABLE, write).await?;
            data = &data[n..];
        }
        Ok(())
    }

    pub fn resize(&self, size: WindowSize) -> io::Result<()> {
        set_window_size(self.master.get_ref().as_fd(), size)
    }
}

/// Tells a terminal how large its window is (TIOCSWINSZ, ioctl_tty(2)).
pub(super) fn set_window_size(terminal: BorrowedFd<'_>, size: WindowSize) -> io::Result<()> {
    let window =
        libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &window) };
    nix::errno::Errno::result(done).map(drop).map_err(io::Error::from)
}

fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes plain values, and a result that is no error is a fresh descriptor.
    unsafe {
        let fd = nix::errno::Errno::result(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}
