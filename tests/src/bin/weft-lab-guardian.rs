//! Ends the lab of a test when its input ends: `weft-lab-guardian DIR CGROUP...`.
#![forbid(unsafe_code)]

use std::{io::Read as _, path::PathBuf};

use weft_tests::{Cgroups, teardown};

fn main() {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let Some(dir) = args.next() else {
        eprintln!("usage: weft-lab-guardian DIR CGROUP...");
        std::process::exit(2);
    };
    let cgroups = Cgroups::found(args.collect());
    // However it ends, the test is over.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    for left in teardown::end(&dir, &cgroups) {
        println!("{left}");
    }
}
