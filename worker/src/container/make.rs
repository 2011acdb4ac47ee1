//! Making and unmaking what a container has on the disk and in the kernel, beside its shim.
//! Everything here blocks for some milliseconds and runs off the async threads.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cgroup::{self, Own};
use super::kept::Kept;
use super::layout::{Layout, containers};
use super::rootfs::Layer;
use super::status::Told;
use super::{
    BindMount, ContainerConfig, ContainerId, Error, Image, MissingSource, capabilities, rootfs,
    spec,
};

/// A state directory on its way out: no container's id begins so.
const REMOVING: &str = ".removing-";

/// Prepares the two directories and the cgroups, up to where the shim is started. The config is on
/// the disk before anything that must be undone by what it says.
pub(super) fn prepare(
    config: &ContainerConfig,
    layout: &Layout,
    own: &Own,
    ours: &[PathBuf],
) -> Result<Kept, Error> {
    let Image::Rootfs(dir) = &config.image;
    let image = rootfs::image_dir(dir, ours)?;
    capabilities::of(config, capabilities::DeviceGuard::Cgroup)?;
    bind_sources(config)?;
    crate::failpoint!("container.create.checked");
    new_dir(&layout.state).map_err(|error| taken(error, &config.id, &layout.state))?;
    crate::failpoint!("container.create.directory");
    let layer = Layer::on(&layout.state)?;
    let applied = cgroup::Applied { dirs: own.planned(&config.id), ..cgroup::Applied::default() };
    let mut kept = Kept { config: config.clone(), applied, image, layer };
    kept.save(layout)?;
    crate::failpoint!("container.create.config");
    write_etc(config, layout)?;
    crate::failpoint!("container.create.etc");
    layer.make_lasting(layout)?;
    crate::failpoint!("container.create.layer");
    place(&mut kept, layout, own, ours)?;
    Ok(kept)
}

/// Prepares a container that has ended for another run: everything anew but the state directory
/// with its layer, its files in /etc and its log.
pub(super) fn renew(
    id: &ContainerId,
    layout: &Layout,
    own: &Own,
    ours: &[PathBuf],
) -> Result<Kept, Error> {
    let mut kept = Kept::load(layout)?.ok_or_else(|| Error::NotFound { id: id.clone() })?;
    let Image::Rootfs(dir) = &kept.config.image;
    kept.image = rootfs::image_dir(dir, ours)?;
    bind_sources(&kept.config)?;
    kill_leftovers(layout)?;
    crate::failpoint!("container.renew.killed");
    cgroup::remove(&kept.applied.dirs)?;
    crate::failpoint!("container.renew.cgroups");
    remove_tree(&layout.run)?;
    crate::failpoint!("container.renew.run");
    kept.applied = cgroup::Applied { dirs: own.planned(id), ..cgroup::Applied::default() };
    kept.save(layout)?;
    place(&mut kept, layout, own, ours)?;
    Ok(kept)
}

/// The run directory and the cgroups, which are written down before.
fn place(kept: &mut Kept, layout: &Layout, own: &Own, ours: &[PathBuf]) -> Result<(), Error> {
    let id = &kept.config.id;
    new_dir(&layout.run).map_err(|error| taken(error, id, &layout.run))?;
    for dir in [layout.bundle(), layout.library(), layout.root()] {
        new_dir(&dir).map_err(Error::io("cannot make directory", dir))?;
    }
    kept.layer.make_passing(layout)?;
    crate::failpoint!("container.place.directories");
    let devices =
        if kept.config.privileged { cgroup::Devices::All } else { cgroup::Devices::Guarded };
    kept.applied = own.create(id, &kept.config.limits, devices);
    crate::failpoint!("container.place.cgroups");
    if kept.layer == Layer::Memory {
        let what = "writable layer on the disk not in force: the state directory is on an overlay";
        kept.applied.missing.push(what.to_owned());
    }
    kept.save(layout)?;
    crate::failpoint!("container.place.applied");
    for controller in kept.applied.v1.keys() {
        let dir = layout.cgroup(controller.name());
        fs::create_dir_all(&dir).map_err(Error::io("cannot make directory", dir))?;
    }
    write_bundle(kept, layout, ours)
}

/// Sees to it that there is something to mount.
fn bind_sources(config: &ContainerConfig) -> Result<(), Error> {
    for BindMount { source, missing, .. } in &config.mounts {
        match (fs::metadata(source), missing) {
            (Err(error), MissingSource::MakeDirectory)
                if error.kind() == io::ErrorKind::NotFound =>
            {
                fs::create_dir_all(source).map_err(Error::io("cannot make directory", source))?;
            }
            (Err(error), MissingSource::Refuse) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::BindSourceMissing { path: source.clone() });
            }
            (Err(error), _) => return Err(Error::io("cannot look at", source)(error)),
            (Ok(_), _) => {}
        }
    }
    Ok(())
}

fn write_etc(config: &ContainerConfig, layout: &Layout) -> Result<(), Error> {
    let dir = layout.state.join("etc");
    new_dir(&dir).map_err(Error::io("cannot make directory", dir))?;
    let hostname = format!("{}\n", config.effective_hostname());
    let files =
        [("resolv.conf", &config.resolv_conf), ("hosts", &config.hosts), ("hostname", &hostname)];
    for (file, text) in files {
        let path = layout.etc(file);
        fs::write(&path, text).map_err(Error::io("cannot write", &path))?;
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(&path, readable).map_err(Error::io("cannot set the mode of", path))?;
    }
    Ok(())
}

fn write_bundle(kept: &Kept, layout: &Layout, ours: &[PathBuf]) -> Result<(), Error> {
    let hidden = rootfs::hidden(&kept.image, ours);
    let spec = spec::spec(&kept.config, layout, &kept.applied, &hidden)?;
    let path = layout.bundle().join("config.json");
    fs::write(&path, spec.to_string()).map_err(Error::io("cannot write", path))
}

fn new_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn taken(error: io::Error, id: &ContainerId, path: &Path) -> Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { id: id.clone() },
        _ => Error::io("cannot make directory", path)(error),
    }
}

/// Ids with a directory of either kind; what a crash has left on its way out is removed.
pub(super) fn ids(run_root: &Path, state_root: &Path) -> Result<Vec<ContainerId>, Error> {
    let mut ids = std::collections::BTreeSet::new();
    for dir in [containers(run_root), containers(state_root)] {
        for entry in fs::read_dir(&dir).map_err(Error::io("cannot list", &dir))? {
            let entry = entry.map_err(Error::io("cannot list", &dir))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(REMOVING) {
                remove_tree(&entry.path())?;
            } else if let Ok(id) = ContainerId::new(name) {
                ids.insert(id);
            }
        }
    }
    Ok(ids.into_iter().collect())
}

/// The status the shim has left on the disk.
pub(super) fn last_told(layout: &Layout) -> Option<Told> {
    Told::parse(&fs::read_to_string(layout.status()).ok()?)
}

/// Kills what a shim that is gone has left running: the first process, if it is still the one that
/// was written down, and whatever is in the container's cgroups.
pub(super) fn kill_leftovers(layout: &Layout) -> Result<(), Error> {
    if let Some(told) = last_told(layout) {
        for (pid, start) in [(told.status.shim_pid, told.shim_start), (told.pid, told.pid_start)] {
            if pid > 0 && told.boot == boot_id() && start != 0 && start_ticks(pid) == Some(start) {
                // One that ends meanwhile is what we want.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
    match Kept::load(layout)? {
        Some(kept) => cgroup::kill(&kept.applied.dirs),
        None => Ok(()),
    }
}

/// Removes cgroups and directories, the config last, in one step.
pub(super) fn clean(layout: &Layout) -> Result<(), Error> {
    kill_leftovers(layout)?;
    crate::failpoint!("container.remove.killed");
    if let Some(kept) = Kept::load(layout)? {
        cgroup::remove(&kept.applied.dirs)?;
    }
    crate::failpoint!("container.remove.cgroups");
    remove_tree(&layout.run)?;
    crate::failpoint!("container.remove.run");
    let Some(name) = layout.state.file_name() else { return Ok(()) };
    let going = layout.state.with_file_name(format!("{REMOVING}{}", name.to_string_lossy()));
    remove_tree(&going)?;
    match fs::rename(&layout.state, &going) {
        Ok(()) => {
            crate::failpoint!("container.remove.renamed");
            remove_tree(&going)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("cannot remove", &layout.state)(error)),
    }
}

/// Attempts at a tree that somebody still writes to, such as a shim that is just starting.
const REMOVE_ATTEMPTS: usize = 5;

fn remove_tree(path: &Path) -> Result<(), Error> {
    let mut last = Ok(());
    for _ in 0..REMOVE_ATTEMPTS {
        match fs::remove_dir_all(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => last = Err(Error::io("cannot remove", path)(error)),
        }
    }
    last
}

fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// proc_pid_stat(5), field 22, which with the pid names a process for good.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
