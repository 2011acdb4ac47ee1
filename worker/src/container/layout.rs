//! Where a container's things lie. The run directory is for what dies with the machine, the state
//! directory for what may survive it.

use std::path::{Path, PathBuf};

use super::ContainerId;

/// One container's two directories.
#[derive(Clone, Debug)]
pub struct Layout {
    /// `RUN/containers/ID`: the shim's socket, the bundle, the runtime library's own files.
    pub run: PathBuf,
    /// `STATE/containers/ID`: config, status, log, writable layer, files for /etc.
    pub state: PathBuf,
}

impl Layout {
    pub fn new(run_root: &Path, state_root: &Path, id: &ContainerId) -> Self {
        Self {
            run: containers(run_root).join(id.as_str()),
            state: containers(state_root).join(id.as_str()),
        }
    }

    pub fn bundle(&self) -> PathBuf {
        self.run.join("bundle")
    }

    /// The runtime library keeps its files here; the shim knows the name, too.
    pub fn library(&self) -> PathBuf {
        self.run.join("lc")
    }

    /// Where the overlay is mounted, in a mount namespace only the container has.
    pub fn root(&self) -> PathBuf {
        self.run.join("root")
    }

    /// Where the helper shows one of the container's cgroups of version 1. Not by the controller's
    /// plain name: the library would take such a mount point for the whole hierarchy's.
    pub fn cgroup(&self, controller: &str) -> PathBuf {
        self.run.join("cgroups").join(format!("{controller}.group"))
    }

    pub fn config(&self) -> PathBuf {
        self.state.join("config.json")
    }

    pub fn status(&self) -> PathBuf {
        self.state.join("status")
    }

    pub fn log(&self) -> PathBuf {
        self.state.join("log")
    }

    /// Where a writable layer in memory is mounted, in the helper's namespace.
    pub fn memory(&self) -> PathBuf {
        self.run.join("memory")
    }

    /// Our own text behind /etc/resolv.conf, /etc/hosts and /etc/hostname.
    pub fn etc(&self, file: &str) -> PathBuf {
        self.state.join("etc").join(file)
    }
}

/// The directory of all containers below a root.
pub fn containers(root: &Path) -> PathBuf {
    root.join("containers")
}
