//! The binary `weft`: internal helpers first, because they must run before any runtime or thread
//! exists; everything else is the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    weft::main(std::env::args_os().collect())
}
