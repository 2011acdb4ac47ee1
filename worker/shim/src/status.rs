//! What is known about the container, as text: the answer to `state` and the content of
//! `STATE-DIR/status`.
//!
//! Lines `key=value`, unknown keys are to be ignored: `phase` (created, starting, running, exited),
//! `shim` and `shim_start` (pid and start in ticks since boot), `pid` and `pid_start` (the
//! container's first process), `boot` (the kernel's boot id: pids mean nothing after a reboot),
//! `dns_port` (0: none), `code` (exit code, 128 + signal for a death by signal), `signal`, `oom`
//! (0, 1), `created`, `started`, `finished` (ns since 1970, 0: not yet), `log_lost` (bytes),
//! `error` (why it could not start, to the end of the line).

use std::io;
use std::path::Path;

use crate::sys;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Created,
    Starting,
    Running,
    Exited,
}

pub struct Status {
    pub phase: Phase,
    pub shim: u32,
    pub shim_start: u64,
    pub boot: String,
    pub pid: i32,
    pub pid_start: u64,
    pub dns_port: u16,
    pub code: i32,
    pub signal: i32,
    pub oom: bool,
    pub created: u64,
    pub started: u64,
    pub finished: u64,
    pub log_lost: u64,
    pub error: String,
}

impl Status {
    pub fn new() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let shim = std::process::id();
        Self {
            phase: Phase::Created,
            shim,
            shim_start: sys::start_ticks(shim as i32),
            boot: boot.trim().to_owned(),
            pid: 0,
            pid_start: 0,
            dns_port: 0,
            code: 0,
            signal: 0,
            oom: false,
            created: sys::now_ns(),
            started: 0,
            finished: 0,
            log_lost: 0,
            error: String::new(),
        }
    }

    pub fn text(&self) -> String {
        let phase = match self.phase {
            Phase::Created => "created",
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Exited => "exited",
        };
        format!(
            "phase={phase}\nshim={}\nshim_start={}\nboot={}\npid={}\npid_start={}\ndns_port={}\ncode={}\n\
             signal={}\noom={}\ncreated={}\nstarted={}\nfinished={}\nlog_lost={}\nerror={}\n",
            self.shim,
            self.shim_start,
            self.boot,
            self.pid,
            self.pid_start,
            self.dns_port,
            self.code,
            self.signal,
            u8::from(self.oom),
            self.created,
            self.started,
            self.finished,
            self.log_lost,
            self.error.replace('\n', " "),
        )
    }

    /// Replaces the file as one step, so that a reader sees the old or the new text. It is not
    /// forced to disk: what it tells about is gone after a power failure anyway.
    pub fn save(&self, state_dir: &Path) -> io::Result<()> {
        let temporary = state_dir.join("status.new");
        std::fs::write(&temporary, self.text())?;
        std::fs::rename(temporary, state_dir.join("status"))
    }
}
