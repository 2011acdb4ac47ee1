//! The fuzzer: libFuzzer around one of the targets, which `FUZZ_TARGET` names. `deploy/fuzz.sh` builds and
//! runs it.
#![no_main]

mod memory;
mod seeds;
mod targets;

use std::{env, process::exit, sync::OnceLock};

use targets::Target;

/// Which target, and where the seeds are to be written instead.
const TARGET: &str = "FUZZ_TARGET";
const SEEDS: &str = "FUZZ_SEEDS";

static CHOSEN: OnceLock<Target> = OnceLock::new();

fn choose() {
    if let Some(directory) = env::var_os(SEEDS) {
        seeds::write(directory.as_ref()).expect("seeds can be written");
        exit(0);
    }
    let name = env::var(TARGET).unwrap_or_default();
    let Some(target) = targets::find(&name) else {
        let known: Vec<_> = targets::ALL.iter().map(|(name, _)| *name).collect();
        eprintln!("error: {TARGET}={name}: there are {}", known.join(", "));
        exit(2);
    };
    // It is set once, before the first input.
    let _ = CHOSEN.set(target);
}

libfuzzer_sys::fuzz_target!(
    init: choose(),
    |input: &[u8]| {
        let Some(target) = CHOSEN.get() else { return };
        memory::bounded(input.len(), || target(input));
    }
);
