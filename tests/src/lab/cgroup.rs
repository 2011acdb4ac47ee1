//! A cgroup of the lab's own in each hierarchy, and below it one for each host: the daemons put their
//! containers' cgroups next to themselves, so whatever outlives them is found here.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The same cgroup in every hierarchy of the machine (one in version 2). Empty where none can be made.
#[derive(Debug, Clone)]
pub struct Cgroups {
    dirs: Vec<PathBuf>,
}

impl Cgroups {
    /// Makes a cgroup with the name of `dir` below the one of this process.
    pub fn new(dir: &Path) -> Self {
        let name = dir.file_name().expect("the lab's directory has a name");
        let made = own().into_iter().map(|own| own.join(name));
        Self { dirs: made.filter(|dir| fs::create_dir(dir).is_ok()).collect() }
    }

    /// The ones that were made before, by their paths.
    pub fn found(dirs: Vec<PathBuf>) -> Self {
        Self { dirs }
    }

    /// A cgroup below this one.
    pub fn child(&self, name: &str) -> Self {
        let made = self.dirs.iter().map(|dir| dir.join(name));
        Self { dirs: made.filter(|dir| fs::create_dir(dir).is_ok()).collect() }
    }

    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Shell text by which a shell joins them.
    pub fn join_script(&self) -> String {
        self.dirs.iter().map(|dir| format!("echo $$ > {}/cgroup.procs;", dir.display())).collect()
    }

    /// Every cgroup below these, deepest first, these last.
    pub fn below(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for dir in &self.dirs {
            collect(dir, &mut found);
        }
        found
    }

    /// The processes in all of them.
    pub fn processes(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = self
            .below()
            .iter()
            .filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok())
            .flat_map(|text| text.lines().filter_map(|l| l.parse().ok()).collect::<Vec<_>>())
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
    }
    if dir.exists() {
        found.push(dir.to_owned());
    }
}

/// The cgroups of this process, in the hierarchies where a new child can be joined at once.
fn own() -> Vec<PathBuf> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (mounts, own) = (read("/proc/self/mountinfo"), read("/proc/self/cgroup"));
    let mut found = Vec::new();
    for mount in mounts.lines() {
        let Some((left, right)) = mount.split_once(" - ") else { continue };
        let (fields, kinds) =
            (left.split(' ').collect::<Vec<_>>(), right.split(' ').collect::<Vec<_>>());
        let (root, point) = (fields[3], fields[4]);
        let options = kinds.last().copied().unwrap_or_default();
        let line = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let fits = match kinds[0] {
                "cgroup2" => controllers.is_empty(),
                // A new cpuset has no processors and takes no process.
                "cgroup" => {
                    !controllers.is_empty()
                        && controllers != "cpuset"
                        && controllers.split(',').all(|name| options.split(',').any(|o| o == name))
                }
                _ => false,
            };
            fits.then_some(path)
        });
        if let Some(path) = line {
            let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path);
            found.push(Path::new(point).join(below.trim_start_matches('/')));
        }
    }
    found
}
