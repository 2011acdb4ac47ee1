//! The containers' root directory: busybox and a link for each of its commands.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

const BUSYBOX: &str = "/bin/busybox";

/// Makes it below `dir`, once.
pub fn busybox(dir: &Path) -> PathBuf {
    let root = dir.join("rootfs");
    if root.exists() {
        return root;
    }
    let list = Command::new(BUSYBOX).arg("--list").output().expect("busybox-static is installed");
    for below in ["bin", "etc", "tmp", "proc", "sys", "dev", "root", "www"] {
        fs::create_dir_all(root.join(below)).expect("the lab's directory can be written");
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).expect("busybox can be copied");
    for name in String::from_utf8_lossy(&list.stdout).lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(name)).expect("a link to busybox");
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("writable");
    root
}
