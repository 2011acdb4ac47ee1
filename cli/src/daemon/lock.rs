//! One daemon for each network namespace and for each state directory: two would sweep each other's
//! links, or write over each other's state.

use std::{
    fs::{File, OpenOptions},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket},
};

use tokio::time::Instant;

use super::Settings;

/// An abstract socket's name belongs to the network namespace, and goes with the process.
const NAME: &[u8] = b"weft.daemon";
/// The file in the state directory that is locked.
const FILE: &str = "lock";

/// Held as long as the daemon runs.
#[derive(Debug)]
pub struct Only {
    _namespace: OwnedFd,
    _directory: Flock<File>,
}

/// How long a daemon that was killed just now may take to be gone: the kernel lets go of its locks
/// only when its last thread has ended.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Between tries.
const PAUSE: Duration = Duration::from_millis(25);

/// Takes both locks.
///
/// # Errors
/// Another daemon has one of them.
pub async fn take(settings: &Settings) -> anyhow::Result<Only> {
    let until = Instant::now() + PATIENCE;
    loop {
        match try_take(settings) {
            Ok(only) => return Ok(only),
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn try_take(settings: &Settings) -> anyhow::Result<Only> {
    let path = settings.state_dir.join(FILE);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let directory = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        let directory = settings.state_dir.display();
        match errno {
            Errno::EWOULDBLOCK => anyhow::anyhow!(
                "another daemon uses the state directory {directory}; give another --state-dir"
            ),
            other => anyhow::anyhow!("cannot lock {}: {other}", path.display()),
        }
    })?;
    let namespace = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let name = UnixAddr::new_abstract(NAME)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&namespace), &name).map_err(|errno| match errno {
        Errno::EADDRINUSE => anyhow::anyhow!(
            "another weft daemon runs in this network namespace; stop it, or start this one in a \
             namespace of its own"
        ),
        other => anyhow::anyhow!("cannot lock the network namespace: {other}"),
    })?;
    Ok(Only { _namespace: namespace, _directory: directory })
}
