//! The groups the daemon is in, and making the container's below them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::super::{ContainerId, Limits};
use super::limits::{Version, set};
use super::{Applied, Controller, Devices};

/// The leaf the daemon moves into on version 2.
const DAEMON_LEAF: &str = "weft-daemon";

/// The cgroups this process is in, by controller, and the one of version 2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Own {
    v1: BTreeMap<Controller, PathBuf>,
    v2: Option<PathBuf>,
}

impl Own {
    pub(crate) fn detect() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    /// From the texts of /proc/self/mountinfo (proc(5)) and /proc/self/cgroup (cgroups(7)).
    pub(crate) fn parse(mountinfo: &str, cgroup: &str) -> Self {
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

    /// Where the group of a process of ours would be, beside the containers'. Only on version 2: a group
    /// with processes in it can have no groups below there.
    pub(crate) fn beside(&self, name: &str) -> Option<PathBuf> {
        self.v2.as_ref().map(|base| base.join(name))
    }

    /// Makes the container's groups and sets its limits.
    pub(crate) fn create(&self, id: &ContainerId, limits: &Limits, devices: Devices) -> Applied {
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
            if controller == Controller::Devices && devices == Devices::All {
                // The group has what the one above it has.
            } else if let Err((file, error)) = set(&dir, version, controller, limits) {
                applied.say_if_wanted(controller, limits, &format!("{file}: {error}"));
            } else if controller == Controller::Devices {
                applied.devices = true;
            }
            if controller == Controller::Memory {
                applied.oom_file = Some(dir.join(version.oom_file()));
            }
            if !applied.dirs.contains(&dir) {
                applied.dirs.push(dir.clone());
            }
            if let Version::One = version {
                applied.v1.insert(controller, dir);
            }
        }
        applied
    }

    /// The container's group of version 2, with the controllers it has there. Device rules need no
    /// controller, only a group.
    fn unified(&self, name: &str, applied: &mut Applied) -> Option<(PathBuf, Vec<Controller>)> {
        let base = self.v2.as_ref()?;
        let available = std::fs::read_to_string(base.join("cgroup.controllers")).ok()?;
        let here = |c: &Controller| available.split_whitespace().any(|n| n == c.name());
        let mut wanted: Vec<Controller> = Controller::ALL.into_iter().filter(here).collect();
        if let Err(error) = enable(base, &wanted) {
            let base = base.display();
            applied.missing.push(format!("cgroup {base}: controllers not enabled: {error}"));
            wanted.clear();
        }
        if !self.v1.contains_key(&Controller::Devices) {
            wanted.push(Controller::Devices);
        }
        if wanted.is_empty() {
            return None;
        }
        let dir = make(base.join(name)).ok()?;
        applied.v2 = Some(dir.clone());
        applied.dirs.push(dir.clone());
        Some((dir, wanted))
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
        let applied = Own::default().create(&id(), &limits, Devices::Guarded);
        assert!(applied.dirs.is_empty() && !applied.devices);
        assert!(applied.missing[0].contains("1073741824"), "{applied:?}");
    }
}
