//! Setting one controller's limits, as version 1 and version 2 want them written.

use std::io;
use std::path::Path;

use super::super::Limits;
use super::{Controller, devices};

/// The period a CPU quota is counted in (the kernel's default).
const CPU_PERIOD_US: u64 = 100_000;

#[derive(Clone, Copy)]
pub(super) enum Version {
    One,
    Two,
}

impl Version {
    pub(super) fn oom_file(self) -> &'static str {
        match self {
            Self::One => "memory.oom_control",
            Self::Two => "memory.events",
        }
    }
}

/// Writes one controller's limits; the file's name comes back with an error.
pub(super) fn set(
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
            devices::rules().try_for_each(|rule| write("devices.allow", rule))
        }
        (Controller::Devices, Version::Two) => {
            devices::attach(dir).map_err(|error| ("BPF device program", error))
        }
    }
}
