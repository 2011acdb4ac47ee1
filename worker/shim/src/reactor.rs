//! The poll loop: children that end, output that arrives, clients that ask.

mod life;
mod output;
mod ports;
mod requests;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::attach::Attached;
use crate::child::{Ends, Starting, Wants};
use crate::log::Log;
use crate::net::{self, Dns};
use crate::proxy::Proxy;
use crate::serve::{self, Client, MAX_CLIENTS, Waiting};
use crate::status::{Phase, Status};
use crate::{Args, sys};

/// What the loop waits for beside its clients.
const FIXED: usize = 8;
/// How long the shim goes on for clients that have not taken all of the output.
const PARTING: Duration = Duration::from_secs(2);
/// Exit code of a container that the runtime could not start (Docker's).
const NOT_STARTED: i32 = 125;

pub struct Shim {
    id: String,
    run_dir: PathBuf,
    state_dir: PathBuf,
    listener: OwnedFd,
    signals: OwnedFd,
    dns: Option<Dns>,
    status: Status,
    log: Log,
    starting: Option<Starting>,
    oom_file: String,
    wants: Wants,
    ends: Ends,
    /// The terminal's rows and columns, as they were told last.
    window: Option<(u16, u16)>,
    clients: Vec<Client>,
    attached: Vec<Attached>,
    proxy: Option<Proxy>,
    /// What the container may open, which is less than we may.
    files: libc::rlimit,
    /// Since when it is to end.
    ending: Option<Instant>,
}

impl Shim {
    /// Binds the socket first: from then on a daemon that comes back finds us.
    pub fn new(args: &Args) -> Result<Self, String> {
        let listener = serve::listen(&args.run_dir).map_err(|e| format!("bind shim.sock: {e}"))?;
        let signals = sys::child_signals().map_err(|e| format!("signalfd: {e}"))?;
        let dns = net::enter(&args.net).map_err(|e| format!("network {}: {e}", args.net))?;
        let mut status = Status::new();
        status.dns_port = dns.as_ref().map_or(0, |d| d.port);
        status.save(&args.state_dir).map_err(|e| format!("write status: {e}"))?;
        Ok(Self {
            id: args.id.clone(),
            run_dir: args.run_dir.clone(),
            state_dir: args.state_dir.clone(),
            listener,
            signals,
            dns,
            status,
            log: Log::open(&args.state_dir),
            starting: None,
            oom_file: String::new(),
            wants: Wants::default(),
            ends: Ends::default(),
            window: None,
            clients: Vec::new(),
            attached: Vec::new(),
            proxy: None,
            files: sys::raise_files(),
            ending: None,
        })
    }

    pub fn run(mut self) -> ExitCode {
        loop {
            if self.may_end() {
                return self.finish();
            }
            let (mut polled, wait) = (self.poll_set(), self.timeout());
            let clients = self.clients.len();
            // SAFETY: the array is valid for its own length.
            let n = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, wait) };
            if n < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return ExitCode::FAILURE;
            }
            let ready = |index: usize| polled[index].revents != 0;
            // Output before children: what was said must be in the log before the exit is told.
            if ready(2) || ready(3) {
                self.copy_output();
            }
            if ready(4) {
                self.on_report();
            }
            if ready(1) {
                self.on_children();
            }
            self.pass_on(ready(6), ready(7));
            let (asked, attached) = polled[FIXED..].split_at(clients);
            let asked: Vec<bool> = asked.iter().map(|p| p.revents != 0).collect();
            self.serve_attached(attached);
            self.serve_clients(&asked);
            if ready(0) && self.clients.len() < MAX_CLIENTS {
                self.clients.extend(serve::accept(&self.listener));
            }
        }
    }

    fn poll_set(&self) -> Vec<libc::pollfd> {
        let raw = |fd: &Option<OwnedFd>| fd.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let accepting =
            if self.clients.len() < MAX_CLIENTS { self.listener.as_raw_fd() } else { -1 };
        let report = self.starting.as_ref().map_or(-1, |s| s.report.as_raw_fd());
        let [listening, moving] = self.proxy.as_ref().map_or([-1, -1], Proxy::polled);
        let pressing = self.attached.iter().any(Attached::pressing);
        let stdin = if pressing { raw(&self.ends.stdin) } else { -1 };
        let input = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let fixed: [libc::pollfd; FIXED] = [
            input(accepting),
            input(self.signals.as_raw_fd()),
            input(raw(&self.ends.stdout)),
            input(raw(&self.ends.stderr)),
            input(report),
            libc::pollfd { fd: stdin, events: libc::POLLOUT, revents: 0 },
            input(listening),
            input(moving),
        ];
        let clients = self.clients.iter().map(|c| input(c.socket.as_raw_fd()));
        let open = self.ends.stdin.is_some();
        let attached = self.attached.iter().map(|a| a.polled(&self.log, open));
        fixed.into_iter().chain(clients).chain(attached).collect()
    }

    /// For `poll`: milliseconds, or -1 for no limit.
    fn timeout(&self) -> libc::c_int {
        let parting = self.ending.map(|since| PARTING.saturating_sub(since.elapsed()));
        let silent = self.proxy.as_ref().and_then(Proxy::timeout);
        let wait = parting.into_iter().chain(silent).min();
        wait.map_or(-1, |wait| wait.as_millis() as libc::c_int + 1)
    }

    /// When nothing runs, and the clients have been told all, or have had their time.
    fn may_end(&self) -> bool {
        let Some(since) = self.ending.filter(|_| !self.alive()) else { return false };
        let told = !self.attached.iter().any(|a| a.behind(&self.log));
        told || since.elapsed() >= PARTING
    }

    fn alive(&self) -> bool {
        self.starting.is_some() || self.status.phase == Phase::Running
    }

    /// Takes the name away before the last answer, so that nobody finds a socket without a shim
    /// behind it.
    fn finish(mut self) -> ExitCode {
        // Whoever hears the answer may take the ports at once.
        self.proxy = None;
        let _ = std::fs::remove_file(self.run_dir.join("shim.sock"));
        self.tell(Waiting::Shutdown, |client, _| client.ok(""));
        ExitCode::SUCCESS
    }

    /// Answers every client that waits for `what`; one that does not take the answer is dropped.
    fn tell(&mut self, what: Waiting, mut answer: impl FnMut(&mut Client, &str) -> io::Result<()>) {
        let text = self.status.text();
        self.clients.retain_mut(|c| c.waiting != what || answer(c, &text).is_ok());
    }

    fn save(&mut self) {
        self.status.log_lost = self.log.lost;
        // A full disk loses the file, not the state: it is also told on the socket.
        let _ = self.status.save(&self.state_dir);
    }
}

fn text(field: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(field)
}
