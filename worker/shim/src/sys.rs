//! The few system calls that std does not offer, each behind a safe function.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The out-of-memory killer takes the container before its shim (the value containerd's shim uses).
const SHIM_OOM_SCORE_ADJ: &str = "-999";

/// Turns the usual -1 into the error behind it.
pub fn check(value: libc::c_int) -> io::Result<libc::c_int> {
    if value == -1 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Takes ownership of a descriptor a system call has just returned.
pub fn owned(value: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: `check` let only a fresh descriptor through, which nobody else owns.
    check(value).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Two connected sockets, closed on exec.
pub fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` has room for the two descriptors the kernel writes.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    Ok((owned(fds[0])?, owned(fds[1])?))
}

/// Sends two parts as one packet, whole or not at all.
pub fn send_parts(fd: RawFd, first: &[u8], second: &[u8]) -> io::Result<()> {
    let part = |data: &[u8]| libc::iovec {
        iov_base: data.as_ptr() as *mut libc::c_void,
        iov_len: data.len(),
    };
    let mut parts = [part(first), part(second)];
    // SAFETY: all-zero bytes are a valid msghdr; the parts outlive the call, which only reads them.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = parts.len() as _;
        libc::sendmsg(fd, &message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets a socket's other side send no more.
pub fn shut_reading(socket: &OwnedFd) {
    // SAFETY: shutdown takes a descriptor we own and a plain value.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RD) };
}

/// Tells a terminal how large its window is (TIOCSWINSZ, ioctl_tty(2)): (rows, columns).
pub fn set_window_size(terminal: &OwnedFd, (rows, columns): (u16, u16)) {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call. It fails for nothing but a
    // descriptor that is no terminal.
    unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) };
}

/// As many descriptors as this process may have, for published ports and their connections;
/// returns the limit there was, which the container is to get.
pub fn raise_files() -> libc::rlimit {
    // SAFETY: `limit` has room for the answer, and the second call only reads it.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        libc::setrlimit(libc::RLIMIT_NOFILE, &raised);
        limit
    }
}

/// Whether an attempt may be repeated when the descriptor is ready again.
pub fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Writes what is taken now; `None` when nothing is.
pub fn write_some(fd: RawFd, data: &[u8]) -> io::Result<Option<usize>> {
    // SAFETY: the data is valid for its own length.
    let n = unsafe { libc::write(fd, data.as_ptr().cast(), data.len()) };
    if n >= 0 {
        return Ok(Some(n as usize));
    }
    let error = io::Error::last_os_error();
    if is_for_later(&error) { Ok(None) } else { Err(error) }
}

/// A pipe, both ends closed on exec: (read, write).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for the two descriptors the kernel writes.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok((owned(fds[0])?, owned(fds[1])?))
}

pub fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: plain fcntl on a descriptor we own.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    Ok(())
}

/// Closes every descriptor from `first` on: whatever the daemon leaked must not live as long as the
/// container.
pub fn close_from(first: libc::c_uint) {
    // SAFETY: called before this process owns any descriptor from `first` on.
    unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
}

/// Own session, reaper of everything the container leaves behind, deaf to a terminal's or service
/// manager's signals, and last in the line of the out-of-memory killer.
pub fn become_owner() -> io::Result<()> {
    // SAFETY: setsid, prctl and signal take plain values; the name is a NUL-terminated literal.
    unsafe {
        check(libc::setsid())?;
        check(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))?;
        check(libc::prctl(libc::PR_SET_NAME, c"weft-shim".as_ptr()))?;
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE] {
            libc::signal(signal, libc::SIG_IGN);
        }
        libc::umask(0o077);
    }
    std::env::set_current_dir("/")?;
    // Lowering the score needs a capability that a nested daemon may lack; it is a preference, not
    // a promise.
    let _ = std::fs::write("/proc/self/oom_score_adj", SHIM_OOM_SCORE_ADJ);
    Ok(())
}

/// Lets go of the daemon's pipes, so that it sees their end.
pub fn quiet_stdio() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    for fd in 0..3 {
        // SAFETY: dup2 onto the standard descriptors, which std does not own exclusively.
        check(unsafe { libc::dup2(null.as_raw_fd(), fd) })?;
    }
    Ok(())
}

/// A descriptor that becomes readable when a child ends.
pub fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()))?;
        owned(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))
    }
}

/// Every signal as a fresh process has it: what is ignored or blocked here would stay so across
/// exec. By the raw call, since the C library hides two numbers that an ancestor may have ignored
/// all the same.
pub fn default_signals() {
    const SIGNALS: libc::c_int = 64;
    /// Bytes of the kernel's signal set.
    const SET: usize = 8;
    let default = [0u64; 4];
    let none = [0u64; 1];
    let no_old = std::ptr::null_mut::<u64>();
    // SAFETY: all-zero words are the kernel's sigaction for the default, and an empty set; both
    // outlive the calls. KILL and STOP are refused, as they cannot be anything else.
    unsafe {
        for signal in 1..=SIGNALS {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), no_old, SET);
        }
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, none.as_ptr(), no_old, SET);
    }
}

/// Nanoseconds since 1970.
pub fn now_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| d.as_nanos() as u64)
}

/// When a process started, in clock ticks since boot: with the pid it names a process for good
/// (proc_pid_stat(5), field 22).
pub fn start_ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().nth(19).and_then(|f| f.parse().ok()).unwrap_or(0)
}

/// Reads what is there; `None` when nothing is there now.
pub fn read_some(fd: RawFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    // SAFETY: the buffer is valid for its own length.
    let n = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
    if n >= 0 {
        return Ok(Some(n as usize));
    }
    let error = io::Error::last_os_error();
    if is_for_later(&error) { Ok(None) } else { Err(error) }
}
