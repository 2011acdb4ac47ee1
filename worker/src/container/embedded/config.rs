//! How the embedded runtime is set up.

use std::ffi::OsString;
use std::path::PathBuf;

/// Where the runtime keeps its things, and what makes its containers.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// For sockets and what dies with the machine; the containers are below `containers/`.
    pub run_dir: PathBuf,
    /// For what may survive it.
    pub state_dir: PathBuf,
    /// Directories beside these two that no container may see.
    pub hidden: Vec<PathBuf>,
    /// The program that calls `helper::main`, and the words before the helper's own.
    pub helper: PathBuf,
    pub helper_args: Vec<OsString>,
}

impl EmbeddedConfig {
    /// With this process's own program as the helper.
    pub fn new(run_dir: impl Into<PathBuf>, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            run_dir: run_dir.into(),
            state_dir: state_dir.into(),
            hidden: Vec::new(),
            helper: "/proc/self/exe".into(),
            helper_args: Vec::new(),
        }
    }
}
