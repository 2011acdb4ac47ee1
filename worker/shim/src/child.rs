//! Starting the container by means of the short-lived helper.
//!
//! The helper writes `pid N` to its descriptor 3 once the container's first process waits for its
//! start, and ends. That process keeps descriptor 3 until its exec closes it: the end of the file
//! means that the command runs, `error CODE TEXT` that it does not.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use crate::sys::{self, check};

/// Where the helper finds the report pipe and its own executable.
const REPORT_FD: libc::c_int = 3;
const HELPER_FD: libc::c_int = 4;
/// Bytes of a report that are kept: one error text.
pub const MAX_REPORT: usize = 4096;

/// A start under way.
pub struct Starting {
    pub helper: i32,
    pub report: OwnedFd,
    pub text: Vec<u8>,
    pub oom_file: String,
    /// The container's first process, once told.
    pub pid: Option<i32>,
    pub helper_gone: bool,
    /// Told to run its command.
    pub released: bool,
}

/// The two output pipes' reading ends.
pub struct Output {
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Forks and executes the helper.
pub fn start(
    helper: &OwnedFd,
    argv: &[Vec<u8>],
    oom_file: String,
) -> io::Result<(Starting, Output)> {
    let argv: Vec<CString> =
        argv.iter().filter_map(|word| CString::new(word.as_slice()).ok()).collect();
    let mut words: Vec<*const libc::c_char> = argv.iter().map(|word| word.as_ptr()).collect();
    words.push(std::ptr::null());
    let environment = [std::ptr::null::<libc::c_char>()];
    let (stdout, stdout_write) = sys::pipe()?;
    let (stderr, stderr_write) = sys::pipe()?;
    let (report, report_write) = sys::pipe()?;
    for fd in [&stdout, &stderr, &report] {
        sys::set_nonblocking(fd)?;
    }
    // The descriptors the child renumbers must not sit where it puts them.
    let high: Vec<OwnedFd> = [&stdout_write, &stderr_write, &report_write, helper]
        .into_iter()
        .map(|fd| sys::owned(dup_high(fd)))
        .collect::<io::Result<_>>()?;
    // SAFETY: this process has one thread; the child calls only async-signal-safe functions and
    // then exec or _exit, and `words` and `environment` are NULL-terminated arrays that outlive it.
    let pid = check(unsafe { libc::fork() })?;
    if pid == 0 {
        // SAFETY: as above.
        unsafe {
            sys::default_signals();
            // 0 is /dev/null already.
            for (index, target) in [1, 2, REPORT_FD, HELPER_FD].into_iter().enumerate() {
                if libc::dup2(high[index].as_raw_fd(), target) < 0 {
                    libc::_exit(1);
                }
            }
            sys::close_from(HELPER_FD as libc::c_uint + 1);
            libc::fcntl(HELPER_FD, libc::F_SETFD, libc::FD_CLOEXEC);
            libc::execveat(
                HELPER_FD,
                c"".as_ptr(),
                words.as_ptr().cast(),
                environment.as_ptr().cast(),
                libc::AT_EMPTY_PATH,
            );
            let text = b"error 125 the helper could not be executed";
            libc::write(REPORT_FD, text.as_ptr().cast(), text.len());
            libc::_exit(1)
        }
    }
    let starting = Starting {
        helper: pid,
        report,
        text: Vec::new(),
        oom_file,
        pid: None,
        helper_gone: false,
        released: false,
    };
    Ok((starting, Output { stdout, stderr }))
}

/// A duplicate above every number the child uses, closed on exec.
fn dup_high(fd: &OwnedFd) -> libc::c_int {
    const FIRST_FREE: libc::c_int = 32;
    // SAFETY: plain fcntl on a descriptor we own.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, FIRST_FREE) }
}

impl Starting {
    /// Takes in what the report pipe holds; `true` at its end.
    pub fn read_report(&mut self) -> bool {
        let mut buffer = [0u8; 512];
        loop {
            match sys::read_some(self.report.as_raw_fd(), &mut buffer) {
                Ok(Some(0)) | Err(_) => return true,
                Ok(Some(n)) => {
                    let room = MAX_REPORT.saturating_sub(self.text.len());
                    self.text.extend_from_slice(&buffer[..n.min(room)]);
                    self.pid = self.pid.or_else(|| pid_line(&self.text));
                }
                Ok(None) => return false,
            }
        }
    }

    /// The error the report tells of: (exit code, reason).
    pub fn error(&self) -> Option<(i32, String)> {
        let text = String::from_utf8_lossy(&self.text);
        let line = &text[text.find("error ")?..];
        let mut words = line.splitn(3, ' ').skip(1);
        let code = words.next().and_then(|c| c.parse().ok()).unwrap_or(125);
        Some((code, words.next().unwrap_or_default().trim_end().to_owned()))
    }

    /// Lets the container's first process go on to its command: it waits in `accept` on the runtime
    /// library's notify socket. Only now, with the helper gone, are we its parent, as its
    /// parent-death signal needs.
    pub fn release(&mut self, run_dir: &Path, id: &str) -> io::Result<()> {
        std::env::set_current_dir(run_dir.join("lc").join(id))?;
        let socket = std::os::unix::net::UnixStream::connect("notify.sock");
        std::env::set_current_dir("/")?;
        socket?.write_all(b"start container")?;
        self.released = true;
        Ok(())
    }
}

fn pid_line(text: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(text).ok()?;
    let line = text.split_inclusive('\n').find(|l| l.starts_with("pid ") && l.ends_with('\n'))?;
    line[4..].trim_end().parse().ok()
}
