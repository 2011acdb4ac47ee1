//! `weft-shim`: the small process that owns one container, so that the container, its network
//! namespace, its DNS sockets and its exit code outlive the daemon. It is single-threaded: one poll
//! loop, no allocation that grows with the container's life.
//!
//! Usage (only the daemon calls it): `weft-shim ID RUN-DIR STATE-DIR own|host|PATH|hold:PATH`. With
//! `hold:` it owns no container, only the DNS sockets in somebody else's namespace. It forks,
//! reports `ok PID` or `error TEXT` on stdout once its socket is bound, and goes on in the
//! background in its own session. Under the name `weft-init` it is something else (`init.rs`). What it says on the socket is in `serve.rs`, what it keeps in
//! `STATE-DIR/status` in `status.rs`, and the format of `STATE-DIR/log` in `log.rs`.

mod attach;
mod child;
mod epoll;
mod init;
mod log;
mod net;
mod pipe;
mod proxy;
mod reactor;
mod serve;
mod status;
mod sys;
mod tcp;
mod udp;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

/// What the daemon asked for on the command line.
pub struct Args {
    pub id: String,
    pub run_dir: PathBuf,
    pub state_dir: PathBuf,
    pub net: String,
}

fn main() -> ExitCode {
    if std::env::args_os().next().is_some_and(|name| name == init::NAME) {
        return init::main(std::env::args_os().skip(1));
    }
    let mut words = std::env::args().skip(1);
    let (Some(id), Some(run), Some(state), Some(net)) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        eprintln!("usage: weft-shim ID RUN-DIR STATE-DIR own|host|PATH|hold:PATH");
        return ExitCode::from(2);
    };
    let args = Args { id, run_dir: run.into(), state_dir: state.into(), net };
    match detach() {
        Ok(Side::Parent(report)) => relay(report),
        Ok(Side::Shim(report)) => match reactor::Shim::new(&args) {
            Ok(shim) => {
                let said = writeln!(std::fs::File::from(report), "ok {}", std::process::id());
                if said.is_err() || sys::quiet_stdio().is_err() {
                    return ExitCode::FAILURE;
                }
                shim.run()
            }
            Err(error) => {
                let _ = writeln!(std::fs::File::from(report), "error {error}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            println!("error {error}");
            ExitCode::FAILURE
        }
    }
}

enum Side {
    Parent(OwnedFd),
    Shim(OwnedFd),
}

/// Leaves the daemon: nothing inherited but stdio, an own session, and a parent that is not the
/// daemon, so that nobody there must reap us.
fn detach() -> Result<Side, String> {
    sys::close_from(3);
    let (read, write) = sys::pipe().map_err(|e| format!("pipe: {e}"))?;
    // SAFETY: this process has one thread, so the child may go on as if nothing had happened.
    match unsafe { libc::fork() } {
        -1 => Err(format!("fork: {}", std::io::Error::last_os_error())),
        0 => {
            drop(read);
            sys::become_owner().map_err(|e| format!("detach: {e}"))?;
            Ok(Side::Shim(write))
        }
        _ => {
            drop(write);
            Ok(Side::Parent(read))
        }
    }
}

/// Hands the shim's one-line report to the daemon; an empty one means it died before it could
/// speak.
fn relay(report: OwnedFd) -> ExitCode {
    let mut text = String::new();
    let read = std::fs::File::from(report).read_to_string(&mut text);
    if read.is_err() || text.is_empty() {
        text = "error the shim died while starting\n".into();
    }
    print!("{text}");
    if text.starts_with("ok ") { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
