//! `weft-init FILE ARG0 ARG...`: the first process of a container that wants one of ours. It runs
//! the command as its child, passes signals on to it, reaps what the command leaves behind, and
//! ends as the command does.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

/// The name that says that the shim's program is to be this.
pub const NAME: &str = "weft-init";
/// Exit codes of a command that could not be run (POSIX shells').
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

pub fn main(words: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<CString> = words.filter_map(|word| CString::new(word.into_vec()).ok()).collect();
    let [file, argv @ ..] = words.as_slice() else { return ExitCode::FAILURE };
    let mut argv: Vec<_> = argv.iter().map(|word| word.as_ptr()).collect();
    argv.push(std::ptr::null());
    let all = all_signals();
    // SAFETY: the sets are valid, this process has one thread, and the child makes only
    // async-signal-safe calls with arrays that outlive them.
    unsafe {
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &all, &mut before);
        match libc::fork() {
            -1 => ExitCode::FAILURE,
            0 => {
                become_foreground();
                libc::sigprocmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
                // The Rust runtime ignores it, and ignored signals survive exec.
                libc::signal(libc::SIGPIPE, libc::SIG_DFL);
                libc::execv(file.as_ptr(), argv.as_ptr());
                let gone = *libc::__errno_location() == libc::ENOENT;
                libc::_exit(if gone { NOT_FOUND } else { NOT_EXECUTABLE })
            }
            child => watch(child, &all),
        }
    }
}

fn all_signals() -> libc::sigset_t {
    // SAFETY: the set is initialised by sigfillset.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        all
    }
}

/// A group of its own, and the terminal's, if there is one: what is typed must not reach us as
/// well.
unsafe fn become_foreground() {
    // SAFETY: plain values; without a terminal the second call fails, and nothing is lost.
    unsafe {
        libc::setpgid(0, 0);
        libc::tcsetpgrp(libc::STDIN_FILENO, libc::getpgrp());
    }
}

fn watch(child: i32, all: &libc::sigset_t) -> ExitCode {
    loop {
        // SAFETY: the set is valid; nothing more than the number is asked for.
        let signal = unsafe { libc::sigwaitinfo(all, std::ptr::null_mut()) };
        match signal {
            libc::SIGCHLD => {
                if let Some(code) = reap(child) {
                    return ExitCode::from(code);
                }
            }
            // A background process's own business, and an interrupted call.
            libc::SIGTTIN | libc::SIGTTOU | -1 => {}
            // SAFETY: our own child, not yet reaped.
            signal => drop(unsafe { libc::kill(child, signal) }),
        }
    }
}

/// Reaps all that have ended; the code if the command is among them.
fn reap(child: i32) -> Option<u8> {
    loop {
        let mut raw = 0;
        // SAFETY: `raw` has room for the status.
        let pid = unsafe { libc::waitpid(-1, &mut raw, libc::WNOHANG) };
        if pid <= 0 {
            return None;
        }
        if pid == child {
            let code = match libc::WIFSIGNALED(raw) {
                true => 128 + libc::WTERMSIG(raw),
                false => libc::WEXITSTATUS(raw),
            };
            // A code is one byte.
            return Some(code as u8);
        }
    }
}
