//! Engines in namespaces of their own, on one switch, with a container behind each.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod crowd;
mod flows;
mod hostile;
mod interop;
mod keys;
mod lab;
mod life;
mod marks;

/// The engine's process, which the other tests start.
#[test]
#[ignore = "it is no test: it runs until it is stopped"]
fn engine_process() {
    let Some(dir) = std::env::var_os(lab::RUN_DIR) else { return };
    // It must not outlive a test that is killed.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
    weft_wire::run(std::path::Path::new(&dir)).unwrap();
}
