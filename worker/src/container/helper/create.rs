//! `__container-create RUN-DIR STATE-DIR`: makes one container and leaves its first process waiting
//! for the shim.
//!
//! Descriptor 3 is the report to the shim (its `child.rs` says what may be on it). The runtime
//! library does the namespaces, mounts, pivot and capabilities; cgroups, overlay, system call
//! filter and exec are ours.

use std::fs::File;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::MsgFlags;

use super::process::{Calls, Command, NOT_EXECUTABLE, Refused, die_with_parent};
use super::terminal;
use super::user::own_stdio;
use crate::container::chain;
use crate::container::config::merged_env;
use crate::container::kept::Kept;
use crate::container::layout::Layout;
use crate::container::user::{self, Identity};
use crate::container::{
    ContainerConfig, EXIT_NOT_STARTED, Error, capabilities, cgroup, rootfs, wire,
};

const REPORT_FD: i32 = 3;
/// The shim's own program.
const SHIM_FD: i32 = 5;

pub(super) fn main(run: PathBuf, state: PathBuf) -> ExitCode {
    match create(&Layout { run, state }) {
        Ok(pid) => {
            report(&format!("pid {pid}\n"));
            ExitCode::SUCCESS
        }
        Err(refused) => {
            report_error(&refused);
            ExitCode::FAILURE
        }
    }
}

fn create(layout: &Layout) -> Result<i32, Refused> {
    let Kept { config, applied, image, layer } =
        Kept::load(layout).map_err(refused)?.ok_or_else(|| Refused {
            code: EXIT_NOT_STARTED,
            reason: "the container's config is gone".into(),
        })?;
    cgroup::join(&applied.dirs).map_err(refused)?;
    private_mounts().map_err(refused)?;
    // `nodev`: device files in an image or made by a container are never opened.
    let flags = if config.privileged { MsFlags::empty() } else { MsFlags::MS_NODEV };
    rootfs::mount_overlay(&image, layer, layout, flags).map_err(refused)?;
    let identity = user::find_in(&layout.root(), &config.user)
        .map_err(|e| Refused { code: NOT_EXECUTABLE, reason: e.to_string() })?;
    own_stdio(&identity);
    write_identity(layout, &identity).map_err(refused)?;
    rootfs::make_dirs_inside(&layout.root(), &config.cwd).map_err(refused)?;
    set_network(&config).map_err(refused)?;
    gather_cgroups(layout, &applied).map_err(refused)?;
    hide_cgroups().map_err(refused)?;
    build(&config, layout, &applied, &identity)
}

/// Completes the bundle: only here the root file system is there to look the user up in.
fn write_identity(layout: &Layout, identity: &Identity) -> Result<(), Error> {
    let path = layout.bundle().join("config.json");
    let text = std::fs::read(&path).map_err(Error::io("cannot read", &path))?;
    let mut bundle: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|error| Error::io("cannot read", &path)(error.into()))?;
    bundle["process"]["user"] = serde_json::json!({
        "uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups,
    });
    std::fs::write(&path, bundle.to_string()).map_err(Error::io("cannot write", path))
}

/// A mount namespace from which nothing gets back to the host.
fn private_mounts() -> Result<(), Error> {
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|e| Error::Os { what: "unshare", source: e.into() })?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .map_err(|e| Error::Os { what: "make mounts private", source: e.into() })
}

/// The kernel settings of the network namespace, which is already the container's.
fn set_network(config: &ContainerConfig) -> Result<(), Error> {
    for (name, value) in config.sysctls.iter().filter(|(name, _)| name.starts_with("net.")) {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        std::fs::write(&path, value).map_err(Error::io("cannot set", path))?;
    }
    Ok(())
}

/// Puts the container's groups of version 1 where the bundle mounts them from.
fn gather_cgroups(layout: &Layout, applied: &cgroup::Applied) -> Result<(), Error> {
    for (controller, dir) in &applied.v1 {
        let at = layout.cgroup(controller.name());
        mount(Some(dir), &at, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(|e| {
            Error::Io { what: "cannot show cgroup", path: dir.into(), source: e.into() }
        })?;
    }
    Ok(())
}

/// Takes the cgroup file systems out of the library's sight: it would move us to a group of its own
/// choice, on every hierarchy, and fail where one is not as it expects. An empty tmpfs reads to it
/// as a machine without controllers.
fn hide_cgroups() -> Result<(), Error> {
    const CGROUPS: &str = "/sys/fs/cgroup";
    if !Path::new(CGROUPS).is_dir() {
        return Ok(());
    }
    // Nothing mounted there is as good.
    let _ = umount2(CGROUPS, MntFlags::MNT_DETACH);
    mount(Some("tmpfs"), CGROUPS, Some("tmpfs"), MsFlags::MS_RDONLY, None::<&str>)
        .map_err(|e| Error::Io { what: "cannot cover", path: CGROUPS.into(), source: e.into() })
}

fn build(
    config: &ContainerConfig,
    layout: &Layout,
    applied: &cgroup::Applied,
    identity: &Identity,
) -> Result<i32, Refused> {
    let set = capabilities::of(config, applied.guard()).map_err(refused)?;
    let mut env = config.effective_env();
    if !config.env.iter().any(|entry| entry.starts_with("HOME=")) {
        env = merged_env(&[], &[env, vec![format!("HOME={}", identity.home)]].concat());
    }
    let mut command = Command::new(&config.args, &env, &set, Calls::of(config.privileged))?;
    if config.init {
        command = command.under(SHIM_FD);
    }
    let library = |error: libcontainer::error::LibcontainerError| Refused {
        code: EXIT_NOT_STARTED,
        reason: chain(&error),
    };
    let container = ContainerBuilder::new(config.id.to_string(), SyscallType::default())
        .with_executor(Exec { command, terminal: config.tty })
        .with_root_path(layout.library())
        .and_then(ContainerBuilder::validate_id)
        .map_err(library)?
        .as_init(layout.bundle())
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(library)?;
    container.pid().map(|pid| pid.as_raw()).ok_or_else(|| Refused {
        code: EXIT_NOT_STARTED,
        reason: "the container has no process".into(),
    })
}

/// What the library calls in the container's first process.
#[derive(Clone)]
struct Exec {
    command: Command,
    terminal: bool,
}

impl Executor for Exec {
    /// Before the start: an answer about a missing command comes while nothing runs yet.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        self.command.find().map(drop).map_err(|refused| {
            report_error(&refused);
            ExecutorValidationError::ArgValidationError(refused.reason)
        })
    }

    /// The environment goes with exec.
    fn setup_envs(
        &self,
        _: std::collections::HashMap<String, String>,
    ) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        die_with_parent();
        let terminal = if self.terminal { take_terminal() } else { Ok(()) };
        let Err(refused) =
            terminal.and_then(|()| self.command.find()).and_then(|file| self.command.run(&file));
        report_error(&refused);
        // The library would turn an error into a code of its own, and destructors are the parent's.
        // SAFETY: _exit takes a plain value and does not return.
        unsafe { libc::_exit(refused.code) }
    }
}

/// Makes a terminal, gives its master side to the shim, and waits until that has set its size.
fn take_terminal() -> Result<(), Refused> {
    let made = || -> std::io::Result<()> {
        let (master, own) = terminal::open_terminal()?;
        // SAFETY: the shim opened descriptor 3 for us, and nobody closes it before exec does.
        let report = unsafe { BorrowedFd::borrow_raw(REPORT_FD) };
        wire::send(report, b"terminal\n", &[master.as_raw_fd()], MsgFlags::empty())?;
        // A shim that is gone takes us along.
        let _ = nix::unistd::read(report, &mut [0; 2])?;
        // The first process of a container may lead its session already.
        let _ = nix::unistd::setsid();
        terminal::take(&own)?;
        terminal::become_stdio([&own, &own, &own])
    };
    made().map_err(|e| Refused { code: EXIT_NOT_STARTED, reason: format!("terminal: {e}") })
}

fn refused(error: Error) -> Refused {
    Refused { code: EXIT_NOT_STARTED, reason: chain(&error) }
}

fn report_error(refused: &Refused) {
    report(&format!("error {} {}\n", refused.code, refused.reason.replace('\n', " ")));
}

fn report(line: &str) {
    // SAFETY: the shim opened descriptor 3 for this; ManuallyDrop keeps it open for whoever reports
    // next.
    let mut file = ManuallyDrop::new(unsafe { File::from_raw_fd(REPORT_FD) });
    // With the shim gone there is nobody to tell.
    let _ = file.write_all(line.as_bytes());
}
