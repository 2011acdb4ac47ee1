//! Named points at which a test lets the process die, as a power cut would.
//!
//! In a debug build, [`failpoint!`](crate::failpoint) kills the process (SIGKILL, to itself) if the
//! environment variable `WEFT_FAILPOINT` holds its name, and appends the name to the file
//! `WEFT_FAILPOINT_LIST`, one line each, so that a test can learn all of them by one undisturbed
//! run. In a release build it is nothing.

/// Dies here if a test wants it; the name is unique, in dotted words from large to small.
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(debug_assertions)]
        $crate::failpoint::passed($name);
    };
}

/// The environment variable with the name of the point to die at.
pub const POINT: &str = "WEFT_FAILPOINT";
/// The environment variable with the file that takes the names of the points passed.
pub const LIST: &str = "WEFT_FAILPOINT_LIST";

/// What a point does; only [`failpoint!`](crate::failpoint) calls it.
#[cfg(debug_assertions)]
pub fn passed(name: &str) {
    if let Some(list) = std::env::var_os(LIST) {
        note(name, list.as_ref());
    }
    if std::env::var_os(POINT).is_some_and(|point| point == name) {
        // Nothing after this runs: a process cannot outlive its own SIGKILL.
        let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::SIGKILL);
        loop {
            std::thread::park();
        }
    }
}

/// One write for each name, so that several threads and processes may share the file.
#[cfg(debug_assertions)]
fn note(name: &str, list: &std::path::Path) {
    use std::io::Write;
    let file = std::fs::OpenOptions::new().append(true).create(true).open(list);
    // A list that cannot be written is short, which the test that reads it notices.
    let _ = file.and_then(|mut file| file.write_all(format!("{name}\n").as_bytes()));
}
