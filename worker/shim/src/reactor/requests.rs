//! What clients ask.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use super::{NOT_STARTED, Shim, text};
use crate::attach::{Attached, MAX_ATTACHED};
use crate::child::{self, Wants};
use crate::serve::{Client, Request, Waiting};
use crate::status::Phase;
use crate::sys;

impl Shim {
    pub(super) fn serve_clients(&mut self, asked: &[bool]) {
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
}
