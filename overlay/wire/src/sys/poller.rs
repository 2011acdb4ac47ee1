//! Waiting for several file descriptors, and being woken by another thread.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        eventfd::{EfdFlags, EventFd},
    },
};

/// Most events that one wait returns; the rest comes with the next.
const EVENTS: usize = 64;

/// Says which of the watched descriptors can be read.
#[derive(Debug)]
pub struct Poller(Epoll);

impl Poller {
    /// Watches nothing yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Watches `fd`, which is called `token` from now on, until it is closed.
    pub fn watch(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(self.0.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    /// Watches `fd` no longer, though somebody else may keep it open.
    pub fn forget(&self, fd: impl AsFd) {
        // It fails only when it was not watched.
        let _ = self.0.delete(fd);
    }

    /// Waits until something can be read, at most for `timeout`; `None` is for ever.
    pub fn wait(&self, timeout: Option<Duration>, ready: &mut Vec<u64>) -> io::Result<()> {
        ready.clear();
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            // One more millisecond, so that nobody wakes a moment too early and waits for nothing.
            Some(time) => u16::try_from(time.as_millis() + 1).unwrap_or(u16::MAX).into(),
        };
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = match self.0.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            count => count?,
        };
        ready.extend(events.iter().take(count).map(EpollEvent::data));
        Ok(())
    }
}

/// Wakes a thread that waits in its poller.
#[derive(Debug)]
pub struct Wake(EventFd);

impl Wake {
    /// Wakes nobody yet.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(EventFd::from_value_and_flags(0, flags)?))
    }

    /// Makes the descriptor readable.
    pub fn wake(&self) {
        // It fails only when it is readable already.
        let _ = self.0.write(1);
    }

    /// Takes all wakes that came so far.
    pub fn take(&self) {
        // It fails only when there were none.
        let _ = self.0.read();
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
