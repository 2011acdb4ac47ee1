//! What can go wrong with a container, with the values that say where.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::{ContainerId, Protocol, Ulimit};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(
        "{id:?} is not a container id: 1 to 64 of A-Z a-z 0-9 _ . -, beginning with a letter or digit"
    )]
    BadId { id: String },
    #[error("container {id} has no command, and a rootfs: image has no default one")]
    NoCommand { id: ContainerId },
    #[error("working directory {cwd:?} is not absolute")]
    CwdNotAbsolute { cwd: PathBuf },
    #[error("{text:?} contains a NUL")]
    NulInText { text: String },
    #[error("environment entry {entry:?} is not KEY=VALUE")]
    BadEnv { entry: String },
    #[error("{name:?} is not a kernel setting a container of this kind may have")]
    BadSysctl { name: String },
    #[error("invalid tmpfs path or option {what:?}")]
    BadTmpfs { what: String },
    #[error("invalid ulimit {}={}:{}", ulimit.name, ulimit.soft, ulimit.hard)]
    BadUlimit { ulimit: Ulimit },
    /// Docker's words.
    #[error(
        "invalid mount config for type \"bind\": bind source path does not exist: {}",
        path.display()
    )]
    BindSourceMissing { path: PathBuf },
    #[error("container {id}: an exec with extended privileges (--privileged) is not supported")]
    PrivilegedExec { id: ContainerId },
    /// Another socket of this host has the port, or the address is not one of this host's.
    #[error("failed to bind host port {listen}/{protocol}")]
    PortInUse {
        listen: SocketAddr,
        protocol: Protocol,
        #[source]
        source: io::Error,
    },
    #[error("container {id} has no network namespace of its own whose ports could be published")]
    PortsNotOwn { id: ContainerId },
    #[error("unknown capability {name:?}")]
    BadCapability { name: String },
    #[error("memory limit {memory} B is below the least of {least} B")]
    MemoryTooSmall { memory: u64, least: u64 },
    #[error("root file system {dir:?} cannot be used")]
    Rootfs {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("root file system {dir:?} is not a directory")]
    RootfsNotDirectory { dir: PathBuf },
    #[error("root file system {dir:?} lies in our own directory {own:?}, which holds keys")]
    RootfsIsOurs { dir: PathBuf, own: PathBuf },
    #[error("container {id} exists already")]
    Exists { id: ContainerId },
    #[error("no container {id}")]
    NotFound { id: ContainerId },
    #[error("container {id} is not running")]
    NotRunning { id: ContainerId },
    #[error("container {id} was started before")]
    AlreadyStarted { id: ContainerId },
    #[error("container {id} could not be started: {reason}")]
    NotStarted { id: ContainerId, exit_code: i32, reason: String },
    #[error("{reason}")]
    NotExecuted { id: ContainerId, exit_code: i32, reason: String },
    #[error("container {id} has no DNS sockets, since its network namespace is not its own")]
    NoDns { id: ContainerId },
    #[error("the shim of container {id} is gone")]
    ShimGone { id: ContainerId },
    #[error("the shim of container {id} could not be started: {reason}")]
    ShimNotStarted { id: ContainerId, reason: String },
    #[error("the shim of container {id} refused {request}: {reason}")]
    ShimRefused { id: ContainerId, request: &'static str, reason: String },
    #[error("cgroup {dir:?} could not be removed")]
    CgroupBusy {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{what} {path:?}")]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{what}")]
    Os {
        what: &'static str,
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The exit code a command line should give for a command that did not run: 127 not found, 126
    /// not executable, 125 anything else (Docker's).
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NotStarted { exit_code, .. } | Self::NotExecuted { exit_code, .. } => *exit_code,
            _ => super::EXIT_NOT_STARTED,
        }
    }

    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    pub(crate) fn os(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Os { what, source }
    }
}

/// An error with its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some of the library's errors already say their cause.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
