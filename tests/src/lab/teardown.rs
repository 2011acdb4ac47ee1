//! Ending a lab: every process in its cgroups, with its directory on the command line or among its
//! mounts; then the cgroups and the directory. Done by the guardian, so that it happens however the
//! test ended. Containers outlive their daemon by design, so waiting for daemons is not enough.

use std::{
    fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::cgroup::Cgroups;

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(20);

/// Ends everything of the lab in `dir`; what could not be ended is named.
pub fn end(dir: &Path, cgroups: &Cgroups) -> Vec<String> {
    let until = Instant::now() + PATIENCE;
    let mut left;
    loop {
        left = processes(dir, cgroups);
        for pid in &left {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        if left.is_empty() || Instant::now() > until {
            break;
        }
        sleep(STEP);
    }
    let mut named: Vec<String> = left.iter().map(|pid| describe(*pid)).collect();
    for cgroup in cgroups.below() {
        // A cgroup is busy for a moment after its last process has ended.
        while fs::remove_dir(&cgroup).is_err() && cgroup.exists() {
            if Instant::now() > until {
                named.push(format!("cgroup {}", cgroup.display()));
                break;
            }
            sleep(STEP);
        }
    }
    if let Err(error) = fs::remove_dir_all(dir)
        && dir.exists()
    {
        named.push(format!("{}: {error}", dir.display()));
    }
    named
}

/// The processes of the lab in `dir`, this one excepted.
pub fn processes(dir: &Path, cgroups: &Cgroups) -> Vec<i32> {
    let name = dir.file_name().expect("the lab's directory has a name").to_string_lossy();
    let mut pids = cgroups.processes();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let mentions = |file: &str| {
            let text = fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(&*name)
        };
        if mentions("cmdline") || mentions("mountinfo") {
            pids.push(pid);
        }
    }
    pids.sort_unstable();
    pids.dedup();
    let own = std::process::id().cast_signed();
    pids.retain(|pid| *pid != own && !ended(*pid));
    pids
}

/// A process that only waits to be reaped has ended.
fn ended(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
}

fn describe(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("process {pid} {}", String::from_utf8_lossy(&line).replace('\0', " "))
}
