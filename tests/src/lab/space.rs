//! A namespace pair, network and mounts, held by one sleeping process.
//!
//! `ip netns exec` is not used to enter it: that mounts /sys anew and hides the cgroups.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{cgroup::Cgroups, command::Output};

/// A network and mount namespace of its own.
pub struct Space {
    holder: Child,
    cgroups: Cgroups,
}

impl Space {
    /// Makes the namespaces; `/etc/resolv.conf` in it is a file of its own, empty, below `dir`.
    pub fn new(name: &str, dir: &Path, cgroups: Cgroups) -> Self {
        let resolv = dir.join(format!("{name}.resolv.conf"));
        std::fs::write(&resolv, "").expect("the lab's directory can be written");
        // A link is followed by mount, and its end may not exist on a machine without DHCP.
        let script = format!(
            "{} mount --bind {} /etc/resolv.conf && ip link set lo up && echo ready && exec sleep infinity",
            cgroups.join_script(),
            resolv.display(),
        );
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (util-linux) runs");
        let mut line = String::new();
        let out = holder.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("the holder speaks");
        assert_eq!(line.trim(), "ready", "cannot make a namespace: is this root?");
        Self { holder, cgroups }
    }

    /// Process whose namespaces these are.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// A command that will run inside, in the cgroups of this space.
    pub fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!(
                "{} exec nsenter -t {} -n -m -- \"$@\"",
                self.cgroups.join_script(),
                self.pid()
            ))
            .arg("sh")
            .args(argv)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command inside to its end.
    pub fn run(&self, argv: &[&str], env: &[(&str, &str)]) -> Output {
        Output::of(self.command(argv).envs(env.iter().copied()), argv)
    }

    /// Runs a shell script inside, which must succeed; gives its output.
    pub fn sh(&self, script: &str) -> String {
        self.run(&["sh", "-ec", script], &[]).ok()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
