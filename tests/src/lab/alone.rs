//! A host in no cluster: containers of `weft run`, and what may be left of them.

use std::{fs, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Lab, PATIENCE, command::Output, container::Container, host::Host, wait::eventually};

/// How the program that owns a container is called.
const HOLDER: &str = "weft-shim";

impl Lab {
    /// A lab of `count` hosts, the first of them with its daemon running, and no cluster.
    pub fn alone(name: &str, count: usize) -> Self {
        let lab = Self::new(name, count);
        lab.host(1).start();
        lab
    }

    /// `weft run -d --name NAME FLAGS IMAGE COMMAND` on host 1, which must succeed.
    #[track_caller]
    pub fn run(&self, name: &str, flags: &[&str], command: &[&str]) -> Container<'_> {
        let first = ["-d", "--name", name, "-h", name, "--stop-timeout", "1"];
        self.try_run(&[&first, flags].concat(), command).ok();
        self.host(1).container_named(name)
    }

    /// `weft run FLAGS IMAGE COMMAND` on host 1.
    pub fn try_run(&self, flags: &[&str], command: &[&str]) -> Output {
        let image = self.image();
        self.host(1).weft(&[&["run"], flags, &[&image], command].concat())
    }
}

impl Host {
    /// What `weft ps -a` says of a container; nothing if there is none.
    pub fn status(&self, name: &str) -> Result<String, String> {
        let list = self.weft(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"]).text()?;
        let line = list.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        Ok(line.unwrap_or_default().to_owned())
    }

    /// Waits until the status of a container begins so.
    #[track_caller]
    pub fn comes_to(&self, name: &str, status: &str) {
        eventually(&format!("{name} is {status}"), PATIENCE, || {
            let now = self.status(name)?;
            if now.starts_with(status) { Ok(()) } else { Err(format!("it is {now:?}")) }
        });
    }

    /// What there is of containers outside of the kernel's network: processes, cgroups, mounts and
    /// files. With none there is nothing.
    pub fn left_of_containers(&self) -> Vec<String> {
        let mut left = self.container_cgroups();
        for below in ["containers", "local/etc", "local/netns"] {
            left.extend(entries(&self.state_dir().join(below)));
        }
        left.extend(entries(&self.run_dir().join("containers")));
        let command = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm"));
        let holders = self.processes().into_iter();
        let holders = holders.filter(|pid| command(pid).is_ok_and(|comm| comm.trim() == HOLDER));
        left.extend(holders.map(|pid| format!("process {pid}")));
        let own = format!("/proc/{}/mountinfo", self.holder());
        let mounts = fs::read_to_string(own).unwrap_or_default();
        let ours = [self.run_dir(), self.state_dir()].map(|dir| dir.display().to_string());
        let ours = |line: &&str| ours.iter().any(|dir| line.contains(dir));
        left.extend(mounts.lines().filter(ours).map(|line| format!("mount {line}")));
        left
    }

    /// Waits until nothing is left of containers.
    #[track_caller]
    pub fn has_nothing_left(&self, after: &str) {
        eventually(&format!("nothing is left after {after}"), PATIENCE, || {
            let left = self.left_of_containers();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
        });
    }

    /// All processes end at once, and with them what a machine forgets when it is switched off:
    /// the run directory, devices and rules. The state directory stays.
    pub fn lose_power(&self) {
        self.kill9();
        eventually("all processes have ended", PATIENCE, || {
            let holder = self.holder().cast_signed();
            let left: Vec<i32> =
                self.processes().into_iter().filter(|pid| *pid != holder).collect();
            for pid in &left {
                // It may have ended by itself.
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        fs::remove_dir_all(self.run_dir()).expect("the lab's directory can be written");
        self.sh("for link in $(ls /sys/class/net); do \
               case $link in lo|eth0) ;; *) ip link del $link 2>/dev/null || true;; esac; \
             done; nft flush ruleset")
            .ok();
    }
}

fn entries(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().display().to_string()).collect()
}
