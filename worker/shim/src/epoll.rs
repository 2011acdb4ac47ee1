//! A set of descriptors to wait for, itself a descriptor that can be waited for (epoll(7)).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::sys::{check, owned};

pub const READ: u32 = libc::EPOLLIN as u32;
pub const WRITE: u32 = libc::EPOLLOUT as u32;
/// Descriptors told of at once.
const BATCH: usize = 64;

pub struct Epoll(OwnedFd);

impl Epoll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1 takes a plain flag.
        owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(Self)
    }

    pub fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Waits for `wanted` on a descriptor that was waited for as `before`; for nothing at all if it
    /// is 0. A closed descriptor leaves by itself.
    pub fn change(&self, fd: RawFd, token: u64, before: u32, wanted: u32) -> io::Result<()> {
        let operation = match (before, wanted) {
            (before, wanted) if before == wanted => return Ok(()),
            (0, _) => libc::EPOLL_CTL_ADD,
            (_, 0) => libc::EPOLL_CTL_DEL,
            (_, _) => libc::EPOLL_CTL_MOD,
        };
        let mut event = libc::epoll_event { events: wanted, u64: token };
        // SAFETY: the event outlives the call.
        check(unsafe { libc::epoll_ctl(self.raw(), operation, fd, &mut event) }).map(drop)
    }

    /// The tokens of some that are ready now.
    pub fn ready(&self) -> Vec<u64> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        // SAFETY: the array is valid for its own length.
        let n = unsafe { libc::epoll_wait(self.raw(), events.as_mut_ptr(), BATCH as i32, 0) };
        let n = usize::try_from(n).unwrap_or(0);
        events[..n].iter().map(|event| event.u64).collect()
    }
}
