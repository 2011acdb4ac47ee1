//! The container's life: its start, and its end.

use std::os::fd::{AsRawFd, OwnedFd};

use super::{NOT_STARTED, Shim};
use crate::attach::Attached;
use crate::child::Ends;
use crate::serve::Waiting;
use crate::status::Phase;
use crate::sys;

impl Shim {
    /// The report pipe has something: a pid, an error, or its end.
    pub(super) fn on_report(&mut self) {
        let Some(starting) = self.starting.as_mut() else { return };
        let ended = starting.read_report();
        if let Some(terminal) = starting.terminal() {
            self.ends = terminal_ends(terminal, self.window, self.wants.input);
            starting.terminal_is_ready();
        }
        if let Some((code, reason)) = starting.error() {
            if ended {
                self.start_failed(code, &reason);
            }
            return;
        }
        if ended && starting.released {
            self.start_done();
        } else if ended {
            self.start_failed(NOT_STARTED, "the helper ended without starting the container");
        } else {
            self.release_if_ready();
        }
    }

    fn release_if_ready(&mut self) {
        let Some(starting) = self.starting.as_mut() else { return };
        if starting.released || !starting.helper_gone || starting.pid.is_none() {
            return;
        }
        if let Err(error) = starting.release(&self.run_dir, &self.id) {
            self.start_failed(NOT_STARTED, &format!("release the container: {error}"));
        }
    }

    fn start_done(&mut self) {
        let Some(starting) = self.starting.take() else { return };
        let pid = starting.pid.unwrap_or_default();
        self.oom_file = starting.oom_file;
        self.status.phase = Phase::Running;
        self.status.pid = pid;
        self.status.pid_start = sys::start_ticks(pid);
        self.status.started = sys::now_ns();
        self.save();
        self.tell(Waiting::Start, |client, _| client.ok(&pid.to_string()));
    }

    pub(super) fn start_failed(&mut self, code: i32, reason: &str) {
        let Some(starting) = self.starting.take() else { return };
        let helper = Some(starting.helper).filter(|_| !starting.helper_gone);
        for pid in helper.into_iter().chain(starting.pid) {
            // SAFETY: the pid is a child of ours that we have not reaped, so it is not reused.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        self.drain_output();
        self.status.error = reason.to_owned();
        self.ended(code, 0);
        self.tell(Waiting::Start, |client, _| client.error(code, reason));
    }

    /// Reaps every child that has ended.
    pub(super) fn on_children(&mut self) {
        let mut info = [0u8; 128];
        while let Ok(Some(_)) = sys::read_some(self.signals.as_raw_fd(), &mut info) {}
        loop {
            let mut raw = 0;
            // SAFETY: `raw` has room for the status.
            let pid = unsafe { libc::waitpid(-1, &mut raw, libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            self.on_child(pid, raw);
        }
    }

    fn on_child(&mut self, pid: i32, raw: i32) {
        if self.starting.as_ref().is_some_and(|s| s.pid == Some(pid) && s.released) {
            // It ended so soon after its exec that both are told at once.
            self.on_report();
        }
        if self.starting.as_ref().is_some_and(|s| s.pid == Some(pid)) {
            // The first process is reaped: its pid must not be killed by what follows.
            if let Some(starting) = self.starting.as_mut() {
                starting.pid = None;
                starting.read_report();
                let (code, reason) = starting.error().unwrap_or((
                    NOT_STARTED,
                    "the container's first process died while it was set up".into(),
                ));
                self.start_failed(code, &reason);
            }
        } else if let Some(starting) = self.starting.as_mut().filter(|s| s.helper == pid) {
            starting.helper_gone = true;
            starting.read_report();
            self.on_report();
        } else if self.status.phase == Phase::Running && pid == self.status.pid {
            self.drain_output();
            let signal = if libc::WIFSIGNALED(raw) { libc::WTERMSIG(raw) } else { 0 };
            let code = if signal != 0 { 128 + signal } else { libc::WEXITSTATUS(raw) };
            self.status.oom = self.oom_killed();
            self.ended(code, signal);
        }
    }

    fn oom_killed(&self) -> bool {
        let text = std::fs::read_to_string(&self.oom_file).unwrap_or_default();
        text.lines().any(|l| l.strip_prefix("oom_kill ").is_some_and(|n| n.trim() != "0"))
    }

    fn ended(&mut self, code: i32, signal: i32) {
        self.status.phase = Phase::Exited;
        self.status.code = code;
        self.status.signal = signal;
        self.status.finished = sys::now_ns();
        self.ends = Ends::default();
        self.attached.iter_mut().for_each(Attached::refuse_input);
        self.save();
        self.tell(Waiting::Exit, |client, text| client.ok(text));
    }
}

/// A terminal is all three: what is written to its master side is typed, what is read was said.
fn terminal_ends(terminal: OwnedFd, window: Option<(u16, u16)>, input: bool) -> Ends {
    if let Some(window) = window {
        sys::set_window_size(&terminal, window);
    }
    // It is our own descriptor: what can fail is only that there are too many.
    let _ = sys::set_nonblocking(&terminal);
    let stdin = if input { terminal.try_clone().ok() } else { None };
    Ends { stdin, stdout: Some(terminal), stderr: None }
}
