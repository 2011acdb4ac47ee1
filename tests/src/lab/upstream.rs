//! The world outside of the hosts: a name server for what is not the cluster's, and a server that
//! says whom it sees.

use std::{
    path::Path,
    process::{Child, Stdio},
};

use super::{Lab, command::built};

/// Runs until dropped.
pub struct Outside(Child);

impl Lab {
    /// Serves every name as `address` at 10.99.0.254 and writes each question as a line of `log`.
    pub fn name_server(&self, address: &str, log: &Path) -> Outside {
        let (program, log) =
            (built("weft-lab-names").display().to_string(), log.display().to_string());
        let argv = [program.as_str(), "10.99.0.254:53", address, &log];
        let child = self.switch.command(&argv).stdout(Stdio::null()).spawn();
        Outside(child.expect("the name server can be started"))
    }

    /// Runs `peer serve` at 10.99.0.254.
    pub fn outside_server(&self, port: u16) -> Outside {
        let child = self.switch.command(&[&self.peer(), "serve", &port.to_string()]).spawn();
        Outside(child.expect("the server can be started"))
    }

    /// The program `peer` for use outside of containers.
    pub fn peer(&self) -> String {
        built("weft-lab-peer").display().to_string()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
