//! Containers: made from a directory or image, each owned by a shim that outlives the daemon.
//!
//! `Runtime` is what the rest of the worker sees; `Embedded` is the one that does it with our own
//! shim and the library `libcontainer`, and needs nothing installed. A container is started in two
//! steps: `create` gives a network namespace to plumb, `start` runs the command in it.
//!
//! **Architecture invariant:** everything of a container can be found again from its two
//! directories (`layout.rs`), so `list` and `remove` can adopt or clean whatever a crash between
//! any two steps has left.

use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

mod attach;
mod capabilities;
mod cgroup;
mod config;
mod embedded;
mod error;
mod exec;
#[doc(hidden)]
pub mod fuzzing;
pub mod helper;
mod hold;
mod kept;
mod layout;
mod logs;
mod make;
mod ports;
mod program;
mod rootfs;
mod seccomp;
mod shim;
mod spec;
mod status;
mod user;
mod wire;

pub use attach::{
    AttachConfig, AttachInput, AttachOutput, AttachRecord, AttachSession, AttachTerminal,
};
pub(crate) use cgroup::Own as OwnGroups;
pub use cgroup::{Applied, Controller};
pub use config::{
    Access, BindMount, ContainerConfig, ContainerId, DEFAULT_PATH, DEFAULT_STOP_GRACE, EtcFile,
    Image, Limits, MIN_MEMORY, MissingSource, NetNamespace, Tmpfs, Ulimit,
};
pub use embedded::{Embedded, EmbeddedConfig};
pub use error::{Error, chain};
pub use exec::{ExecConfig, ExecIo, ExecSession, Pty, Terminal, WindowSize};
pub use hold::Holders;
pub use logs::{LogQuery, LogRecord, LogStream, OutputStream};
pub use ports::{HostPort, Protocol};
pub use status::{Exit, Phase, Status};

/// The exit code of a command that the runtime itself could not start (Docker's).
pub const EXIT_NOT_STARTED: i32 = 125;

/// The two sockets on 127.0.0.11 inside of a container's namespace. These are duplicates: the shim
/// keeps its own, so queries wait in them while no daemon is there. Both are non-blocking.
#[derive(Debug)]
pub struct DnsSockets {
    pub udp: UdpSocket,
    pub tcp: TcpListener,
    /// The port of both.
    pub port: u16,
}

/// A container that waits to be plumbed and started.
#[derive(Debug)]
pub struct Created {
    /// The network namespace, as long as the container is not removed. For `NetNamespace::Host` the
    /// daemon's.
    pub netns: PathBuf,
    /// Whose namespace that is.
    pub shim_pid: i32,
    /// `None` unless the namespace is the container's own.
    pub dns: Option<DnsSockets>,
    /// What was asked for and this machine cannot give, one line each.
    pub missing: Vec<String>,
}

/// A container found on this machine.
#[derive(Clone, Debug)]
pub struct Found {
    pub id: ContainerId,
    /// `None` if the daemon died before it was written: the container can only be removed.
    pub config: Option<ContainerConfig>,
    pub status: Status,
    pub missing: Vec<String>,
}

impl Found {
    /// The network namespace, while the shim lives.
    pub fn netns(&self) -> Option<PathBuf> {
        (self.status.shim_pid > 0).then(|| embedded::netns(self.status.shim_pid))
    }
}

/// A container's end, told once for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub id: ContainerId,
    /// `Exited`, or `Failed` if its shim died.
    pub phase: Phase,
}

/// Something that runs containers. Every call may be repeated after a crash of the caller.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// All containers on this machine, adopted if they live, with what is left of a dead shim's
    /// killed.
    async fn list(&self) -> Result<Vec<Found>, Error>;

    /// Whether a directory can be the image of a container.
    ///
    /// # Errors
    /// `Rootfs`, `RootfsNotDirectory`, `RootfsIsOurs`.
    async fn check_image(&self, _dir: &Path) -> Result<(), Error> {
        Ok(())
    }

    /// Makes everything but the command. On an error nothing is left.
    async fn create(&self, config: ContainerConfig) -> Result<Created, Error>;

    /// Makes a container that has ended ready for another `start`, in a new network namespace, with
    /// what it has written, its log and its files in /etc as they are. May be repeated if it fails.
    ///
    /// # Errors
    /// `AlreadyStarted` if it has not ended.
    async fn renew(&self, id: &ContainerId) -> Result<Created, Error>;

    /// Runs the command; returns its pid on the host.
    ///
    /// # Errors
    /// `NotStarted` with exit code 126 or 127 if the command cannot be executed or found; the
    /// container is then `Exited` with that code, and still to be removed.
    async fn start(&self, id: &ContainerId) -> Result<i32, Error>;

    async fn status(&self, id: &ContainerId) -> Result<Status, Error>;

    /// Waits for the end of a container, which may have come already.
    async fn wait(&self, id: &ContainerId) -> Result<Exit, Error>;

    /// Ends as they come, from now on; `list` first, then this misses none that was running. A
    /// receiver that lags is told so and must `list` again.
    fn ended(&self) -> broadcast::Receiver<Ended>;

    /// Live streams of the main process. Attached before `start` they miss nothing of it. A client
    /// that does not read never holds the container up: it lags behind in the log, and when the log
    /// is no longer that long it is told how much it has lost.
    ///
    /// # Errors
    /// `NotRunning` if the container has ended.
    async fn attach(&self, id: &ContainerId, config: AttachConfig) -> Result<AttachSession, Error>;

    /// Takes these ports of the host, and no others, for the container, until it is released. What
    /// the kernel does not pass on itself (connections of the host to its own loopback) the shim
    /// does. A port that was taken before stays so all the while. May be called from `create` on.
    ///
    /// # Errors
    /// `PortInUse` if a port cannot be had: then those that were there before stay. `PortsNotOwn`
    /// if the network namespace is not the container's.
    async fn publish(&self, id: &ContainerId, ports: &[HostPort]) -> Result<(), Error>;

    /// How often a port could not be had, since the start.
    fn port_conflicts(&self) -> u64 {
        0
    }

    /// The stop signal, and SIGKILL after `grace`; returns when the container has ended. Success if
    /// it had.
    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<Exit, Error>;

    /// Sends a signal to the first process. One without a handler for it does not notice, as is the
    /// kernel's rule for the first process of a pid namespace.
    async fn kill(&self, id: &ContainerId, signal: i32) -> Result<(), Error>;

    /// Gives one of our files in /etc a new text, also while the container runs.
    async fn write_etc(&self, id: &ContainerId, file: EtcFile, text: &str) -> Result<(), Error>;

    /// Lets go of what a container holds in the kernel after its end: its shim and with it the
    /// network namespace. Its status and its output stay until it is removed. One that runs is
    /// ended first.
    async fn release(&self, id: &ContainerId) -> Result<(), Error>;

    /// Ends the container if it runs and removes all that is left of it; success if there is none.
    async fn remove(&self, id: &ContainerId) -> Result<(), Error>;

    async fn logs(&self, id: &ContainerId, query: LogQuery) -> Result<LogStream, Error>;

    /// Runs a command in a running container. The session's processes die with the session.
    ///
    /// # Errors
    /// `NotExecuted` with exit code 126 or 127.
    async fn exec(&self, id: &ContainerId, config: ExecConfig) -> Result<ExecSession, Error>;

    async fn dns_sockets(&self, id: &ContainerId) -> Result<DnsSockets, Error>;
}
