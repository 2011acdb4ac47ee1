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
use super::{ContainerId, Error, Limits};

/// The leaf the daemon moves into on version 2.
const DAEMON_LEAF: &str = "weft-daemon";
/// The period a CPU quota is counted in (the kernel's default).
const CPU_PERIOD_US: u64 = 100_000;
/// How long a killed container's processes may keep its cgroup busy.
const REMOVE_DEADLINE: Duration = Duration::from_secs(2);
const REMOVE_POLL: Duration = Duration::from_millis(2);
/// What a container may do with device files, beside making them (Docker's list): null, zero, full,
/// random, urandom, tty, console, ptmx, and pseudo terminals.
const DEVICES: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Controller {
    Memory,
    Cpu,
    Pids,
    Devices,
}

impl Controller {
    const ALL: [Self; 4] = [Self::Memory, Self::Cpu, Self::Pids, Self::Devices];

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
            Self::Devices => "devices",
        }
    }
}

/// The cgroups this process is in, by controller, and the one of version 2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Own {
    v1: BTreeMap<Controller, PathBuf>,
    v2: Option<PathBuf>,
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
    /// The container's group of version 2, if that is the one in use.
    pub v2: bool,
}

impl Applied {
    pub(crate) fn guard(&self) -> DeviceGuard {
        if self.devices { DeviceGuard::Cgroup } else { DeviceGuard::None }
    }
}

impl Own {
    pub(crate) fn detect() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    /// From the texts of /proc/self/mountinfo (proc(5)) and /proc/self/cgroup (cgroups(7)).
    fn parse(mountinfo: &str, cgroup: &str) -> Self {
        let mut own = Self::default();
        let groups: Vec<(&str, &str)> =
            cgroup.lines().filter_map(|line| line.split_once(':')?.1.split_once(':')).collect();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            let (Some(root), Some(point)) = (left.get(3), left.get(4)) else { continue };
            let below = |path: &str| -> Option<PathBuf> {
                let inside = Path::new(path).strip_prefix(root).ok()?;
                Some(Path::new(point).join(inside))
            };
            match right.first() {
                Some(&"cgroup2") => {
                    let path = groups.iter().find(|(names, _)| names.is_empty()).map(|(_, p)| *p);
                    own.v2 = own.v2.or_else(|| without_leaf(path.and_then(below)?));
                }
                Some(&"cgroup") => {
                    let options = right.last().copied().unwrap_or_default();
                    for controller in Controller::ALL {
                        let has = |list: &str| list.split(',').any(|n| n == controller.name());
                        let group = groups.iter().find(|(names, _)| has(names));
                        if let Some(dir) =
                            group.filter(|_| has(options)).and_then(|(_, p)| below(p))
                        {
                            own.v1.entry(controller).or_insert(dir);
                        }
                    }
                }
                _ => {}
            }
        }
        own
    }

    /// Where the container's directories would be: to be written down before they are made, so that
    /// a crash in between leaves nothing unknown.
    pub(crate) fn planned(&self, id: &ContainerId) -> Vec<PathBuf> {
        let name = format!("weft-{id}");
        let mut dirs: Vec<PathBuf> = self.v1.values().map(|d| d.join(&name)).collect();
        dirs.extend(self.v2.iter().map(|d| d.join(&name)));
        dirs.sort();
        dirs.dedup();
        dirs
    }

    /// Makes the container's groups and sets its limits.
    pub(crate) fn create(&self, id: &ContainerId, limits: &Limits) -> Applied {
        let name = format!("weft-{id}");
        let mut applied = Applied::default();
        let unified = self.unified(&name, &mut applied);
        for controller in Controller::ALL {
            let made = match (self.v1.get(&controller), &unified) {
                (Some(base), _) => make(base.join(&name)).map(|dir| (dir, Version::One)),
                (None, Some((dir, controllers))) if controllers.contains(&controller) => {
                    Ok((dir.clone(), Version::Two))
                }
                (None, _) => Err(io::Error::other("no such controller here")),
            };
            let (dir, version) = match made {
                Ok(made) => made,
                Err(error) => {
                    applied.say_if_wanted(controller, limits, &error.to_string());
                    continue;
                }
            };
            if let Err((file, error)) = set(&dir, version, controller, limits) {
                applied.say_if_wanted(controller, limits, &format!("{file}: {error}"));
            } else if controller == Controller::Devices {
                applied.devices = true;
            }
            if controller == Controller::Memory {
                applied.oom_file = Some(dir.join(version.oom_file()));
            }
            if !applied.dirs.contains(&dir) {
                applied.dirs.push(dir);
            }
        }
        applied
    }

    /// The container's group of version 2, with the controllers it has.
    fn unified(&self, name: &str, applied: &mut Applied) -> Option<(PathBuf, Vec<Controller>)> {
        let base = self.v2.as_ref()?;
        let available = std::fs::read_to_string(base.join("cgroup.controllers")).ok()?;
        let wanted: Vec<Controller> = Controller::ALL
            .into_iter()
            .filter(|c| available.split_whitespace().any(|n| n == c.name()))
            .collect();
        if wanted.is_empty() {
            return None;
        }
        if let Err(error) = enable(base, &wanted) {
            applied
                .missing
                .push(format!("cgroup {}: controllers not enabled: {error}", base.display()));
            return None;
        }
        let dir = make(base.join(name)).ok()?;
        applied.v2 = true;
        Some((dir, wanted))
    }
}

impl Applied {
    fn say_if_wanted(&mut self, controller: Controller, limits: &Limits, reason: &str) {
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

#[derive(Clone, Copy)]
enum Version {
    One,
    Two,
}

impl Version {
    fn oom_file(self) -> &'static str {
        match self {
            Self::One => "memory.oom_control",
            Self::Two => "memory.events",
        }
    }
}

/// The daemon's leaf counts as the group above it.
fn without_leaf(dir: PathBuf) -> Option<PathBuf> {
    if dir.ends_with(DAEMON_LEAF) { dir.parent().map(Path::to_owned) } else { Some(dir) }
}

fn make(dir: PathBuf) -> io::Result<PathBuf> {
    match std::fs::create_dir(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(dir),
    }
}

/// Lets children of `base` have the controllers, moving ourselves out of the way if need be.
fn enable(base: &Path, wanted: &[Controller]) -> io::Result<()> {
    let file = base.join("cgroup.subtree_control");
    let now = std::fs::read_to_string(&file)?;
    let words: Vec<String> = wanted
        .iter()
        .filter(|c| !now.split_whitespace().any(|n| n == c.name()))
        .map(|c| format!("+{}", c.name()))
        .collect();
    if words.is_empty() {
        return Ok(());
    }
    match std::fs::write(&file, words.join(" ")) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            let leaf = make(base.join(DAEMON_LEAF))?;
            std::fs::write(leaf.join("cgroup.procs"), std::process::id().to_string())?;
            std::fs::write(&file, words.join(" "))
        }
        other => other,
    }
}

/// Writes one controller's limits; the file's name comes back with an error.
fn set(
    dir: &Path,
    version: Version,
    controller: Controller,
    limits: &Limits,
) -> Result<(), (&'static str, io::Error)> {
    let write = |file: &'static str, text: String| {
        std::fs::write(dir.join(file), text).map_err(|error| (file, error))
    };
    match (controller, version) {
        (Controller::Memory, Version::One) => {
            let Some(bytes) = limits.memory else { return Ok(()) };
            write("memory.limit_in_bytes", bytes.to_string())?;
            // As much swap again, as Docker; a kernel without swap accounting has no such file.
            let _ = write("memory.memsw.limit_in_bytes", bytes.saturating_mul(2).to_string());
            Ok(())
        }
        (Controller::Memory, Version::Two) => {
            let Some(bytes) = limits.memory else { return Ok(()) };
            write("memory.max", bytes.to_string())?;
            // As above: absent without swap.
            let _ = write("memory.swap.max", bytes.to_string());
            Ok(())
        }
        (Controller::Cpu, version) => {
            let Some(millis) = limits.cpu_millis else { return Ok(()) };
            let quota = (u64::from(millis) * CPU_PERIOD_US / 1000).max(1000);
            match version {
                Version::One => {
                    write("cpu.cfs_period_us", CPU_PERIOD_US.to_string())?;
                    write("cpu.cfs_quota_us", quota.to_string())
                }
                Version::Two => write("cpu.max", format!("{quota} {CPU_PERIOD_US}")),
            }
        }
        (Controller::Pids, _) => limits.pids.map_or(Ok(()), |n| write("pids.max", n.to_string())),
        (Controller::Devices, Version::One) => {
            write("devices.deny", "a".to_owned())?;
            DEVICES.iter().try_for_each(|rule| write("devices.allow", (*rule).to_owned()))
        }
        // Version 2 has no device files; it would take a BPF program.
        (Controller::Devices, Version::Two) => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
1 0 0:1 / / rw - ext4 /dev/vda rw
2 1 0:2 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
3 1 0:3 / /sys/fs/cgroup/memory rw shared:4 - cgroup cgroup rw,memory
4 1 0:4 / /sys/fs/cgroup/pids,x rw - cgroup cgroup rw,pids
5 1 0:5 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";

    fn id() -> ContainerId {
        ContainerId::new("c1").expect("id")
    }

    #[test]
    fn hybrid() {
        let own = Own::parse(HYBRID, "8:pids:/\n4:memory:/a/b\n1:cpu:/\n0::/\n");
        let planned: Vec<String> =
            own.planned(&id()).iter().map(|p| p.display().to_string()).collect();
        assert_eq!(
            planned,
            [
                "/sys/fs/cgroup/cpu/weft-c1",
                "/sys/fs/cgroup/memory/a/b/weft-c1",
                "/sys/fs/cgroup/pids,x/weft-c1",
                "/sys/fs/cgroup/unified/weft-c1"
            ]
        );
    }

    #[test]
    fn unified_from_inside_the_daemons_leaf() {
        let mounts = "5 1 0:5 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
        let own = Own::parse(mounts, "0::/system.slice/weft.service/weft-daemon\n");
        assert_eq!(own.v2, Some("/sys/fs/cgroup/system.slice/weft.service".into()));
    }

    #[test]
    fn a_mount_of_a_part_is_taken_off_the_path_and_a_foreign_part_is_not_ours() {
        let mounts = "5 1 0:5 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        let own = Own::parse(mounts, "4:memory:/docker/x/y\n");
        assert_eq!(own.v1[&Controller::Memory], PathBuf::from("/sys/fs/cgroup/memory/y"));
        assert_eq!(Own::parse(mounts, "4:memory:/elsewhere\n"), Own::default());
    }

    #[test]
    fn with_no_controller_a_limit_is_said_to_be_missing() {
        let limits = Limits { memory: Some(1 << 30), ..Limits::default() };
        let applied = Own::default().create(&id(), &limits);
        assert!(applied.dirs.is_empty() && !applied.devices);
        assert!(applied.missing[0].contains("1073741824"), "{applied:?}");
    }
}
