//! The last steps of a process before it becomes the container's command.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use seccompiler::BpfProgram;

use crate::container::Ulimit;

/// Exit codes of a command that could not be run (POSIX shells', and Docker's).
pub(super) const NOT_FOUND: i32 = 127;
pub(super) const NOT_EXECUTABLE: i32 = 126;

/// The name by which the shim's program knows that it is to be an init (`shim/src/init.rs`).
const INIT_NAME: &CStr = c"weft-init";

/// Why a command does not run.
#[derive(Debug)]
pub(super) struct Refused {
    pub code: i32,
    pub reason: String,
}

/// A command with everything prepared that needs memory or files.
#[derive(Clone)]
pub(super) struct Command {
    args: Vec<CString>,
    env: Vec<CString>,
    filters: Vec<BpfProgram>,
    /// The descriptor of the program that is to be the first process, with the command as its child.
    init: Option<RawFd>,
}

/// Which system calls a command may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calls {
    /// Those that go with its capabilities.
    Filtered,
    All,
}

impl Calls {
    pub(super) fn of(privileged: bool) -> Self {
        if privileged { Self::All } else { Self::Filtered }
    }
}

impl Command {
    pub(super) fn new(
        args: &[String],
        env: &[String],
        capabilities: &BTreeSet<String>,
        calls: Calls,
    ) -> Result<Self, Refused> {
        let words = |list: &[String]| -> Result<Vec<CString>, Refused> {
            let word = |w: &String| CString::new(w.as_str());
            list.iter()
                .map(word)
                .collect::<Result<_, _>>()
                .map_err(|e| failed(format!("NUL in text: {e}")))
        };
        let filters = match calls {
            Calls::Filtered => crate::container::seccomp::compile(capabilities)
                .map_err(|e| failed(format!("system call filter: {e}")))?,
            Calls::All => Vec::new(),
        };
        Ok(Self { args: words(args)?, env: words(env)?, filters, init: None })
    }

    /// The command as the child of the program that is open as `program`.
    pub(super) fn under(self, program: RawFd) -> Self {
        Self { init: Some(program), ..self }
    }

    /// Finds the file to execute as a shell would; to be called inside of the container.
    pub(super) fn find(&self) -> Result<CString, Refused> {
        let name = self.args.first().map(|a| a.to_string_lossy().into_owned()).unwrap_or_default();
        let path = self.env.iter().find_map(|e| e.to_str().ok()?.strip_prefix("PATH="));
        let found = find_in(&name, path.unwrap_or_default())?;
        CString::new(found.into_os_string().into_encoded_bytes())
            .map_err(|e| failed(format!("NUL in path: {e}")))
    }

    /// Signals as a fresh process has them, the filter, and exec. Comes back only with the reason
    /// why not.
    pub(super) fn run(&self, file: &CString) -> Result<Infallible, Refused> {
        fresh_signals();
        for filter in &self.filters {
            seccompiler::apply_filter(filter)
                .map_err(|e| failed(format!("system call filter: {e}")))?;
        }
        let Err(errno) = match self.init {
            None => nix::unistd::execve(file, &self.args, &self.env),
            Some(program) => {
                let own = [INIT_NAME.to_owned(), file.clone()];
                let words: Vec<CString> =
                    own.into_iter().chain(self.args.iter().cloned()).collect();
                let flags = AtFlags::AT_EMPTY_PATH;
                // SAFETY: the shim has opened it for us, and nobody closes it before exec does.
                let program = unsafe { BorrowedFd::borrow_raw(program) };
                nix::unistd::execveat(program, c"", &words, &self.env, flags)
            }
        };
        let code = if errno == Errno::ENOENT { NOT_FOUND } else { NOT_EXECUTABLE };
        Err(Refused { code, reason: format!("exec {:?}: {}", file, errno.desc()) })
    }
}

fn failed(reason: String) -> Refused {
    Refused { code: crate::container::EXIT_NOT_STARTED, reason }
}

fn find_in(name: &str, path: &str) -> Result<PathBuf, Refused> {
    if name.contains('/') {
        return usable(Path::new(name)).map(|()| name.into());
    }
    let mut refused = Refused {
        code: NOT_FOUND,
        reason: format!("exec: {name:?}: executable file not found in $PATH"),
    };
    for dir in path.split(':').filter(|d| !d.is_empty()) {
        let file = Path::new(dir).join(name);
        match usable(&file) {
            Ok(()) => return Ok(file),
            // A file that is there but cannot be executed tells more than one that is nowhere.
            Err(why) if why.code == NOT_EXECUTABLE => refused = why,
            Err(_) => {}
        }
    }
    Err(refused)
}

fn usable(file: &Path) -> Result<(), Refused> {
    let no = |code, why: &str| Err(Refused { code, reason: format!("exec: {file:?}: {why}") });
    match fs::metadata(file) {
        Ok(meta) if meta.is_dir() => no(NOT_EXECUTABLE, "is a directory"),
        Ok(meta) if meta.permissions().mode() & 0o111 == 0 => {
            no(NOT_EXECUTABLE, "permission denied")
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            no(NOT_EXECUTABLE, "permission denied")
        }
        Err(_) => no(NOT_FOUND, "no such file or directory"),
    }
}

/// The Rust runtime ignores SIGPIPE, and ignored signals and the mask survive exec. By the raw
/// call, since the C library hides two numbers that an ancestor may have ignored all the same.
fn fresh_signals() {
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

/// Limits of the calling process and of what it becomes.
pub(super) fn set_limits(ulimits: &[Ulimit]) -> Result<(), Refused> {
    for ulimit in ulimits {
        let Some(resource) = ulimit.resource() else { continue };
        let limit = libc::rlimit { rlim_cur: ulimit.soft, rlim_max: ulimit.hard };
        // SAFETY: the limit outlives the call, which only reads it.
        let done = unsafe { libc::setrlimit(resource, &limit) };
        Errno::result(done)
            .map_err(|e| failed(format!("limit of {}: {}", ulimit.name, e.desc())))?;
    }
    Ok(())
}

/// The process dies with the one that made it, whatever becomes of that one.
pub(super) fn die_with_parent() {
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
}
