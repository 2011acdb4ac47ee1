//! Persistent TAP devices. They are made by ioctl, not by netlink (Documentation/networking/tuntap.rst).

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;

use super::{KernelError, sys};

/// A TAP device that goes with this value unless it was [kept](Self::keep).
#[derive(Debug)]
pub(crate) struct Newborn {
    file: File,
}

/// Makes a device of this name in the calling thread's network namespace.
pub(crate) fn make(name: &str) -> Result<Newborn, KernelError> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let file = file.map_err(|error| KernelError::io("/dev/net/tun", &error))?;
    let made = sys::tap_create(file.as_fd(), name);
    made.map_err(|error| KernelError::io(format!("making the TAP device {name}"), &error))?;
    Ok(Newborn { file })
}

impl Newborn {
    /// From now on it stays when nobody has it open. It was marked as ours before, so that whoever is killed
    /// in between leaves nothing that nobody knows.
    pub(crate) fn keep(self) -> Result<(), KernelError> {
        sys::tap_persist(self.file.as_fd())
            .map_err(|error| KernelError::io("keeping a TAP device", &error))
    }
}
