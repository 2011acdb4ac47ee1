//! The containers' root directory: busybox with a link for each of its commands, and `peer` and
//! `canary`, the programs of `weft-lab-peer.rs` and `weft-lab-canary.rs`, with the libraries that they
//! are linked to.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use super::command::built;

const BUSYBOX: &str = "/bin/busybox";

/// Makes it below `dir`, once.
pub fn make(dir: &Path) -> PathBuf {
    let root = dir.join("rootfs");
    if root.exists() {
        return root;
    }
    for below in ["bin", "etc", "tmp", "proc", "sys", "dev", "root", "www"] {
        fs::create_dir_all(root.join(below)).expect("the lab's directory can be written");
    }
    copy(Path::new(BUSYBOX), &root.join("bin/busybox"));
    for name in said(BUSYBOX, "--list").lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(name)).expect("a link to busybox");
    }
    for name in ["peer", "canary"] {
        install(&built(&format!("weft-lab-{name}")), &root, name);
    }
    let file = |name: &str, text: &str| fs::write(root.join(name), text).expect("writable");
    file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    file("etc/nsswitch.conf", "hosts: files dns\n");
    root
}

/// A program and the shared libraries that it is linked to.
fn install(program: &Path, root: &Path, name: &str) {
    copy(program, &root.join("bin").join(name));
    let libraries = said("ldd", &program.display().to_string());
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a library lies in a directory")).expect("writable");
        copy(Path::new(library), &to);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}

fn said(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
