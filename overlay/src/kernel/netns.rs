//! Network namespaces: opened, checked, entered and left.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::{KernelError, sys};
use crate::dataplane::NetnsRef;

/// Makes a network namespace with nothing in it, and holds it by a bind mount at `path`, so that it outlives
/// this process.
pub(crate) fn make(path: &Path) -> Result<(), KernelError> {
    let file = path.display().to_string();
    let (at, what) = (path.to_owned(), file.clone());
    let held = move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let own = Path::new("/proc/thread-self/ns/net");
        mount(Some(own), &at, None::<&Path>, MsFlags::MS_BIND, None::<&Path>)
    };
    File::create(path).map_err(|error| KernelError::io(&what, &error))?;
    let thread = std::thread::Builder::new().name("weft-netns".to_owned()).spawn(held);
    let thread = thread.map_err(|error| KernelError::io("thread", &error))?;
    let panicked = |_| KernelError::errno(&what, libc::EIO);
    let result = thread.join().map_err(panicked)?;
    result.map_err(|errno| KernelError::errno(file, errno as i32))
}

/// Lets go of a namespace that [`make`] has made.
pub(crate) fn let_go(path: &Path) -> Result<(), KernelError> {
    let what = || path.display().to_string();
    match umount2(path, MntFlags::MNT_DETACH) {
        // Nothing was mounted.
        Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
        Err(errno) => return Err(KernelError::errno(what(), errno as i32)),
    }
    std::fs::remove_file(path).map_err(|error| KernelError::io(what(), &error))
}

/// An open network namespace. As long as it is open, the kernel keeps the namespace.
#[derive(Debug)]
pub(crate) struct Netns {
    file: File,
    inode: u64,
}

impl Netns {
    /// The calling thread's own.
    pub(crate) fn current() -> Result<Self, KernelError> {
        Self::open_path("/proc/thread-self/ns/net")
    }

    /// Opens a sandbox's namespace and checks that it is one, and not `host`.
    pub(crate) fn open(reference: &NetnsRef, host: &Netns) -> Result<Self, KernelError> {
        let path = reference.0.display().to_string();
        let netns = Self::open_path(&path)?;
        if netns.inode == host.inode {
            return Err(KernelError::NotASandbox { path, what: "the host's own namespace" });
        }
        Ok(netns)
    }

    /// The namespace that [`make`] has put there, if there is one.
    pub(crate) fn made(path: &Path) -> Option<Self> {
        // A file without a mount is what is left of one that was being made, or of an earlier boot.
        Self::open_path(&path.display().to_string()).ok()
    }

    /// Whether both are the same namespace.
    pub(crate) fn is(&self, other: &Netns) -> bool {
        self.inode == other.inode
    }

    fn open_path(path: &str) -> Result<Self, KernelError> {
        let fail = |error: std::io::Error| KernelError::io(path, &error);
        let file = File::open(path).map_err(fail)?;
        match sys::namespace_kind(file.as_fd()) {
            Ok(libc::CLONE_NEWNET) => {}
            Ok(_) => {
                return Err(KernelError::NotASandbox {
                    path: path.to_owned(),
                    what: "a namespace of another kind",
                });
            }
            Err(_) => {
                return Err(KernelError::NotASandbox {
                    path: path.to_owned(),
                    what: "not a namespace",
                });
            }
        }
        let inode = file.metadata().map_err(fail)?.ino();
        Ok(Self { file, inode })
    }

    /// The descriptor, for netlink attributes that name a namespace.
    pub(crate) fn fd(&self) -> u32 {
        use std::os::fd::AsRawFd;
        self.file.as_raw_fd().cast_unsigned()
    }

    /// Runs `work` with the calling thread inside this namespace, and brings the thread back to `home`.
    /// Only for threads of our own: whatever else ran on the thread would find itself elsewhere.
    pub(crate) fn enter<T>(
        &self,
        home: &Netns,
        work: impl FnOnce() -> T,
    ) -> Result<T, KernelError> {
        let go = |netns: &Netns| {
            setns(&netns.file, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| KernelError::errno("setns", errno as i32))
        };
        go(self)?;
        let result = work();
        // Entering a namespace one already was in, with its file open, fails only if the capability was
        // dropped between the two calls. Going on in a stranger's namespace would be worse than stopping.
        assert!(go(home).is_ok(), "cannot return to the host's network namespace");
        Ok(result)
    }
}
