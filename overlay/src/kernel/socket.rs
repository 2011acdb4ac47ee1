//! A netlink socket for requests: batches of changes, and dumps.
//!
//! The kernel handles a request inside `send`, so its answer waits in the socket when `send` returns: a
//! blocking socket on a thread of its own is all that is needed, and a batch costs two system calls.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, send, setsockopt, sockopt};

use super::KernelError;
use super::sys;
use super::uapi::{
    NETLINK_CAP_ACK, NLM_F_ACK, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, SOL_NETLINK,
};
use super::wire::{self, Message, Received, get_u32};

/// The kernel builds dumps in pieces of up to 32 KiB; a larger buffer holds any single message.
const BUFFER: usize = 64 * 1024;
/// Requests sent at once: below the default send buffer (212,992 bytes) at our sizes of message.
const BATCH: usize = 128;
/// Bytes sent at once, for the same reason.
const BATCH_BYTES: usize = 96 * 1024;
/// How often a dump that changed while it was read is tried again.
const DUMP_TRIES: u32 = 5;
/// How large a receive buffer we ask for: a dump's answer never exceeds it, acks of a batch neither.
const RECEIVE_BUFFER: i32 = 1 << 20;
/// How large a send buffer we ask for: an nftables transaction has to be sent whole.
const SEND_BUFFER: i32 = 8 << 20;

/// Answers are there when a request returns; one that never comes is an error, not a wait for ever.
const ANSWER_SECONDS: i64 = 5;

/// A bound netlink socket of one protocol in one namespace.
pub(crate) struct Socket {
    fd: OwnedFd,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What was received may be a private key.
impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Socket {
    /// Opens a socket in the calling thread's namespace.
    pub(crate) fn open(protocol: i32) -> Result<Self, KernelError> {
        let fail = |error: io::Error| KernelError::io("netlink socket", &error);
        let (fd, port) = sys::netlink_socket(protocol).map_err(fail)?;
        // An ack need not carry the request back.
        sys::set_option(&fd, SOL_NETLINK, NETLINK_CAP_ACK, 1).map_err(fail)?;
        // Without the capability to exceed the limits the defaults do for all but huge tables.
        let force = |name, size| sys::set_option(&fd, libc::SOL_SOCKET, name, size);
        let _ = force(libc::SO_RCVBUFFORCE, RECEIVE_BUFFER);
        let _ = force(libc::SO_SNDBUFFORCE, SEND_BUFFER);
        let patience = nix::sys::time::TimeVal::new(ANSWER_SECONDS, 0);
        setsockopt(&fd, sockopt::ReceiveTimeout, &patience).map_err(|errno| fail(errno.into()))?;
        Ok(Self { fd, port, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// One whose answers somebody else than a kernel writes to the other end of `fd`, which must not block.
    pub(crate) fn over(fd: OwnedFd) -> Self {
        Self { fd, port: 0, sequence: 0, buffer: vec![0; BUFFER] }
    }

    /// The socket's own address: notifications of its changes carry it.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Sends requests and returns the kernel's answer to each: an error number, or success.
    pub(crate) fn request(&mut self, requests: Vec<Message>) -> io::Result<Vec<Result<(), i32>>> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let first = self.sequence.wrapping_add(1);
            let (mut bytes, mut count) = (Vec::new(), 0);
            while let Some(request) =
                requests.next_if(|_| count < BATCH && bytes.len() < BATCH_BYTES)
            {
                self.sequence = self.sequence.wrapping_add(1);
                bytes.extend(request.finish(self.sequence));
                count += 1;
            }
            self.send(&bytes)?;
            answers.extend(self.collect(first, count)?);
        }
        Ok(answers)
    }

    /// Sends one buffer of messages whose sequence numbers are `first..first + count`, all asking for acks.
    pub(crate) fn transact(&mut self, messages: Vec<Message>) -> io::Result<Vec<(usize, i32)>> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        let mut last_ack = None;
        for (index, message) in messages.into_iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let finished = message.finish(self.sequence);
            if wire::get_u16(&finished, 6).is_some_and(|flags| flags & NLM_F_ACK != 0) {
                last_ack = Some(index);
            }
            bytes.extend(finished);
        }
        self.send(&bytes)?;
        let Some(last) = last_ack else { return Ok(vec![]) };
        self.errors_until(first, last)
    }

    /// Reads answers until that of the message at `last`; returns the errors with their index.
    fn errors_until(&mut self, first: u32, last: usize) -> io::Result<Vec<(usize, i32)>> {
        let mut errors = Vec::new();
        loop {
            let (length, _) = sys::receive(&self.fd, &mut self.buffer, 0)?;
            for message in wire::messages(&self.buffer[..length]) {
                let index = message.sequence.wrapping_sub(first) as usize;
                if message.kind != NLMSG_ERROR || index > last {
                    continue;
                }
                if let Err(errno) = error_of(&message) {
                    errors.push((index, errno));
                }
                // The opening bracket asks for no ack: an answer to it is the refusal of everything.
                if index == last || index == 0 {
                    return Ok(errors);
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()).map_err(io::Error::from)?;
        Ok(())
    }

    fn collect(&mut self, first: u32, count: usize) -> io::Result<Vec<Result<(), i32>>> {
        let mut answers = vec![None; count];
        while answers.iter().any(Option::is_none) {
            let (length, _) = sys::receive(&self.fd, &mut self.buffer, 0)?;
            for message in wire::messages(&self.buffer[..length]) {
                let index = message.sequence.wrapping_sub(first) as usize;
                if message.kind == NLMSG_ERROR
                    && let Some(answer) = answers.get_mut(index)
                {
                    *answer = Some(error_of(&message));
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Asks one question and hands each answer to `each`; ends at an ack or an error.
    pub(crate) fn ask(
        &mut self,
        what: &'static str,
        mut question: Message,
        mut each: impl FnMut(&Received<'_>),
    ) -> Result<(), KernelError> {
        let fail = |error: io::Error| KernelError::io(what, &error);
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        question.raw(&[]);
        self.send(&question.finish(sequence)).map_err(fail)?;
        let mut interrupted = false;
        loop {
            let (length, _) = sys::receive(&self.fd, &mut self.buffer, 0).map_err(fail)?;
            for message in wire::messages(&self.buffer[..length]) {
                if message.sequence != sequence {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_DONE if interrupted => {
                        return Err(KernelError::Unsettled { what, tries: 1 });
                    }
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        return error_of(&message).map_err(|errno| KernelError::errno(what, errno));
                    }
                    _ => each(&message),
                }
            }
        }
    }

    /// Dumps a table of the kernel: `each` turns a message into rows of the answer. A dump that changed
    /// while it was read is read again.
    pub(crate) fn dump<T>(
        &mut self,
        what: &'static str,
        question: &Message,
        mut each: impl FnMut(&Received<'_>, &mut Vec<T>),
    ) -> Result<Vec<T>, KernelError> {
        for _ in 0..DUMP_TRIES {
            let mut rows = Vec::new();
            match self.ask(what, question.clone(), |message| each(message, &mut rows)) {
                Err(KernelError::Unsettled { .. }) => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(rows),
            }
        }
        Err(KernelError::Unsettled { what, tries: DUMP_TRIES })
    }
}

/// The error number in an ack, if it is not zero.
fn error_of(message: &Received<'_>) -> Result<(), i32> {
    match get_u32(message.body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        // The kernel's are negative, and small.
        Some(number) => Err(number.checked_neg().filter(|e| *e > 0).unwrap_or(libc::EBADMSG)),
        None => Err(libc::EBADMSG),
    }
}
