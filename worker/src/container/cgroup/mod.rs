//! The container's cgroups: memory, cpu, pids and devices, on version 1, version 2 or both
//! (hybrid).
//!
//! They lie directly below the cgroup the daemon was started in, which is all we may take for ours.
//! Version 2 allows no processes beside child groups with controllers, so there the daemon first
//! moves itself into the leaf `weft-daemon`. A limit that cannot be set is not an error: the
//! container runs without it, and `Applied` says so.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::capabilities::DeviceGuard;
use super::{Error, Limits};

mod devices;
mod limits;
mod own;

pub(crate) use own::Own;

/// How long a killed container's processes may keep its cgroup busy.
const REMOVE_DEADLINE: Duration = Duration::from_secs(2);
const REMOVE_POLL: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Controller {
    Memory,
    Cpu,
    Pids,
    Devices,
}

impl Controller {
    const ALL: [Self; 4] = [Self::Memory, Self::Cpu, Self::Pids, Self::Devices];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
            Self::Devices => "devices",
        }
    }
}

/// Which device files a container may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Devices {
    /// Docker's list.
    Guarded,
    All,
}

/// What a container got. `missing` is for people: one line for each thing that was asked for and is
/// not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The container's own directories, each to be removed at its end.
    pub dirs: Vec<PathBuf>,
    pub missing: Vec<String>,
    /// Whether a device cgroup is in force.
    pub devices: bool,
    /// The file that counts processes killed for the memory limit.
    pub oom_file: Option<PathBuf>,
    /// The container's group of version 2, if it has one.
    pub v2: Option<PathBuf>,
    /// Those of version 1, by controller.
    pub v1: BTreeMap<Controller, PathBuf>,
}

impl Applied {
    pub(crate) fn guard(&self) -> DeviceGuard {
        if self.devices { DeviceGuard::Cgroup } else { DeviceGuard::None }
    }
}

impl Applied {
    pub(super) fn say_if_wanted(&mut self, controller: Controller, limits: &Limits, reason: &str) {
        let wanted = match controller {
            Controller::Memory => limits.memory.map(|v| format!("memory limit of {v} B")),
            Controller::Cpu => {
                limits.cpu_millis.map(|v| format!("limit of {v} thousandths of a CPU"))
            }
            Controller::Pids => limits.pids.map(|v| format!("limit of {v} processes")),
            Controller::Devices => Some("device rules (so CAP_MKNOD is not given)".to_owned()),
        };
        if let Some(what) = wanted {
            self.missing.push(format!("{what} not in force: {reason}"));
        }
    }
}

/// Moves the calling process into the container's groups.
pub(crate) fn join(dirs: &[PathBuf]) -> Result<(), Error> {
    for dir in dirs {
        let file = dir.join("cgroup.procs");
        std::fs::write(&file, "0").map_err(Error::io("cannot join cgroup", file))?;
    }
    Ok(())
}

/// Kills what is in the groups and removes them; none left is a success.
pub(crate) fn remove(dirs: &[PathBuf]) -> Result<(), Error> {
    let deadline = Instant::now() + REMOVE_DEADLINE;
    for dir in dirs {
        loop {
            match std::fs::remove_dir(dir) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) if Instant::now() > deadline => {
                    return Err(Error::CgroupBusy { dir: dir.clone(), source: error });
                }
                Err(_) => {}
            }
            kill_all(dir);
            std::thread::sleep(REMOVE_POLL);
        }
    }
    Ok(())
}

/// Kills what is in the groups, without waiting.
pub(crate) fn kill(dirs: &[PathBuf]) -> Result<(), Error> {
    dirs.iter().for_each(|dir| kill_all(dir));
    Ok(())
}

fn kill_all(dir: &Path) {
    let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for pid in text.lines().filter_map(|l| l.parse().ok()).filter(|pid| *pid > 0) {
        // One that has ended meanwhile is what we want.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
    }
}
