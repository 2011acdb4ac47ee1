//! The poll loop: children that end, output that arrives, clients that ask.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::attach::{Attached, Fed, MAX_ATTACHED};
use crate::child::{self, Ends, Starting, Wants};
use crate::log::{self, Log};
use crate::net::{self, Dns};
use crate::proxy::Proxy;
use crate::serve::{self, Client, MAX_CLIENTS, Request, Waiting};
use crate::status::{Phase, Status};
use crate::{Args, sys};

/// One read of the container's output; a pipe holds 64 KiB.
const OUTPUT_BUFFER: usize = 16 << 10;
/// Reads of one stream before others get their turn.
const OUTPUT_READS: usize = 8;
/// What the loop waits for beside its clients.
const FIXED: usize = 8;
/// The most a pipe can hold (the default of fs.pipe-max-size).
const MAX_PIPE: usize = 1 << 20;
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

    /// Copies what the pipes hold now; at most a pipe's worth, so that clients are not starved.
    fn copy_output(&mut self) {
        let mut buffer = [0u8; OUTPUT_BUFFER];
        for (stream, slot) in [(1u8, &mut self.ends.stdout), (2, &mut self.ends.stderr)] {
            for _ in 0..OUTPUT_READS {
                let Some(fd) = slot.as_ref() else { break };
                match sys::read_some(fd.as_raw_fd(), &mut buffer) {
                    Ok(Some(0)) | Err(_) => *slot = None,
                    Ok(Some(n)) => {
                        let (header, from) =
                            (log::header(sys::now_ns(), stream, &buffer[..n]), self.log.end());
                        self.log.record(&header, &buffer[..n]);
                        for attached in &mut self.attached {
                            attached.offer(from, self.log.end(), &header, &buffer[..n]);
                        }
                    }
                    Ok(None) => break,
                }
            }
        }
    }

    fn drain_output(&mut self) {
        // With the first process of a pid namespace every other one is dead, so the pipes only hold
        // what was said; the bound is the pipe's size, against a writer outside of the namespace.
        for _ in 0..MAX_PIPE / (OUTPUT_BUFFER * OUTPUT_READS) {
            self.copy_output();
        }
    }

    /// Brings the attached clients what they are behind with, and their input to the first process.
    fn serve_attached(&mut self, polled: &[libc::pollfd]) {
        let mut buffer = [0u8; OUTPUT_BUFFER];
        let mut ended = false;
        for (attached, polled) in self.attached.iter_mut().zip(polled) {
            attached.ready(polled.revents);
            attached.catch_up(&self.log, &mut buffer);
            let Some(stdin) = &self.ends.stdin else { continue };
            match attached.feed(stdin.as_raw_fd()) {
                Fed::Nothing => {}
                Fed::Ended => ended |= self.wants.once && !self.wants.terminal,
                Fed::Refused => ended = true,
            }
        }
        if ended {
            self.ends.stdin = None;
            self.attached.iter_mut().for_each(Attached::refuse_input);
        }
        let over = self.status.phase == Phase::Exited;
        self.attached.retain(|attached| !attached.is_done(&self.log, over));
    }

    /// Moves what has come to published ports.
    fn pass_on(&mut self, listening: bool, moving: bool) {
        let Some(proxy) = &mut self.proxy else { return };
        if moving {
            proxy.turn();
        }
        if listening {
            proxy.accept();
        }
        proxy.sweep();
    }

    /// The report pipe has something: a pid, an error, or its end.
    fn on_report(&mut self) {
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

    fn start_failed(&mut self, code: i32, reason: &str) {
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
    fn on_children(&mut self) {
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

    fn save(&mut self) {
        self.status.log_lost = self.log.lost;
        // A full disk loses the file, not the state: it is also told on the socket.
        let _ = self.status.save(&self.state_dir);
    }

    /// Answers every client that waits for `what`; one that does not take the answer is dropped.
    fn tell(&mut self, what: Waiting, mut answer: impl FnMut(&mut Client, &str) -> io::Result<()>) {
        let text = self.status.text();
        self.clients.retain_mut(|c| c.waiting != what || answer(c, &text).is_ok());
    }

    fn serve_clients(&mut self, asked: &[bool]) {
        // Answers below may drop other clients, so those to read are taken out first.
        let mut rest = Vec::with_capacity(self.clients.len());
        let mut ready = Vec::new();
        for (index, client) in std::mem::take(&mut self.clients).into_iter().enumerate() {
            if asked.get(index).copied().unwrap_or(false) {
                ready.push(client)
            } else {
                rest.push(client)
            }
        }
        self.clients = rest;
        for mut client in ready {
            let kept = match client.read() {
                Ok(Some(request)) => self.request(&mut client, request).is_ok(),
                Ok(None) => true,
                Err(_) => false,
            };
            if kept {
                self.clients.push(client);
            }
        }
    }

    fn request(&mut self, client: &mut Client, request: Request) -> io::Result<()> {
        let Request { mut fields, mut passed } = request;
        let verb = std::mem::take(&mut fields[0]);
        match verb.as_slice() {
            b"state" => client.ok(&self.status.text()),
            b"dns" => match &self.dns {
                Some(dns) => client.answer(&[b"ok"], &[dns.udp.as_raw_fd(), dns.tcp.as_raw_fd()]),
                None => client.error(libc::ENOENT, "no DNS sockets in a shared network namespace"),
            },
            b"start" => self.start(client, &fields[1..], passed.pop()),
            b"attach" => self.attach(client, fields.get(1), passed.pop()),
            b"resize" => self.resize(client, &fields[1..]),
            b"ports" => self.ports(client, fields.get(1)),
            b"publish" => self.publish(client, &fields[1..], passed),
            b"unpublish" => self.unpublish(client, &fields[1..]),
            b"kill" => self.kill(client, fields.get(1)),
            b"wait" if self.status.phase == Phase::Exited => client.ok(&self.status.text()),
            b"wait" => {
                client.waiting = Waiting::Exit;
                Ok(())
            }
            b"shutdown" => {
                client.waiting = Waiting::Shutdown;
                self.ending = Some(Instant::now());
                if self.status.phase == Phase::Running {
                    // SAFETY: our own child, not yet reaped.
                    unsafe { libc::kill(self.status.pid, libc::SIGKILL) };
                }
                self.start_failed(NOT_STARTED, "removed while starting");
                Ok(())
            }
            _ => client.error(libc::EOPNOTSUPP, "unknown request"),
        }
    }

    fn start(
        &mut self,
        client: &mut Client,
        fields: &[Vec<u8>],
        passed: Option<OwnedFd>,
    ) -> io::Result<()> {
        if self.status.phase != Phase::Created {
            return client.error(libc::EALREADY, "already started");
        }
        let (Some(helper), [wants, oom_file, argv @ ..]) = (passed, fields) else {
            return client.error(libc::EINVAL, "start needs a helper and its words");
        };
        let oom_file = String::from_utf8_lossy(oom_file).into_owned();
        self.wants = Wants::parse(wants);
        match child::start(&helper, argv, oom_file, self.wants, self.files) {
            Ok((starting, ends)) => {
                self.starting = Some(starting);
                self.ends = ends;
                self.status.phase = Phase::Starting;
                client.waiting = Waiting::Start;
                Ok(())
            }
            Err(error) => client.error(NOT_STARTED, &format!("start the helper: {error}")),
        }
    }

    fn attach(
        &mut self,
        client: &mut Client,
        feeding: Option<&Vec<u8>>,
        socket: Option<OwnedFd>,
    ) -> io::Result<()> {
        let Some(socket) = socket else { return client.error(libc::EINVAL, "no socket came") };
        if self.status.phase == Phase::Exited {
            return client.error(libc::ESRCH, "not running");
        }
        if self.attached.len() >= MAX_ATTACHED {
            return client.error(libc::EAGAIN, "too many clients are attached");
        }
        let feeding = feeding.is_some_and(|word| word == b"1");
        self.attached.push(Attached::new(socket, feeding, &self.log));
        client.ok("")
    }

    fn resize(&mut self, client: &mut Client, size: &[Vec<u8>]) -> io::Result<()> {
        let number = |at: usize| text(size.get(at)?).parse().ok();
        let (Some(rows), Some(columns)) = (number(0), number(1)) else {
            return client.error(libc::EINVAL, "not a window size");
        };
        self.window = Some((rows, columns));
        if let Some(terminal) = self.ends.stdout.as_ref().filter(|_| self.wants.terminal) {
            sys::set_window_size(terminal, (rows, columns));
        }
        client.ok("")
    }

    fn ports(&mut self, client: &mut Client, from: Option<&Vec<u8>>) -> io::Result<()> {
        let from = from.and_then(|from| text(from).parse().ok()).unwrap_or(0);
        let page = self.proxy.as_ref().map(|proxy| proxy.page(from)).unwrap_or_default();
        let fields: Vec<&[u8]> =
            [b"ok".as_slice()].into_iter().chain(page.iter().map(String::as_bytes)).collect();
        client.answer(&fields, &[])
    }

    fn publish(
        &mut self,
        client: &mut Client,
        ports: &[Vec<u8>],
        sockets: Vec<OwnedFd>,
    ) -> io::Result<()> {
        let mut sockets: Vec<Option<OwnedFd>> = sockets.into_iter().map(Some).collect();
        if !sockets.is_empty() && sockets.len() != ports.len() {
            return client.error(libc::EINVAL, "not a socket for each port");
        }
        sockets.resize_with(ports.len(), || None);
        let done = match &mut self.proxy {
            Some(proxy) => Ok(proxy),
            none => Proxy::new().map(|proxy| none.insert(proxy)),
        };
        let done = done.and_then(|proxy| {
            ports.iter().zip(sockets).try_for_each(|(port, fd)| proxy.publish(&text(port), fd))
        });
        match done {
            Ok(()) => client.ok(""),
            Err(error) => {
                client.error(error.raw_os_error().unwrap_or(libc::EINVAL), &error.to_string())
            }
        }
    }

    fn unpublish(&mut self, client: &mut Client, ports: &[Vec<u8>]) -> io::Result<()> {
        if let Some(proxy) = &mut self.proxy {
            ports.iter().for_each(|port| proxy.unpublish(&text(port)));
        }
        client.ok("")
    }

    fn kill(&mut self, client: &mut Client, signal: Option<&Vec<u8>>) -> io::Result<()> {
        let number = signal.and_then(|s| std::str::from_utf8(s).ok()).and_then(|s| s.parse().ok());
        let Some(number) = number else { return client.error(libc::EINVAL, "not a signal number") };
        if self.status.phase != Phase::Running {
            return client.error(libc::ESRCH, "not running");
        }
        // SAFETY: our own child, not yet reaped.
        match sys::check(unsafe { libc::kill(self.status.pid, number) }) {
            Ok(_) => client.ok(""),
            Err(error) => {
                client.error(error.raw_os_error().unwrap_or(libc::EINVAL), &error.to_string())
            }
        }
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
}

fn text(field: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(field)
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
