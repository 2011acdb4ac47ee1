//! Starting the container by means of the short-lived helper.
//!
//! The helper writes `pid N` to its descriptor 3 once the container's first process waits for its
//! start, and ends. That process keeps descriptor 3 until its exec closes it: the end of the file
//! means that the command runs, `error CODE TEXT` that it does not. If there is to be a terminal, it
//! sends the master side as SCM_RIGHTS on a line `terminal`, and goes on when it is answered.
//! Descriptor 5 is our own program, for a container that wants our `init.rs`.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use crate::serve;
use crate::sys::{self, check};

/// Where the helper finds the report pipe and its own executable.
const REPORT_FD: libc::c_int = 3;
const HELPER_FD: libc::c_int = 4;
const OWN_FD: libc::c_int = 5;
/// Bytes of a report that are kept: one error text.
pub const MAX_REPORT: usize = 4096;

/// A start under way.
pub struct Starting {
    pub helper: i32,
    pub report: OwnedFd,
    pub text: Vec<u8>,
    passed: Vec<OwnedFd>,
    pub oom_file: String,
    /// The container's first process, once told.
    pub pid: Option<i32>,
    pub helper_gone: bool,
    /// Told to run its command.
    pub released: bool,
}

/// What the container's first process is to have.
#[derive(Clone, Copy, Default)]
pub struct Wants {
    pub terminal: bool,
    pub input: bool,
    /// The input ends with the first client that feeds it.
    pub once: bool,
}

impl Wants {
    pub fn parse(letters: &[u8]) -> Self {
        let has = |letter| letters.contains(&letter);
        Self { terminal: has(b't'), input: has(b'i'), once: has(b'o') }
    }
}

/// Our ends of the first process's input and output. With a terminal there are none yet.
#[derive(Default)]
pub struct Ends {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

impl Ends {
    /// Ours and, in the order of their numbers, the ones for the process; `None` is /dev/null.
    fn new(wants: Wants) -> io::Result<(Self, [Option<OwnedFd>; 3])> {
        if wants.terminal {
            return Ok((Self::default(), [None, None, None]));
        }
        let (stdout, out) = sys::pipe()?;
        let (stderr, err) = sys::pipe()?;
        let (input, stdin) =
            if wants.input { sys::pipe().map(|(r, w)| (Some(r), Some(w)))? } else { (None, None) };
        let ours = Self { stdin, stdout: Some(stdout), stderr: Some(stderr) };
        for fd in [&ours.stdin, &ours.stdout, &ours.stderr].into_iter().flatten() {
            sys::set_nonblocking(fd)?;
        }
        Ok((ours, [input, Some(out), Some(err)]))
    }
}

/// Forks and executes the helper.
pub fn start(
    helper: &OwnedFd,
    argv: &[Vec<u8>],
    oom_file: String,
    wants: Wants,
    files: libc::rlimit,
) -> io::Result<(Starting, Ends)> {
    let argv: Vec<CString> =
        argv.iter().filter_map(|word| CString::new(word.as_slice()).ok()).collect();
    let mut words: Vec<*const libc::c_char> = argv.iter().map(|word| word.as_ptr()).collect();
    words.push(std::ptr::null());
    let environment = [std::ptr::null::<libc::c_char>()];
    let (ends, given) = Ends::new(wants)?;
    let (report, report_given) = sys::socket_pair()?;
    sys::set_nonblocking(&report)?;
    let own: OwnedFd = std::fs::File::open("/proc/self/exe")?.into();
    let numbered = (0..).zip(&given).filter_map(|(number, fd)| Some((number, fd.as_ref()?)));
    let numbered =
        numbered.chain([(REPORT_FD, &report_given), (HELPER_FD, helper), (OWN_FD, &own)]);
    // The descriptors the child renumbers must not sit where it puts them.
    let high: Vec<(libc::c_int, OwnedFd)> = numbered
        .map(|(number, fd)| Ok((number, sys::owned(dup_high(fd))?)))
        .collect::<io::Result<_>>()?;
    // SAFETY: this process has one thread; the child calls only async-signal-safe functions and
    // then exec or _exit, and `words` and `environment` are NULL-terminated arrays that outlive it.
    let pid = check(unsafe { libc::fork() })?;
    if pid == 0 {
        // SAFETY: as above.
        unsafe {
            sys::default_signals();
            libc::setrlimit(libc::RLIMIT_NOFILE, &files);
            // 0, 1 and 2 are /dev/null already.
            for (number, fd) in &high {
                if libc::dup2(fd.as_raw_fd(), *number) < 0 {
                    libc::_exit(1);
                }
            }
            sys::close_from(OWN_FD as libc::c_uint + 1);
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
        passed: Vec::new(),
        oom_file,
        pid: None,
        helper_gone: false,
        released: false,
    };
    Ok((starting, ends))
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
            match serve::receive(self.report.as_raw_fd(), &mut buffer, &mut self.passed) {
                Err(error) if sys::is_for_later(&error) => return false,
                Ok(0) | Err(_) => return true,
                Ok(n) => {
                    let room = MAX_REPORT.saturating_sub(self.text.len());
                    self.text.extend_from_slice(&buffer[..n.min(room)]);
                    self.pid = self.pid.or_else(|| pid_line(&self.text));
                }
            }
        }
    }

    /// The master side of the terminal, when it has come.
    pub fn terminal(&mut self) -> Option<OwnedFd> {
        self.passed.pop()
    }

    /// Lets the first process go on with its terminal.
    pub fn terminal_is_ready(&self) {
        // One that has died is told by the end of its report.
        let _ = sys::send_parts(self.report.as_raw_fd(), b"ok", b"");
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
