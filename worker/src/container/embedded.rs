//! The runtime that needs nothing but this binary: a shim for each container, and helpers that make
//! them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OwnedMutexGuard, broadcast};
use tokio::task::AbortHandle;

use super::cgroup::Own;
use super::kept::Kept;
use super::layout::{Layout, containers};
use super::shim::{self, Shim};
use super::status::Told;
use super::{
    AttachConfig, AttachSession, ContainerConfig, ContainerId, Created, DnsSockets, Ended, Error,
    EtcFile, ExecConfig, ExecSession, Exit, Found, HostPort, LogQuery, LogStream, NetNamespace,
    Phase, Runtime, Status, attach, exec, helper, logs, make, ports, program,
};

mod config;

pub use config::EmbeddedConfig;

/// Ends that a receiver may be behind with.
const ENDED_QUEUE: usize = 1024;
/// How long a process may take to die of SIGKILL.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// See `Runtime`. Cheap to clone; its watchers end with the last clone.
#[derive(Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

struct Inner {
    run_dir: PathBuf,
    state_dir: PathBuf,
    /// Resolved directories that hold our keys and state.
    ours: Vec<PathBuf>,
    program: OwnedFd,
    helper: OwnedFd,
    helper_args: Vec<OsString>,
    own: Own,
    ended: broadcast::Sender<Ended>,
    watchers: Mutex<BTreeMap<ContainerId, AbortHandle>>,
    port_conflicts: AtomicU64,
    /// Held while a container is made or removed. A shim that does not answer then is only not there yet, or no
    /// longer: whoever takes it for dead asks again when he holds this.
    changing: Mutex<BTreeMap<ContainerId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let watchers = self.watchers.get_mut().unwrap_or_else(PoisonError::into_inner);
        watchers.values().for_each(AbortHandle::abort);
    }
}

/// The network namespace of a process.
pub(super) fn netns(pid: i32) -> PathBuf {
    format!("/proc/{pid}/ns/net").into()
}

impl Embedded {
    /// Makes the two directories and opens the programs. Containers of an earlier daemon are found
    /// by `list`.
    ///
    /// # Errors
    /// If a directory cannot be made or the helper cannot be opened.
    pub fn new(config: EmbeddedConfig) -> Result<Self, Error> {
        let mut ours = Vec::new();
        for dir in [&config.run_dir, &config.state_dir] {
            let containers = containers(dir);
            fs::create_dir_all(&containers)
                .map_err(Error::io("cannot make directory", &containers))?;
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            fs::set_permissions(&containers, private)
                .map_err(Error::io("cannot set the mode of", &containers))?;
        }
        let given = [&config.run_dir, &config.state_dir].into_iter().chain(&config.hidden);
        for dir in given {
            // One that is not there holds no keys.
            ours.extend(fs::canonicalize(dir));
        }
        let real = |dir: &Path| fs::canonicalize(dir).map_err(Error::io("cannot resolve", dir));
        let inner = Inner {
            run_dir: real(&config.run_dir)?,
            state_dir: real(&config.state_dir)?,
            ours,
            program: shim::program()?,
            helper: program::open_program(&config.helper)?,
            helper_args: config.helper_args,
            own: Own::detect(),
            ended: broadcast::Sender::new(ENDED_QUEUE),
            watchers: Mutex::default(),
            port_conflicts: AtomicU64::new(0),
            changing: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn layout(&self, id: &ContainerId) -> Layout {
        Layout::new(&self.inner.run_dir, &self.inner.state_dir, id)
    }

    /// Runs what blocks where it may.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || work(&inner)).await.map_err(|e| Error::Os {
            what: "a blocking task died",
            source: std::io::Error::other(e),
        })?
    }

    /// Tells a container's end when it comes, once.
    fn watch(&self, id: &ContainerId, mut shim: Shim) {
        let mut watchers = self.inner.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Vacant(free) = watchers.entry(id.clone()) else { return };
        let ended = self.inner.ended.clone();
        let (id, layout) = (id.clone(), self.layout(id));
        let task = tokio::spawn(async move {
            let phase = match shim.wait().await {
                Ok(told) => told.status.phase,
                Err(error) => {
                    let left = layout.clone();
                    // What cannot be killed now is tried again by `list` and `remove`.
                    let _ = tokio::task::spawn_blocking(move || make::kill_leftovers(&left)).await;
                    after_shim(&layout).unwrap_or(Phase::Failed { reason: error.to_string() })
                }
            };
            // Without a receiver nobody wants to know.
            let _ = ended.send(Ended { id, phase });
        });
        free.insert(task.abort_handle());
    }

    fn unwatch(&self, id: &ContainerId) {
        let mut watchers = self.inner.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = watchers.remove(id) {
            old.abort();
        }
    }

    /// Waits until nobody makes or removes this container, and keeps it so.
    async fn unchanging(&self, id: &ContainerId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut all = self.inner.changing.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody holds or waits for are forgotten.
            all.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(all.entry(id.clone()).or_default())
        };
        lock.lock_owned().await
    }

    /// One container as it is now; the shim is to be watched if it is there.
    async fn find(&self, id: &ContainerId) -> Result<(Found, Option<Shim>), Error> {
        let layout = self.layout(id);
        if let Ok(mut shim) = Shim::connect(id, &layout).await
            && let Ok(told) = shim.state().await
        {
            let kept = Kept::load(&layout)?;
            return Ok((found(id, kept, told.status), Some(shim)));
        }
        let _unchanging = self.unchanging(id).await;
        let kept = Kept::load(&layout)?;
        let asked = match Shim::connect(id, &layout).await {
            Ok(mut shim) => shim.state().await.map(|told| (told, shim)),
            Err(error) => Err(error),
        };
        let (status, shim) = match asked {
            Ok((told, shim)) => (told.status, Some(shim)),
            Err(_) => (self.without_shim(layout).await?, None),
        };
        Ok((found(id, kept, status), shim))
    }

    /// What is known of a container whose shim does not answer; what it left running is killed.
    async fn without_shim(&self, layout: Layout) -> Result<Status, Error> {
        self.blocking(move |_| {
            make::kill_leftovers(&layout)?;
            let told = make::last_told(&layout);
            Ok(match (after_shim(&layout), told) {
                (Some(phase), Some(told)) => {
                    Status { phase, pid: None, shim_pid: 0, dns_port: None, ..told.status }
                }
                _ => Status::failed("its shim is gone"),
            })
        })
        .await
    }

    fn exists(&self, id: &ContainerId) -> Result<Layout, Error> {
        let layout = self.layout(id);
        if layout.state.exists() || layout.run.exists() {
            Ok(layout)
        } else {
            Err(Error::NotFound { id: id.clone() })
        }
    }

    /// The shim, if the container is there.
    async fn shim(&self, id: &ContainerId) -> Result<Shim, Error> {
        Shim::connect(id, &self.exists(id)?).await
    }

    fn argv(&self, layout: &Layout) -> Vec<Vec<u8>> {
        let own =
            [OsString::from("weft")].into_iter().chain(self.inner.helper_args.iter().cloned());
        let words = [
            OsString::from(helper::CREATE),
            layout.run.clone().into_os_string(),
            layout.state.clone().into_os_string(),
        ];
        own.chain(words).map(OsString::into_vec).collect()
    }

    /// Prepares a container by `prepare`, starts its shim, and takes what it offers.
    async fn make(
        &self,
        id: &ContainerId,
        prepare: impl FnOnce(&Inner, &Layout) -> Result<Kept, Error> + Send + 'static,
    ) -> Result<Created, Error> {
        let layout = self.layout(id);
        let of = layout.clone();
        let kept = self
            .blocking(move |inner| {
                let kept = prepare(inner, &of)?;
                crate::failpoint!("container.make.prepared");
                shim::start(&inner.program, &kept.config, &of)?;
                crate::failpoint!("container.make.shim");
                Ok(kept)
            })
            .await?;
        let mut shim = Shim::connect(id, &layout).await?;
        let Told { status, .. } = shim.state().await?;
        let dns = match kept.config.network {
            NetNamespace::Own => Some(shim.dns().await?),
            NetNamespace::Host | NetNamespace::Join(_) => None,
        };
        self.watch(id, shim);
        let missing = kept.applied.missing;
        Ok(Created { netns: netns(status.shim_pid), shim_pid: status.shim_pid, dns, missing })
    }

    /// Ends and removes what there is of a container that nobody else changes now.
    async fn unmake(&self, id: &ContainerId) -> Result<(), Error> {
        self.unwatch(id);
        let layout = self.layout(id);
        if let Ok(mut shim) = Shim::connect(id, &layout).await {
            // A shim that does not answer is killed with the rest below.
            let _ = shim.shutdown().await;
        }
        crate::failpoint!("container.remove.shim");
        self.blocking(move |_| make::clean(&layout)).await
    }
}

/// What the shim is to know of the main process's input and output: the letters of its `start`.
fn wants(config: &ContainerConfig) -> Vec<u8> {
    let letters = [(config.tty, b't'), (config.open_stdin, b'i'), (config.stdin_once, b'o')];
    letters.into_iter().filter_map(|(wanted, letter)| wanted.then_some(letter)).collect()
}

fn found(id: &ContainerId, kept: Option<Kept>, status: Status) -> Found {
    let (config, missing) = kept.map(|kept| (kept.config, kept.applied.missing)).unzip();
    Found { id: id.clone(), config, status, missing: missing.unwrap_or_default() }
}

/// The phase a dead shim has left behind, if that was the last one.
fn after_shim(layout: &Layout) -> Option<Phase> {
    let phase = make::last_told(layout)?.status.phase;
    matches!(phase, Phase::Exited(_)).then_some(phase)
}

#[async_trait]
impl Runtime for Embedded {
    async fn list(&self) -> Result<Vec<Found>, Error> {
        let ids = self.blocking(|inner| make::ids(&inner.run_dir, &inner.state_dir)).await?;
        let mut all = Vec::with_capacity(ids.len());
        for id in ids {
            let (found, shim) = self.find(&id).await?;
            if shim.is_none() && self.exists(&id).is_err() {
                // Removed while we looked.
                continue;
            }
            if let Some(shim) = shim
                && !matches!(found.status.phase, Phase::Exited(_))
            {
                self.watch(&id, shim);
            }
            all.push(found);
        }
        Ok(all)
    }

    async fn check_image(&self, dir: &Path) -> Result<(), Error> {
        let dir = dir.to_owned();
        self.blocking(move |inner| super::rootfs::image_dir(&dir, &inner.ours).map(drop)).await
    }

    async fn create(&self, config: ContainerConfig) -> Result<Created, Error> {
        config.check()?;
        let id = config.id.clone();
        let _changing = self.unchanging(&id).await;
        let made = self
            .make(&id, move |inner, layout| make::prepare(&config, layout, &inner.own, &inner.ours))
            .await;
        if made.as_ref().is_err_and(|e| !leaves_things_alone(e)) {
            self.unmake(&id).await?;
        }
        made
    }

    async fn renew(&self, id: &ContainerId) -> Result<Created, Error> {
        match self.status(id).await?.phase {
            Phase::Created | Phase::Starting | Phase::Running => {
                return Err(Error::AlreadyStarted { id: id.clone() });
            }
            Phase::Exited(_) | Phase::Failed { .. } => self.release(id).await?,
        }
        let of = id.clone();
        let _changing = self.unchanging(id).await;
        self.make(id, move |inner, layout| make::renew(&of, layout, &inner.own, &inner.ours)).await
    }

    async fn start(&self, id: &ContainerId) -> Result<i32, Error> {
        let layout = self.exists(id)?;
        let kept = Kept::load(&layout)?.ok_or_else(|| Error::NotFound { id: id.clone() })?;
        crate::failpoint!("container.start.begun");
        let oom = kept.applied.oom_file.map_or_else(Vec::new, |p| p.into_os_string().into_vec());
        let mut shim = Shim::connect(id, &layout).await?;
        let wants = wants(&kept.config);
        let pid = shim.start(self.inner.helper.as_fd(), &wants, &oom, &self.argv(&layout)).await?;
        crate::failpoint!("container.start.done");
        Ok(pid)
    }

    async fn status(&self, id: &ContainerId) -> Result<Status, Error> {
        self.exists(id)?;
        Ok(self.find(id).await?.0.status)
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, Error> {
        let layout = self.exists(id)?;
        let waited = match Shim::connect(id, &layout).await {
            Ok(mut shim) => shim.wait().await.map(|told| told.status.phase),
            Err(error) => Err(error),
        };
        match waited {
            Ok(Phase::Exited(exit)) => Ok(exit),
            Ok(_) | Err(_) => match after_shim(&layout) {
                Some(Phase::Exited(exit)) => Ok(exit),
                Some(_) | None => Err(Error::ShimGone { id: id.clone() }),
            },
        }
    }

    fn ended(&self) -> broadcast::Receiver<Ended> {
        self.inner.ended.subscribe()
    }

    async fn attach(&self, id: &ContainerId, config: AttachConfig) -> Result<AttachSession, Error> {
        let layout = self.exists(id)?;
        let kept = Kept::load(&layout)?.ok_or_else(|| Error::NotFound { id: id.clone() })?;
        let shim = Shim::connect(id, &layout).await?;
        attach::attach(&kept.config, layout, shim, config).await
    }

    async fn publish(&self, id: &ContainerId, wanted: &[HostPort]) -> Result<(), Error> {
        let _changing = self.unchanging(id).await;
        let layout = self.exists(id)?;
        let kept = Kept::load(&layout)?.ok_or_else(|| Error::NotFound { id: id.clone() })?;
        match kept.config.network {
            NetNamespace::Own => {}
            NetNamespace::Host | NetNamespace::Join(_) => {
                return Err(Error::PortsNotOwn { id: id.clone() });
            }
        }
        let published = ports::publish(&mut Shim::connect(id, &layout).await?, wanted).await;
        if matches!(published, Err(Error::PortInUse { .. })) {
            self.inner.port_conflicts.fetch_add(1, Ordering::Relaxed);
        }
        published
    }

    fn port_conflicts(&self) -> u64 {
        self.inner.port_conflicts.load(Ordering::Relaxed)
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<Exit, Error> {
        let layout = self.exists(id)?;
        let signal = Kept::load(&layout)?.map_or(libc::SIGTERM, |k| k.config.stop_signal);
        let phase = self.status(id).await?.phase;
        match phase {
            Phase::Exited(exit) => return Ok(exit),
            Phase::Failed { .. } => return Err(Error::ShimGone { id: id.clone() }),
            Phase::Created => return Err(Error::NotRunning { id: id.clone() }),
            Phase::Starting | Phase::Running => {}
        }
        for (signal, patience) in [(signal, grace), (libc::SIGKILL, KILL_DEADLINE)] {
            match self.kill(id, signal).await {
                // It ended by itself, which `wait` will say.
                Ok(()) | Err(Error::NotRunning { .. } | Error::ShimGone { .. }) => {}
                Err(error) => return Err(error),
            }
            if let Ok(exit) = tokio::time::timeout(patience, self.wait(id)).await {
                return exit;
            }
        }
        let reason = format!("alive {} s after SIGKILL", KILL_DEADLINE.as_secs());
        Err(Error::ShimRefused { id: id.clone(), request: "kill", reason })
    }

    async fn kill(&self, id: &ContainerId, signal: i32) -> Result<(), Error> {
        self.shim(id).await?.kill(signal).await
    }

    async fn write_etc(&self, id: &ContainerId, file: EtcFile, text: &str) -> Result<(), Error> {
        let path = self.exists(id)?.etc(file.name());
        // In place: the container has this very file mounted, and would not see another one.
        fs::write(&path, text).map_err(Error::io("cannot write", path))
    }

    async fn release(&self, id: &ContainerId) -> Result<(), Error> {
        self.unwatch(id);
        if let Ok(mut shim) = Shim::connect(id, &self.layout(id)).await {
            crate::failpoint!("container.release.begun");
            shim.shutdown().await?;
        }
        crate::failpoint!("container.release.done");
        Ok(())
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), Error> {
        let _changing = self.unchanging(id).await;
        self.unmake(id).await
    }

    async fn logs(&self, id: &ContainerId, query: LogQuery) -> Result<LogStream, Error> {
        let layout = self.exists(id)?;
        let (me, id) = (self.clone(), id.clone());
        let ended = async move {
            // Gone in whatever way: nothing more will be written.
            let _ = me.wait(&id).await;
        };
        Ok(logs::stream(layout.log(), query, ended))
    }

    async fn exec(&self, id: &ContainerId, config: ExecConfig) -> Result<ExecSession, Error> {
        let layout = self.exists(id)?;
        let kept = Kept::load(&layout)?.ok_or_else(|| Error::NotFound { id: id.clone() })?;
        let pid = match self.status(id).await?.pid {
            Some(pid) => pid,
            None => return Err(Error::NotRunning { id: id.clone() }),
        };
        let program = format!("/proc/self/fd/{}", self.inner.helper.as_raw_fd());
        exec::start(&kept, pid, config, Path::new(&program), &self.inner.helper_args).await
    }

    async fn dns_sockets(&self, id: &ContainerId) -> Result<DnsSockets, Error> {
        self.shim(id).await?.dns().await
    }
}

/// Errors after which there is nothing of ours to clean, or something of somebody else's.
fn leaves_things_alone(error: &Error) -> bool {
    matches!(
        error,
        Error::Exists { .. }
            | Error::Rootfs { .. }
            | Error::RootfsNotDirectory { .. }
            | Error::RootfsIsOurs { .. }
            | Error::BadCapability { .. }
            | Error::BindSourceMissing { .. }
    )
}
