//! The root file system: an overlay of the image's directory and the container's own layer, mounted
//! in the helper's private mount namespace, so that it goes with the container and nothing is left
//! on the host.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statfs::FsType;
use serde::{Deserialize, Serialize};

use super::Error;
use super::layout::Layout;

/// Where we mount, by path inside of the image: made as plain directories in the container's own
/// layer, so that whatever an image has in their place (a symlink, a FIFO) is covered and never
/// followed.
const DIRS: [&str; 4] = ["etc", "proc", "sys", "dev"];
/// The file system an upper layer cannot lie on.
const OVERLAY: FsType = FsType(libc::OVERLAYFS_SUPER_MAGIC);
/// How much a container may write to a layer in memory; it also counts for its memory limit.
const MEMORY_LAYER: &str = "size=512m";
const FILES: [&str; 3] = ["etc/resolv.conf", "etc/hosts", "etc/hostname"];

/// The image's directory, resolved, once it is known to be one and not ours.
///
/// # Errors
/// `Rootfs` if it cannot be reached, `RootfsNotDirectory`, `RootfsIsOurs`.
pub(crate) fn image_dir(dir: &Path, own: &[PathBuf]) -> Result<PathBuf, Error> {
    let failed = |source| Error::Rootfs { dir: dir.to_owned(), source };
    let real = fs::canonicalize(dir).map_err(failed)?;
    if !fs::metadata(&real).map_err(failed)?.is_dir() {
        return Err(Error::RootfsNotDirectory { dir: dir.to_owned() });
    }
    match own.iter().find(|own| real.starts_with(own)) {
        Some(own) => Err(Error::RootfsIsOurs { dir: dir.to_owned(), own: own.clone() }),
        None => Ok(real),
    }
}

/// Our own directories as the container would see them.
pub(crate) fn hidden(image: &Path, own: &[PathBuf]) -> Vec<PathBuf> {
    own.iter().filter_map(|own| Some(Path::new("/").join(own.strip_prefix(image).ok()?))).collect()
}

/// Where what the container writes goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Layer {
    Disk,
    /// An overlay cannot be the upper part of another one, so a daemon that itself runs on an
    /// overlay without a volume keeps layers in memory; they end with the container's run.
    Memory,
}

impl Layer {
    /// The one that the state directory's file system allows.
    pub(crate) fn on(state: &Path) -> Result<Self, Error> {
        let failed = |errno: nix::Error| Error::io("cannot look at", state)(errno.into());
        let kind = nix::sys::statfs::statfs(state).map_err(failed)?.filesystem_type();
        Ok(if kind == OVERLAY { Self::Memory } else { Self::Disk })
    }

    fn base(self, layout: &Layout) -> PathBuf {
        match self {
            Self::Disk => layout.state.clone(),
            Self::Memory => layout.memory(),
        }
    }

    fn upper(self, layout: &Layout) -> PathBuf {
        self.base(layout).join("upper")
    }

    fn work(self, layout: &Layout) -> PathBuf {
        self.base(layout).join("work")
    }

    /// What the daemon makes once for all runs: the layer, if it stays.
    pub(crate) fn make_lasting(self, layout: &Layout) -> Result<(), Error> {
        match self {
            Self::Disk => self.fill(layout),
            Self::Memory => Ok(()),
        }
    }

    /// What the daemon makes for each run: the place for a layer that the helper makes.
    pub(crate) fn make_passing(self, layout: &Layout) -> Result<(), Error> {
        match self {
            Self::Disk => Ok(()),
            Self::Memory => {
                let dir = layout.memory();
                fs::create_dir(&dir).map_err(Error::io("cannot make directory", dir))
            }
        }
    }

    /// What the helper makes, in its own mount namespace.
    fn mount(self, layout: &Layout) -> Result<(), Error> {
        match self {
            Self::Disk => Ok(()),
            Self::Memory => {
                let (dir, size) = (layout.memory(), Some(MEMORY_LAYER));
                mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::MS_NODEV, size)
                    .map_err(|errno| Error::io("cannot mount a layer at", dir)(errno.into()))?;
                self.fill(layout)
            }
        }
    }

    /// An empty layer but for the covers of `DIRS` and `FILES`.
    fn fill(self, layout: &Layout) -> Result<(), Error> {
        let upper = self.upper(layout);
        let dir = |path: PathBuf, mode| {
            let made = DirBuilder::new().mode(mode).create(&path);
            made.map_err(Error::io("cannot make directory", path))
        };
        dir(upper.clone(), 0o755)?;
        dir(self.work(layout), 0o700)?;
        for name in DIRS {
            dir(upper.join(name), 0o755)?;
        }
        for name in FILES {
            let path = upper.join(name);
            let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path);
            made.map_err(Error::io("cannot make file", path))?;
        }
        Ok(())
    }
}

/// Mounts the overlay at `layout.root()`; the calling process must be in a mount namespace of its
/// own. Layers are named by descriptor: no character of a path needs quoting, and the container
/// does not see the host's paths.
pub(crate) fn mount_overlay(
    image: &Path,
    layer: Layer,
    layout: &Layout,
    flags: MsFlags,
) -> Result<(), Error> {
    layer.mount(layout)?;
    let upper = layer.upper(layout);
    copy_root_mode(image, &upper)?;
    let open = |path: &Path| -> Result<OwnedFd, Error> {
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
        Ok(file.map_err(Error::io("cannot open layer", path))?.into())
    };
    let (lower, upper, work) = (open(image)?, open(&upper)?, open(&layer.work(layout))?);
    let options = format!(
        "lowerdir=/proc/self/fd/{},upperdir=/proc/self/fd/{},workdir=/proc/self/fd/{}",
        lower.as_raw_fd(),
        upper.as_raw_fd(),
        work.as_raw_fd()
    );
    let root = layout.root();
    mount(Some("overlay"), &root, Some("overlay"), flags, Some(options.as_str())).map_err(|errno| {
        Error::Io { what: "cannot mount the overlay at", path: root, source: errno.into() }
    })
}

/// The layer's root hides the image's, so it must look like it.
fn copy_root_mode(image: &Path, upper: &Path) -> Result<(), Error> {
    let mode =
        fs::metadata(image).map_err(Error::io("cannot look at", image))?.permissions().mode();
    fs::set_permissions(upper, fs::Permissions::from_mode(mode & 0o7777))
        .map_err(Error::io("cannot set the mode of", upper))
}

/// Makes `path` in the mounted root, as Docker does for a working directory, without ever leaving
/// it.
pub(crate) fn make_dirs_inside(root: &Path, path: &Path) -> Result<(), Error> {
    let failed = |source: io::Error| Error::Io {
        what: "cannot make working directory",
        path: path.into(),
        source,
    };
    let mut at: OwnedFd = fs::File::open(root).map_err(failed)?.into();
    let root = at.try_clone().map_err(failed)?;
    let mut walked = PathBuf::new();
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        walked.push(name);
        at = match enter(&root, &walked) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_in(&at, name).map_err(failed)?;
                enter(&root, &walked).map_err(failed)?
            }
            other => other.map_err(failed)?,
        };
    }
    Ok(())
}

fn make_in(at: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match mkdirat(at, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a directory below `root` as a process inside of it would.
fn enter(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(root, path, how)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_directories_are_hidden_and_refused() {
        let own = [PathBuf::from("/var/lib/weft"), PathBuf::from("/run/weft")];
        assert_eq!(hidden(Path::new("/"), &own), own);
        assert_eq!(hidden(Path::new("/var"), &own), [PathBuf::from("/lib/weft")]);
        assert!(hidden(Path::new("/srv"), &own).is_empty());
        let here = tempfile::tempdir().expect("tempdir");
        let real = fs::canonicalize(here.path()).expect("real");
        let inside = real.join("x");
        fs::create_dir(&inside).expect("mkdir");
        assert!(matches!(
            image_dir(&inside, std::slice::from_ref(&real)),
            Err(Error::RootfsIsOurs { .. })
        ));
        assert!(matches!(image_dir(&inside.join("y"), &[]), Err(Error::Rootfs { .. })));
        fs::write(inside.join("f"), "").expect("write");
        assert!(matches!(image_dir(&inside.join("f"), &[]), Err(Error::RootfsNotDirectory { .. })));
    }

    #[test]
    fn directories_are_made_inside_whatever_the_links_say() {
        let outer = tempfile::tempdir().expect("tempdir");
        let root = outer.path().join("root");
        fs::create_dir(&root).expect("mkdir");
        std::os::unix::fs::symlink("../../../..", root.join("up")).expect("symlink");
        std::os::unix::fs::symlink("/abs", root.join("away")).expect("symlink");
        make_dirs_inside(&root, Path::new("/up/made/deep")).expect("made");
        assert!(root.join("made/deep").is_dir());
        assert!(
            make_dirs_inside(&root, Path::new("/away/x")).is_err(),
            "a dangling link is not followed"
        );
        assert!(!Path::new("/abs").exists());
        make_dirs_inside(&root, Path::new("/")).expect("the root is there");
    }
}
