//! What is on its way from one connection to another. Its pages go through a pipe of the kernel's
//! (splice(2)) and are never copied here, which halves what a byte costs.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::sys::{check, owned};

/// Bytes moved at once, and held at most for an end that does not take them. A pipe of the default
/// size (64 KB) costs a third more for each byte, one of 1 MB a tenth less.
pub const CHUNK: usize = 256 << 10;
/// Empty pipes kept for whoever has something to move next; two for one connection that is busy both
/// ways.
const SPARE: usize = 2;

pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// Bytes that are in it.
    held: usize,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let mut fds = [0; 2];
        // SAFETY: `fds` has room for the two descriptors the kernel writes.
        check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
        let (read, write) = (owned(fds[0])?, owned(fds[1])?);
        // SAFETY: F_SETPIPE_SZ takes a plain value. Where it is refused, the pipe is smaller.
        unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, CHUNK as libc::c_int) };
        Ok(Self { read, write, held: 0 })
    }

    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes what a socket has, at most a chunk; 0 at its end. To be called while it is empty: a full
    /// pipe looks like a socket that has nothing.
    pub fn fill(&mut self, socket: RawFd) -> io::Result<usize> {
        let n = splice(socket, self.write.as_raw_fd(), CHUNK)?;
        self.held += n;
        Ok(n)
    }

    /// Gives a socket what it takes.
    pub fn drain(&mut self, socket: RawFd) -> io::Result<()> {
        self.held -= splice(self.read.as_raw_fd(), socket, self.held)?;
        Ok(())
    }
}

/// Empty pipes. A connection has one of them only while it holds bytes.
#[derive(Default)]
pub struct Pipes(Vec<Pipe>);

impl Pipes {
    pub fn take(&mut self) -> io::Result<Pipe> {
        self.0.pop().map_or_else(Pipe::new, Ok)
    }

    /// Takes back one that is empty.
    pub fn put(&mut self, pipe: Pipe) {
        if self.0.len() < SPARE {
            self.0.push(pipe);
        }
    }
}

fn splice(from: RawFd, to: RawFd, bytes: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE;
    // SAFETY: neither side has an offset, so no pointer is read.
    let n =
        unsafe { libc::splice(from, std::ptr::null_mut(), to, std::ptr::null_mut(), bytes, flags) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}
