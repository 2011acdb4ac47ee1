//! Builds `weft-shim` as a small static program and leaves it where `container/shim.rs` embeds it.
//!
//! The nested cargo has a target directory of its own: the outer one holds the lock of the shared
//! directory while it waits for us.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Static, and at a fixed address: no relocations, so fewer pages that every shim must write for
/// itself.
const FLAGS: [&str; 4] = ["-C", "target-feature=+crt-static", "-C", "relocation-model=static"];

fn main() -> ExitCode {
    for watched in ["build.rs", "shim/src", "shim/Cargo.toml", "../Cargo.toml"] {
        println!("cargo::rerun-if-changed={watched}");
    }
    match build() {
        Ok(shim) => {
            println!("cargo::rustc-env=WEFT_SHIM={}", shim.display());
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("weft-shim could not be built: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<PathBuf, String> {
    let var = |name: &str| std::env::var(name).map_err(|e| format!("{name}: {e}"));
    let (cargo, target) = (var("CARGO")?, var("TARGET")?);
    let out = PathBuf::from(var("OUT_DIR")?);
    let manifest = Path::new(&var("CARGO_MANIFEST_DIR")?).join("shim/Cargo.toml");
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--profile", "shim", "--target", &target, "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(out.join("shim"))
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"))
        // Wrappers such as clippy's are for the outer build; a build with them would not be the
        // shim.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .status()
        .map_err(|e| format!("run cargo: {e}"))?;
    if !status.success() {
        return Err(format!("cargo ended with {status}"));
    }
    Ok(out.join("shim").join(target).join("shim").join("weft-shim"))
}
