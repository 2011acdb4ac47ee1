//! Compiles the wire schema with a compiler written in Rust, so that no `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 3] = ["weft/v1/types.proto", "weft/v1/api.proto", "weft/v1/internal.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=weft");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // The reflection service hands this set to clients.
    fs::write(out.join("weft.v1.bin"), descriptors.encode_to_vec())?;
    // In order: a message that was read and is written again has the same bytes.
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
