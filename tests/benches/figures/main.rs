//! The figures that the project promises, each as a ratio to a peer or a limit that is measured in the
//! same run: `make bench`, or `cargo bench --profile dev -p weft-tests --bench figures -- NAME...` for some of them.
//! They are written to `docs/benchmarks.md`. `PEER=0` leaves Docker Swarm out.
//!
//! Needs root, `target/release/weft`, and what `deploy/bench.sh` installs.
#![forbid(unsafe_code)]

mod bridge;
mod byhand;
mod cluster;
mod connections;
mod create;
mod crowd;
mod encrypted;
mod engine;
mod figure;
mod flow;
mod image;
mod inside;
mod local;
mod memory;
mod names;
mod ours;
mod outage;
mod report;
mod run;
mod stats;
mod swarm;

use std::process::ExitCode;

/// Every figure by its name, in the order of the page.
const FIGURES: [(&str, fn(&figure::Bench)); 12] = [
    ("flow", flow::run),
    ("create", create::run),
    ("names", names::run),
    ("memory", memory::run),
    ("outage", outage::run),
    ("run", run::run),
    ("bridge", bridge::bridge),
    ("publish", bridge::publish),
    ("connections", connections::run),
    ("crowd", crowd::run),
    ("encrypted", encrypted::run),
    ("engine", engine::run),
];

fn main() -> ExitCode {
    // Cargo adds flags of its own.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let unknown = wanted.iter().find(|word| FIGURES.iter().all(|(name, _)| name != word));
    if let Some(unknown) = unknown {
        eprintln!("error: there is no figure {unknown}");
        return ExitCode::from(2);
    }
    let bench = figure::Bench::new();
    for (name, run) in FIGURES {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            eprintln!("measuring {name}");
            run(&bench);
        }
    }
    ExitCode::SUCCESS
}
