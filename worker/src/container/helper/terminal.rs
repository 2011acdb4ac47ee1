//! Terminals inside of a container.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat, major, minor};

/// Device number of every pseudo terminal multiplexer (devices.txt).
const PTMX: (u64, u64) = (5, 2);

/// A new terminal of the container's own devpts: (master, terminal). What lies at the path is the
/// container's choice, so it is looked at before use, and the terminal is opened through the
/// master, not by name.
pub(super) fn open_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let master = open("/dev/pts/ptmx", flags, Mode::empty())?;
    let device = fstat(&master)?.st_rdev;
    let devpts = nix::sys::statfs::fstatfs(&master)?.filesystem_type();
    if (major(device), minor(device)) != PTMX || devpts.0 != libc::DEVPTS_SUPER_MAGIC {
        return Err(io::Error::other(
            "/dev/pts/ptmx of the container is not a terminal multiplexer",
        ));
    }
    let unlocked: libc::c_int = 0;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCSPTLCK reads one int, TIOCGPTPEER takes flags and returns a fresh descriptor.
    unsafe {
        let done = libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlocked);
        Errno::result(done)?;
        let peer = libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags);
        let peer = Errno::result(peer)?;
        Ok((master, OwnedFd::from_raw_fd(peer)))
    }
}

/// Makes a terminal that of the calling process's session, which must be its own.
pub(super) fn take(terminal: &OwnedFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a plain value.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    Ok(Errno::result(done).map(drop)?)
}

/// Puts descriptors in the place of the standard ones.
pub(super) fn become_stdio(stdio: [&OwnedFd; 3]) -> io::Result<()> {
    for (number, fd) in (0..).zip(stdio) {
        // SAFETY: dup2 onto the standard descriptors, which this process owns.
        Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) })?;
    }
    Ok(())
}
