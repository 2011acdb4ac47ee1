//! The process that ends a lab. It waits for the end of its input, which comes when the test is done
//! and also when the test is killed.

use std::{
    io::Read as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use super::{cgroup::Cgroups, command::built};

/// Runs until dropped or until this process dies.
pub struct Guardian {
    child: Child,
    input: Option<ChildStdin>,
}

impl Guardian {
    pub fn start(dir: &Path, cgroups: &Cgroups) -> Self {
        let mut child = Command::new(built("weft-lab-guardian"))
            .arg(dir)
            .args(cgroups.dirs())
            // Not in the group of the test, which is killed as a whole when it takes too long.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the guardian runs");
        let input = child.stdin.take();
        Self { child, input }
    }

    /// Ends the lab and names what could not be ended.
    pub fn end(&mut self) -> Vec<String> {
        drop(self.input.take());
        let mut text = String::new();
        if let Some(mut out) = self.child.stdout.take() {
            let _ = out.read_to_string(&mut text);
        }
        let _ = self.child.wait();
        text.lines().map(str::to_owned).collect()
    }
}
