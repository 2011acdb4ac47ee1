//! Opening the helper's program.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;

use super::Error;

/// Opens a program to be run in containers, through a read-only mount that nobody else has: a
/// process in a container can name what it runs as /proc/self/exe, and must not be able to write to
/// it (CVE-2019-5736).
pub(super) fn open_program(path: &Path) -> Result<OwnedFd, Error> {
    let failed = |source| Error::Io { what: "cannot open the helper", path: path.into(), source };
    match read_only_mount(path) {
        Ok(fd) => Ok(fd),
        // Not possible for a program that is deleted, or whose mount is not in our namespace.
        Err(_) => Ok(std::fs::File::open(path).map_err(failed)?.into()),
    }
}

fn read_only_mount(path: &Path) -> io::Result<OwnedFd> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    let flags = libc::OPEN_TREE_CLONE as libc::c_uint | libc::OPEN_TREE_CLOEXEC as libc::c_uint;
    let set = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is NUL-terminated, the attributes have the size given, both outlive the
    // calls, and a result of open_tree that is no error is a fresh descriptor.
    unsafe {
        let fd = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags);
        let fd = OwnedFd::from_raw_fd(Errno::result(fd)? as i32);
        let size = std::mem::size_of::<libc::mount_attr>();
        let done = libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &set,
            size,
        );
        Errno::result(done)?;
        Ok(fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_can_name_of_its_program_takes_no_writes() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("program");
        std::fs::write(&path, "text").expect("write");
        let program = open_program(&path).expect("open");
        let name = format!("/proc/self/fd/{}", program.as_raw_fd());
        assert_eq!(std::fs::read_to_string(&name).expect("read"), "text");
        let refused = std::fs::OpenOptions::new().write(true).open(&name).expect_err("no writes");
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS), "{refused}");
        std::fs::write(&path, "new").expect("the file itself is not read-only");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = open_program(Path::new("/nowhere/weft")).expect_err("missing");
        assert!(error.to_string().contains("/nowhere/weft"), "{error}");
    }
}
