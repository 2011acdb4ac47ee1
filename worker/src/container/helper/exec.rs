//! `__container-exec`: enters a container and runs one command there; `container/exec.rs` says what
//! goes over the socket on descriptor 0.
//!
//! Two processes: this one enters all namespaces but the pid namespace (which only its children can
//! be in) and waits; its child becomes the command. Nothing of the container is trusted: both are
//! not dumpable, so that no process inside can trace them, and no path of the container is opened
//! for writing.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use caps::{CapSet, Capability};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::MsgFlags;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::process::{
    Calls, Command, NOT_EXECUTABLE, NOT_FOUND, Refused, die_with_parent, set_limits,
};
use super::terminal::{self, open_terminal};
use super::user::{become_user, own_stdio};
use crate::container::config::merged_env;
use crate::container::exec::{ExecRequest, Terminal, set_window_size};
use crate::container::user::{self, Identity};
use crate::container::wire::{self, Inbox};
use crate::container::{EXIT_NOT_STARTED, cgroup};

pub(super) fn main() -> ExitCode {
    // SAFETY: the daemon made descriptor 0 our socket, and nothing else here uses it.
    let socket = unsafe { OwnedFd::from_raw_fd(0) };
    match run(&socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refused) => {
            let code = refused.code.to_string();
            let _ = say(&socket, &[b"error", code.as_bytes(), refused.reason.as_bytes()], None);
            ExitCode::FAILURE
        }
    }
}

fn run(socket: &OwnedFd) -> Result<(), Refused> {
    let fail = |what: &str| {
        let what = what.to_owned();
        move |e: nix::Error| failed(format!("{what}: {}", e.desc()))
    };
    nix::sys::prctl::set_dumpable(false).map_err(fail("set_dumpable"))?;
    let mut inbox = Inbox::default();
    let (request, mut fds) = receive(socket, &mut inbox)?;
    cgroup::join(&request.cgroups).map_err(|e| failed(crate::container::chain(&e)))?;
    if fds.is_empty() {
        return Err(failed("no pidfd came".into()));
    }
    let pidfd = fds.remove(0);
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP;
    setns(&pidfd, all).map_err(fail("enter the container"))?;
    let identity = user::find_in(Path::new("/"), &request.user)
        .map_err(|e| Refused { code: NOT_EXECUTABLE, reason: e.to_string() })?;
    let mut env = request.env.clone();
    if !request.home {
        env = merged_env(&[], &[env, vec![format!("HOME={}", identity.home)]].concat());
    }
    let calls = Calls::of(request.privileged);
    let command = Command::new(&request.args, &env, &request.capabilities, calls)?;
    let (stdio, master) = match request.terminal {
        Terminal::No => {
            (<[OwnedFd; 3]>::try_from(fds).map_err(|_| failed("no pipes came".into()))?, None)
        }
        Terminal::Yes(size) => {
            let (master, terminal) =
                open_terminal().map_err(|e| failed(format!("terminal: {e}")))?;
            set_window_size(master.as_fd(), size).map_err(|e| failed(format!("terminal: {e}")))?;
            let copy = || terminal.try_clone().map_err(|e| failed(format!("terminal: {e}")));
            ([copy()?, copy()?, terminal], Some(master))
        }
    };
    let (report, report_write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(fail("pipe"))?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }.map_err(fail("fork"))? {
        ForkResult::Child => {
            drop(report);
            let Err(refused) = become_command(&request, &command, &identity, &stdio);
            let _ = nix::unistd::write(
                &report_write,
                format!("{} {}", refused.code, refused.reason).as_bytes(),
            );
            // SAFETY: _exit takes a plain value and does not return; destructors are the parent's.
            unsafe { libc::_exit(refused.code) }
        }
        ForkResult::Parent { child } => {
            drop((stdio, report_write));
            answered(socket, report, master)?;
            watch(socket, &mut inbox, child)
        }
    }
}

/// Waits for the command's exec and tells the daemon.
fn answered(socket: &OwnedFd, report: OwnedFd, master: Option<OwnedFd>) -> Result<(), Refused> {
    let mut text = String::new();
    io::Read::read_to_string(&mut std::fs::File::from(report), &mut text)
        .map_err(|e| failed(format!("report: {e}")))?;
    if let Some((code, reason)) = text.split_once(' ') {
        let code = code.parse().unwrap_or(EXIT_NOT_STARTED);
        return Err(Refused { code, reason: reason.to_owned() });
    }
    say(socket, &[b"ok"], master.as_ref().map(AsFd::as_fd))
        .map_err(|e| failed(format!("answer: {e}")))
}

/// Waits for the command's end, passing on signals; kills it when the daemon is gone.
fn watch(socket: &OwnedFd, inbox: &mut Inbox, child: Pid) -> Result<(), Refused> {
    let oops = |what: &str, e: io::Error| failed(format!("{what}: {e}"));
    // SAFETY: pidfd_open takes plain values; a result that is no error is a fresh descriptor.
    let pidfd = unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0);
        let fd = nix::errno::Errno::result(fd).map_err(|e| oops("pidfd", e.into()))?;
        OwnedFd::from_raw_fd(fd as i32)
    };
    let mut listening = true;
    loop {
        let interest = if listening { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut polled =
            [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN), PollFd::new(socket.as_fd(), interest)];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(oops("poll", errno.into())),
        }
        let ready = |at: usize| polled[at].revents().is_some_and(|r| !r.is_empty());
        let (ended, asked) = (ready(0), ready(1));
        if ended {
            let code = match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, code)) => code,
                Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
                Ok(_) => continue,
                Err(errno) => return Err(oops("wait", errno.into())),
            };
            // With the daemon gone nobody wants to know.
            let _ = say(socket, &[b"exit", code.to_string().as_bytes()], None);
            return Ok(());
        }
        if asked && listening {
            listening = inbox.fill(socket.as_fd(), MsgFlags::MSG_DONTWAIT).unwrap_or(false);
            while let Ok(Some((fields, _))) = inbox.take() {
                if let Some(signal) =
                    fields.get(1).and_then(|s| std::str::from_utf8(s).ok()?.parse().ok())
                {
                    send_signal(child, signal);
                }
            }
            if !listening {
                send_signal(child, libc::SIGKILL);
                // Not polled again: a closed socket is always ready.
                let _ = waitpid(child, None);
                return Ok(());
            }
        }
    }
}

fn send_signal(child: Pid, signal: i32) {
    // SAFETY: our own child, not yet reaped, so its pid is not another's; a number that is no
    // signal is refused.
    unsafe { libc::kill(child.as_raw(), signal) };
}

/// In the child: everything up to exec.
fn become_command(
    request: &ExecRequest,
    command: &Command,
    identity: &Identity,
    stdio: &[OwnedFd; 3],
) -> Result<std::convert::Infallible, Refused> {
    let fail = |what: &'static str| move |e: nix::Error| failed(format!("{what}: {}", e.desc()));
    die_with_parent();
    nix::unistd::setsid().map_err(fail("setsid"))?;
    if let Terminal::Yes(_) = request.terminal {
        terminal::take(&stdio[0]).map_err(|e| failed(format!("take the terminal: {e}")))?;
    }
    // The socket on 0 is the parent's business.
    let [stdin, stdout, stderr] = stdio;
    terminal::become_stdio([stdin, stdout, stderr])
        .map_err(|e| failed(format!("standard descriptors: {e}")))?;
    close_on_exec_from(3);
    enter_dir(&request.cwd)?;
    set_limits(&request.ulimits)?;
    drop_bounding(&request.capabilities)?;
    own_stdio(identity);
    become_user(identity)?;
    drop_capabilities(&request.capabilities, identity)?;
    // With other credentials the kernel forgets it (prctl(2), PR_SET_PDEATHSIG).
    die_with_parent();
    if !request.privileged {
        nix::sys::prctl::set_no_new_privs().map_err(fail("no_new_privs"))?;
    }
    let file = command.find()?;
    command.run(&file)
}

/// Makes the working directory the current one; it must be one the container can name, so that no
/// descriptor of ours leads out (CVE-2024-21626).
fn enter_dir(cwd: &Path) -> Result<(), Refused> {
    let no = |why: &str| Refused {
        code: NOT_FOUND,
        reason: format!("working directory {cwd:?}: {why}"),
    };
    nix::unistd::chdir(cwd).map_err(|e| no(e.desc()))?;
    let real = nix::unistd::getcwd().map_err(|e| no(e.desc()))?;
    if real.is_absolute() { Ok(()) } else { Err(no("outside of the container")) }
}

fn wanted(kept: &BTreeSet<String>) -> caps::CapsHashSet {
    kept.iter().filter_map(|name| name.parse::<Capability>().ok()).collect()
}

fn drop_bounding(kept: &BTreeSet<String>) -> Result<(), Refused> {
    let oops = |e: caps::errors::CapsError| failed(format!("capabilities: {e}"));
    let wanted = wanted(kept);
    for capability in caps::read(None, CapSet::Bounding).map_err(oops)?.difference(&wanted) {
        caps::drop(None, CapSet::Bounding, *capability).map_err(oops)?;
    }
    Ok(())
}

/// Who is not root has lost all with his change of identity.
fn drop_capabilities(kept: &BTreeSet<String>, identity: &Identity) -> Result<(), Refused> {
    let oops = |e: caps::errors::CapsError| failed(format!("capabilities: {e}"));
    if identity.uid != 0 {
        return Ok(());
    }
    let wanted = wanted(kept);
    caps::clear(None, CapSet::Ambient).map_err(oops)?;
    caps::set(None, CapSet::Inheritable, &caps::CapsHashSet::new()).map_err(oops)?;
    caps::set(None, CapSet::Effective, &caps::CapsHashSet::new()).map_err(oops)?;
    caps::set(None, CapSet::Permitted, &wanted).map_err(oops)?;
    caps::set(None, CapSet::Effective, &wanted).map_err(oops)
}

fn close_on_exec_from(first: libc::c_uint) {
    // SAFETY: close_range takes plain values and with this flag closes nothing yet.
    unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
}

fn receive(socket: &OwnedFd, inbox: &mut Inbox) -> Result<(ExecRequest, Vec<OwnedFd>), Refused> {
    loop {
        let whole = inbox.take().map_err(|e| failed(format!("request: {e}")))?;
        if let Some((fields, fds)) = whole {
            let text = fields.get(1).map(Vec::as_slice).unwrap_or_default();
            let request =
                serde_json::from_slice(text).map_err(|e| failed(format!("request: {e}")))?;
            return Ok((request, fds));
        }
        let more = inbox.fill(socket.as_fd(), MsgFlags::empty());
        if !more.map_err(|e| failed(format!("request: {e}")))? {
            return Err(failed("the daemon is gone".into()));
        }
    }
}

fn say(socket: &OwnedFd, fields: &[&[u8]], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let fds: Vec<_> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    let frame = wire::frame(fields);
    // Answers are smaller than the socket's buffer, so they go whole.
    wire::send(socket.as_fd(), &frame, &fds, MsgFlags::empty()).map(drop)
}

fn failed(reason: String) -> Refused {
    Refused { code: EXIT_NOT_STARTED, reason }
}
