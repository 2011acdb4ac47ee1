//! The shim's socket, `RUN-DIR/shim.sock`.
//!
//! Frames both ways: a u32 (little endian) length, then that many bytes: fields separated by NUL. A
//! client sends one request at a time. Requests:
//! - `state`: `ok`, the text of `status.rs`
//! - `dns`: `ok`, with the UDP and the TCP socket as SCM_RIGHTS on the first byte; `error` if there
//!   are none
//! - `start`, WANTS, OOM-FILE, ARGV...: with the helper's executable as SCM_RIGHTS; answered when the
//!   container's command runs (`ok`, pid) or could not be run (`error`, exit code, reason). WANTS has
//!   letters: `t` a terminal, `i` an input, `o` an input that ends with the first client that feeds
//!   it. OOM-FILE (may be empty) is the cgroup's file with a line `oom_kill N`
//! - `attach`, FEEDING (0 or 1): with a socket as SCM_RIGHTS (`attach.rs`)
//! - `resize`, ROWS, COLUMNS: the terminal's size, also before there is one
//! - `ports`, N: the ports of the host (`proxy.rs`), some, from the Nth on
//! - `publish`, `PROTOCOL LISTEN TARGET`...: with a bound socket for each, or with none
//! - `unpublish`, the same words
//! - `kill`, SIGNAL: `ok`, or `error` if nothing runs
//! - `wait`: answered when the container has ended: `ok`, the text of `status.rs`
//! - `shutdown`: kills what runs, answers `ok` when it is gone, and ends the shim
//!
//! An error is `error`, a number (exit code for `start`, errno for the rest), a text.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::sys::{check, owned};

/// Clients at one time: the daemon keeps one waiting and asks on another; the rest is room for a
/// second daemon that is taking over.
pub const MAX_CLIENTS: usize = 16;
/// Bytes of one request; `start` carries a command line of a few paths.
const MAX_REQUEST: usize = 64 << 10;

/// What a client is waiting for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    Nothing,
    Start,
    Exit,
    Shutdown,
}

pub struct Client {
    pub socket: OwnedFd,
    pub waiting: Waiting,
    inbox: Vec<u8>,
    passed: Vec<OwnedFd>,
}

/// One whole request.
pub struct Request {
    pub fields: Vec<Vec<u8>>,
    pub passed: Vec<OwnedFd>,
}

/// Binds the socket by a relative name, since the whole path may be longer than a socket address
/// allows.
pub fn listen(run_dir: &std::path::Path) -> io::Result<OwnedFd> {
    std::env::set_current_dir(run_dir)?;
    let listener = std::os::unix::net::UnixListener::bind("shim.sock");
    std::env::set_current_dir("/")?;
    let listener = listener?;
    listener.set_nonblocking(true)?;
    Ok(listener.into())
}

pub fn accept(listener: &OwnedFd) -> io::Result<Client> {
    // SAFETY: no address is asked for.
    let socket = owned(unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
        )
    })?;
    Ok(Client { socket, waiting: Waiting::Nothing, inbox: Vec::new(), passed: Vec::new() })
}

impl Client {
    /// Reads what has come; `Ok(None)`: not a whole request yet. An error means the client is to be
    /// dropped.
    pub fn read(&mut self) -> io::Result<Option<Request>> {
        let mut buffer = [0u8; 4096];
        match receive(self.socket.as_raw_fd(), &mut buffer, &mut self.passed) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => self.inbox.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        let Some(length) = self.inbox.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.inbox.len() < 4 + length {
            return Ok(None);
        }
        let fields = self.inbox[4..4 + length].split(|b| *b == 0).map(<[u8]>::to_vec).collect();
        self.inbox = Vec::new();
        Ok(Some(Request { fields, passed: std::mem::take(&mut self.passed) }))
    }

    /// Sends one answer; a client that does not take it at once is not served further (answers are
    /// smaller than the socket's buffer).
    pub fn answer(&mut self, fields: &[&[u8]], fds: &[RawFd]) -> io::Result<()> {
        self.waiting = Waiting::Nothing;
        let body = fields.join(&0u8);
        let mut frame = (body.len() as u32).to_le_bytes().to_vec();
        frame.extend_from_slice(&body);
        send(self.socket.as_raw_fd(), &frame, fds)
    }

    pub fn ok(&mut self, text: &str) -> io::Result<()> {
        self.answer(&[b"ok", text.as_bytes()], &[])
    }

    pub fn error(&mut self, code: i32, text: &str) -> io::Result<()> {
        self.answer(&[b"error", code.to_string().as_bytes(), text.as_bytes()], &[])
    }
}

/// Room for the control message: the descriptors of 64 published ports.
const CONTROL_BYTES: usize = 16 + 64 * 4;
/// Descriptors of one request at most; a client that passes more is not one of ours.
const MAX_PASSED: usize = 64;

#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// Reads once; descriptors that come along are added to `passed`.
pub fn receive(fd: RawFd, buffer: &mut [u8], passed: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero bytes are a valid msghdr; every pointer set below outlives the calls, and
    // the kernel writes only whole control messages, which the CMSG macros walk within
    // `msg_controllen`.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_BYTES as _;
        let n = libc::recvmsg(fd, &mut message, libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT);
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let count = ((*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize) / 4;
                for index in 0..count {
                    let raw = libc::CMSG_DATA(header).cast::<RawFd>().add(index).read_unaligned();
                    passed.push(owned(raw)?);
                }
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
        match passed.len() <= MAX_PASSED {
            true => Ok(n as usize),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn send(fd: RawFd, frame: &[u8], fds: &[RawFd]) -> io::Result<()> {
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec { iov_base: frame.as_ptr() as *mut _, iov_len: frame.len() };
    let bytes = std::mem::size_of_val(fds);
    // SAFETY: as in `receive`; `fds` holds at most two descriptors, for which `Control` has room,
    // and the kernel only reads the frame.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        if !fds.is_empty() {
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(bytes as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(bytes as u32) as _;
            std::ptr::copy_nonoverlapping(fds.as_ptr().cast(), libc::CMSG_DATA(header), bytes);
        }
        libc::sendmsg(fd, &message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
    };
    match check(sent as libc::c_int) {
        Ok(n) if n as usize == frame.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(e) => Err(e),
    }
}
