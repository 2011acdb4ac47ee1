//! Clients attached to the container's main process.
//!
//! Each has a socket (SOCK_SEQPACKET). To the client go the log's records, one a packet: a header
//! as in the log, then the data; stream 0 tells how many bytes of the log (a u64) the client has
//! missed. From the client comes input; that it can send no more is the input's end. The socket is
//! closed when the container has ended and all is told.
//!
//! Nobody waits for a client: one that does not read stays at its place in the log and goes on from
//! there later. What the log no longer has when its turn comes is lost to it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::log::{HEADER, Header, Log};
use crate::sys;

/// Clients at one time.
pub const MAX_ATTACHED: usize = 64;
/// Bytes of one packet of input; the daemon sends no larger ones.
const INPUT: usize = 4 << 10;
/// Records sent to a client that catches up before others get their turn.
const RECORDS: usize = 16;
/// What stands for the stream's number in a record that tells of a loss.
const LOST: u8 = 0;

pub struct Attached {
    socket: OwnedFd,
    /// The first byte of the log that it has not been sent.
    at: u64,
    /// Bytes of the log it will never be sent, and has not been told of.
    lost: u64,
    /// Takes no more output.
    deaf: bool,
    /// May still send input.
    feeding: bool,
    /// Closed at its end, though input may still lie in the socket.
    hung_up: bool,
    /// Input that the main process has not taken.
    input: Vec<u8>,
}

/// What became of input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fed {
    Nothing,
    /// A client has sent all that it ever will.
    Ended,
    /// The main process reads no more.
    Refused,
}

impl Attached {
    pub fn new(socket: OwnedFd, feeding: bool, log: &Log) -> Self {
        Self {
            socket,
            at: log.end(),
            lost: 0,
            deaf: false,
            feeding,
            hung_up: false,
            input: Vec::new(),
        }
    }

    /// What the loop is to wait for; `open` tells whether there is an input to feed.
    pub fn polled(&self, log: &Log, open: bool) -> libc::pollfd {
        let mut events = 0;
        if open && self.feeding && self.input.is_empty() {
            events |= libc::POLLIN;
        }
        if self.behind(log) {
            events |= libc::POLLOUT;
        }
        // A closed socket is always ready.
        let fd = if self.hung_up { -1 } else { self.socket.as_raw_fd() };
        libc::pollfd { fd, events, revents: 0 }
    }

    /// Whether it has input for which the main process must make room.
    pub fn pressing(&self) -> bool {
        !self.input.is_empty()
    }

    pub fn behind(&self, log: &Log) -> bool {
        !self.deaf && (self.lost > 0 || self.at != log.end())
    }

    /// Whether nothing can come of it any more.
    pub fn is_done(&self, log: &Log, ended: bool) -> bool {
        let fed = ended || !self.feeding;
        let told = self.deaf || self.hung_up || (ended && !self.behind(log));
        fed && told
    }

    pub fn ready(&mut self, events: libc::c_short) {
        if events & (libc::POLLHUP | libc::POLLERR) != 0 {
            self.hung_up = true;
            self.deaf = true;
        }
    }

    /// Sends a record that was just written, unless the client is behind. `from` is where the log
    /// ended before it, `to` where it ends now.
    pub fn offer(&mut self, from: u64, to: u64, header: &Header, data: &[u8]) {
        if self.deaf || self.at != from || self.lost > 0 {
            return;
        }
        match self.send(header, data) {
            Sent::Whole => self.at = to,
            // The log could not take it, so there is no later.
            Sent::Later if from == to => self.lost += data.len() as u64,
            Sent::Later | Sent::Never => {}
        }
    }

    /// Sends what it is behind with, as far as its socket takes it.
    pub fn catch_up(&mut self, log: &Log, buffer: &mut [u8]) {
        for _ in 0..RECORDS {
            if !self.behind(log) {
                return;
            }
            let skipped = log.first().saturating_sub(self.at);
            self.at += skipped;
            self.lost += skipped;
            if self.lost > 0 {
                let mut header = [0; HEADER];
                header[12] = LOST;
                match self.send(&header, &self.lost.to_le_bytes()) {
                    Sent::Whole => self.lost = 0,
                    Sent::Later | Sent::Never => return,
                }
                continue;
            }
            let Ok((header, n)) = log.read(self.at, buffer) else {
                // Somebody has changed the files; what is written from now on is whole again.
                self.lost += log.end() - self.at;
                self.at = log.end();
                continue;
            };
            match self.send(&header, &buffer[..n]) {
                Sent::Whole => self.at += (HEADER + n) as u64,
                Sent::Later | Sent::Never => return,
            }
        }
    }

    fn send(&mut self, header: &Header, data: &[u8]) -> Sent {
        match sys::send_parts(self.socket.as_raw_fd(), header, data) {
            Ok(()) => Sent::Whole,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Later,
            Err(_) => {
                self.deaf = true;
                Sent::Never
            }
        }
    }

    /// Moves input from the client to the main process.
    pub fn feed(&mut self, stdin: RawFd) -> Fed {
        while self.feeding {
            if self.input.is_empty() && !self.take_input() {
                return if self.feeding { Fed::Nothing } else { Fed::Ended };
            }
            if self.input.is_empty() {
                return Fed::Nothing;
            }
            match sys::write_some(stdin, &self.input) {
                Ok(Some(n)) if n == self.input.len() => self.input = Vec::new(),
                Ok(Some(n)) => drop(self.input.drain(..n)),
                Ok(None) => return Fed::Nothing,
                Err(_) => return Fed::Refused,
            }
        }
        Fed::Nothing
    }

    /// `false`: there is none now, or there never will be.
    fn take_input(&mut self) -> bool {
        let mut buffer = [0u8; INPUT];
        match sys::read_some(self.socket.as_raw_fd(), &mut buffer) {
            Ok(Some(n)) if n > 0 => {
                self.input.extend_from_slice(&buffer[..n]);
                true
            }
            Ok(None) => false,
            Ok(Some(_)) | Err(_) => {
                self.feeding = false;
                false
            }
        }
    }

    /// Takes no more input: the client's next one fails.
    pub fn refuse_input(&mut self) {
        self.feeding = false;
        self.input = Vec::new();
        sys::shut_reading(&self.socket);
    }
}

enum Sent {
    Whole,
    Later,
    Never,
}
