//! A namespace that stands for a container, where no engine makes one.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use weft_tests::Host;

/// A network namespace of its own behind a host, held by a sleeping process.
pub struct Inside(Child);

impl Inside {
    pub fn new(host: &Host) -> Self {
        let script = "ip link set lo up; echo ready; exec sleep infinity";
        let mut command = host.command(&["unshare", "-n", "sh", "-c", script]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("unshare runs");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("it speaks");
        Self(child)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
