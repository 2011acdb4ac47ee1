//! The processes that hold DNS sockets in namespaces of others: shims without a container, so that
//! queries wait in the sockets while no daemon is there.

use std::{
    ffi::OsString,
    fs,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    ContainerId, DnsSockets, Error,
    layout::Layout,
    shim::{self, Shim},
};

/// What the shim is told before the path of a namespace that it only holds.
const HOLD: &str = "hold:";
/// The directory of all holders, below the run directory and the state directory.
const DIRECTORY: &str = "attachments";

/// Starts, finds and ends them. Cheap to clone.
#[derive(Clone)]
pub struct Holders {
    run_dir: PathBuf,
    state_dir: PathBuf,
    program: Arc<OwnedFd>,
}

impl Holders {
    /// With their sockets below `run_dir` and their status below `state_dir`.
    ///
    /// # Errors
    /// When their program cannot be held in memory.
    pub fn new(run_dir: &Path, state_dir: &Path) -> Result<Self, Error> {
        Ok(Self {
            run_dir: run_dir.join(DIRECTORY),
            state_dir: state_dir.join(DIRECTORY),
            program: Arc::new(shim::program()?),
        })
    }

    fn layout(&self, id: &ContainerId) -> Layout {
        Layout { run: self.run_dir.join(id.as_str()), state: self.state_dir.join(id.as_str()) }
    }

    /// The sockets of a holder that runs.
    ///
    /// # Errors
    /// When there is none.
    pub async fn find(&self, id: &ContainerId) -> Result<DnsSockets, Error> {
        Shim::connect(id, &self.layout(id)).await?.dns().await
    }

    /// The sockets in the namespace at `netns`; starts a holder if none runs.
    ///
    /// # Errors
    /// When it cannot be started there.
    pub async fn ensure(&self, id: &ContainerId, netns: &Path) -> Result<DnsSockets, Error> {
        if let Ok(found) = self.find(id).await {
            return Ok(found);
        }
        let (own, id_of, netns) = (self.clone(), id.clone(), netns.to_owned());
        let started = tokio::task::spawn_blocking(move || own.start(&id_of, &netns)).await;
        started.map_err(|error| Error::Os {
            what: "a blocking task died",
            source: std::io::Error::other(error),
        })??;
        self.find(id).await
    }

    fn start(&self, id: &ContainerId, netns: &Path) -> Result<(), Error> {
        // One that a daemon started and did not live to see bound would hold the namespace for ever.
        self.clear(id);
        let layout = self.layout(id);
        for directory in [&layout.run, &layout.state] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(Error::io("cannot make directory", directory))?;
        }
        let mut net = OsString::from(HOLD);
        net.push(netns);
        shim::start_in(&self.program, id, &layout, &net)
    }

    /// Ends a holder, if there is one, and leaves nothing of it.
    pub async fn end(&self, id: &ContainerId) {
        if let Ok(mut shim) = Shim::connect(id, &self.layout(id)).await {
            // One that does not answer is killed below.
            let _ = shim.shutdown().await;
        }
        let (own, id) = (self.clone(), id.clone());
        // It fails only if it panicked, and then the files stay until the next start.
        let _ = tokio::task::spawn_blocking(move || own.clear(&id)).await;
    }

    fn clear(&self, id: &ContainerId) {
        let layout = self.layout(id);
        for pid in processes(id, &layout.run) {
            // It may have ended by itself.
            let _ = kill(pid, Signal::SIGKILL);
        }
        // What is not there needs no removal, and what stays is overwritten.
        let _ = fs::remove_dir_all(&layout.run);
        let _ = fs::remove_dir_all(&layout.state);
    }
}

/// Shims with this ID and this directory, by their command lines.
fn processes(id: &ContainerId, run: &Path) -> Vec<Pid> {
    let run = run.to_string_lossy();
    let words = [shim::NAME, id.as_str(), &run];
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let found = line.split(|byte| *byte == 0).take(words.len());
        found.eq(words.iter().map(|word| word.as_bytes()))
    })
    .map(Pid::from_raw)
    .collect()
}
