//! The host's device files, for a privileged container.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde_json::{Value, json};

const DEV: &str = "/dev";
/// Below `/dev`, what every container has of its own.
const OWN: [&str; 5] = ["console", "fd", "mqueue", "pts", "shm"];

/// One entry of the bundle for each. What cannot be read is left out, as what comes and goes is.
pub(super) fn all() -> Vec<Value> {
    let mut found = Vec::new();
    walk(Path::new(DEV), &mut found);
    found
}

fn walk(dir: &Path, found: &mut Vec<Value>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, Ok(meta)) = (entry.path(), fs::symlink_metadata(entry.path())) else { continue };
        if OWN.iter().any(|own| path == Path::new(DEV).join(own)) {
            continue;
        }
        let kind = meta.file_type();
        if kind.is_dir() {
            walk(&path, found);
        } else if kind.is_char_device() || kind.is_block_device() {
            found.push(json!({
                "path": path,
                "type": if kind.is_block_device() { "b" } else { "c" },
                "major": nix::sys::stat::major(meta.rdev()),
                "minor": nix::sys::stat::minor(meta.rdev()),
                "fileMode": meta.mode() & 0o7777,
                "uid": meta.uid(),
                "gid": meta.gid(),
            }));
        }
    }
}
