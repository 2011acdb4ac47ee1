//! Containers that are only said to run: they take their time, fail and end as the seed says, and
//! outlive the daemon.

use std::{io, time::Duration};

use async_trait::async_trait;
use rand::RngExt as _;
use tokio::sync::{broadcast, watch};
use weft_worker::container::{
    AttachConfig, AttachSession, ContainerConfig, ContainerId, Created, DnsSockets, Ended, Error,
    EtcFile, ExecConfig, ExecSession, Exit, Found, HostPort, LogQuery, LogStream, Phase, Runtime,
    Status,
};

use super::machine::{Container, Machine};

/// Longest time that making or starting a container takes, in milliseconds.
const WORK_MAX: u64 = 120;
/// Longest time a container that is stopped takes to end, in milliseconds.
const STOP_MAX: u64 = 400;
/// Time in which a container ends by itself, if it does, in milliseconds.
const LIFE: std::ops::Range<u64> = 300..15_000;
/// One in so many containers cannot be made, and one in so many cannot be started.
const REFUSED: u32 = 40;
/// One in so many containers ends by itself.
const SHORT_LIVED: u32 = 6;
/// Exit code of a command that cannot be found.
const NOT_FOUND: i32 = 127;

/// The runtime over one machine's containers.
pub(super) struct FakeRuntime {
    machine: Machine,
    ended: broadcast::Sender<Ended>,
}

impl FakeRuntime {
    pub(super) fn new(machine: Machine) -> Self {
        Self { machine, ended: broadcast::Sender::new(1) }
    }

    async fn work(&self) {
        let millis = self.machine.lock().random.random_range(1..WORK_MAX);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// Gives a container its namespace.
    fn open(&self, id: &ContainerId) -> Result<Created, Error> {
        let mut inner = self.machine.lock();
        let shim = inner.pid();
        inner.changes += 1;
        inner.kernel.open_sandbox(id.as_str());
        let missing = || Error::NotFound { id: id.clone() };
        let container = inner.containers.get_mut(id).ok_or_else(missing)?;
        container.phase = Phase::Created;
        container.shim = shim;
        let netns = format!("/proc/{shim}/ns/net").into();
        Ok(Created { netns, shim_pid: shim, dns: None, missing: Vec::new() })
    }

    fn set(&self, id: &ContainerId, change: impl FnOnce(&mut Container)) -> Result<(), Error> {
        let mut inner = self.machine.lock();
        let missing = || Error::NotFound { id: id.clone() };
        inner.containers.get_mut(id).map(change).ok_or_else(missing)
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn list(&self) -> Result<Vec<Found>, Error> {
        Ok(self.machine.lock().found())
    }

    async fn create(&self, config: ContainerConfig) -> Result<Created, Error> {
        let id = config.id.clone();
        {
            let mut inner = self.machine.lock();
            if inner.containers.contains_key(&id) {
                return Err(Error::Exists { id });
            }
            let phase = Phase::Failed { reason: "half made".to_owned() };
            let end = watch::Sender::new(None);
            let container = Container { config: None, phase, shim: 0, pid: None, end };
            inner.containers.insert(id.clone(), container);
        }
        self.work().await;
        if self.machine.lock().is_bad(REFUSED) {
            self.machine.lock().containers.remove(&id);
            return Err(refused("a container cannot be made"));
        }
        self.set(&id, |container| container.config = Some(config))?;
        self.open(&id)
    }

    async fn renew(&self, id: &ContainerId) -> Result<Created, Error> {
        self.release(id).await?;
        self.set(id, |container| drop(container.end.send_replace(None)))?;
        self.open(id)
    }

    async fn start(&self, id: &ContainerId) -> Result<i32, Error> {
        self.set(id, |container| container.phase = Phase::Starting)?;
        self.work().await;
        let now = self.machine.now();
        let mut inner = self.machine.lock();
        let (pid, fails) = (inner.pid(), inner.is_bad(REFUSED));
        let missing = || Error::NotFound { id: id.clone() };
        inner.containers.get_mut(id).ok_or_else(missing)?.phase = Phase::Running;
        if fails {
            inner.end(id, NOT_FOUND);
            let reason = "no such file".to_owned();
            return Err(Error::NotStarted { id: id.clone(), exit_code: NOT_FOUND, reason });
        }
        if let Some(container) = inner.containers.get_mut(id) {
            container.pid = Some(pid);
        }
        if inner.is_bad(SHORT_LIVED) {
            let at = now + inner.random.random_range(LIFE);
            let code = inner.random.random_range(0..2);
            inner.end_at(at, id, code);
        }
        Ok(pid)
    }

    async fn status(&self, id: &ContainerId) -> Result<Status, Error> {
        let inner = self.machine.lock();
        let missing = || Error::NotFound { id: id.clone() };
        inner.containers.get(id).map(Container::status).ok_or_else(missing)
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, Error> {
        let missing = || Error::NotFound { id: id.clone() };
        let end = self.machine.lock().containers.get(id).map(|container| container.end.subscribe());
        let mut end = end.ok_or_else(missing)?;
        let ended = end.wait_for(Option::is_some).await.map_err(|_| missing())?;
        ended.clone().ok_or_else(missing)
    }

    fn ended(&self) -> broadcast::Receiver<Ended> {
        self.ended.subscribe()
    }

    /// Nothing is said.
    async fn attach(
        &self,
        id: &ContainerId,
        _config: AttachConfig,
    ) -> Result<AttachSession, Error> {
        Err(Error::NotRunning { id: id.clone() })
    }

    /// There is no host whose ports could be taken.
    async fn publish(&self, id: &ContainerId, _ports: &[HostPort]) -> Result<(), Error> {
        self.set(id, |_| ())
    }

    async fn stop(&self, id: &ContainerId, _grace: Duration) -> Result<Exit, Error> {
        let millis = self.machine.lock().random.random_range(1..STOP_MAX);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        self.machine.lock().terminate(id);
        self.wait(id).await
    }

    async fn kill(&self, id: &ContainerId, _signal: i32) -> Result<(), Error> {
        self.machine.lock().terminate(id);
        Ok(())
    }

    /// There are no files.
    async fn write_etc(&self, id: &ContainerId, _file: EtcFile, _text: &str) -> Result<(), Error> {
        self.set(id, |_| ())
    }

    async fn release(&self, id: &ContainerId) -> Result<(), Error> {
        self.work().await;
        let mut inner = self.machine.lock();
        if inner.is_bad(REFUSED) {
            return Err(refused("a container cannot be let go"));
        }
        inner.terminate(id);
        inner.close(id);
        Ok(())
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), Error> {
        self.work().await;
        let mut inner = self.machine.lock();
        if inner.is_bad(REFUSED) {
            return Err(refused("a container cannot be removed"));
        }
        inner.terminate(id);
        inner.close(id);
        inner.containers.remove(id);
        Ok(())
    }

    async fn logs(&self, id: &ContainerId, _query: LogQuery) -> Result<LogStream, Error> {
        Err(Error::NotFound { id: id.clone() })
    }

    async fn exec(&self, id: &ContainerId, _config: ExecConfig) -> Result<ExecSession, Error> {
        Err(Error::NotRunning { id: id.clone() })
    }

    async fn dns_sockets(&self, id: &ContainerId) -> Result<DnsSockets, Error> {
        Err(Error::NoDns { id: id.clone() })
    }
}

fn refused(what: &'static str) -> Error {
    Error::Os { what, source: io::Error::other("the simulation says so") }
}
