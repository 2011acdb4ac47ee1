//! The short-lived, single-threaded process that does what must not be done in a process with
//! threads: the `weft` binary run as `__container-create` (by the shim) or `__container-exec` (by
//! the daemon).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::ExitCode;

mod create;
mod exec;
mod process;
mod terminal;
mod user;

/// First argument of a helper that makes a container.
pub const CREATE: &str = "__container-create";
/// First argument of a helper that runs a command in one.
pub const EXEC: &str = "__container-exec";

/// Runs a helper. `args` begins with `CREATE` or `EXEC`: what follows the name of the binary. To be
/// called first thing in `main`, before any thread is started.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let verb = args.next().map(|v| v.into_vec()).unwrap_or_default();
    match verb.as_slice() {
        verb if verb == CREATE.as_bytes() => {
            let (Some(run), Some(state)) = (args.next(), args.next()) else {
                return ExitCode::FAILURE;
            };
            create::main(PathBuf::from(run), PathBuf::from(state))
        }
        verb if verb == EXEC.as_bytes() => exec::main(),
        _ => ExitCode::FAILURE,
    }
}
