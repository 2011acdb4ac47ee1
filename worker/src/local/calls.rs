//! What users ask of containers.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::{oneshot, watch};
use tonic::Status;
use weft_model::{
    AttachmentId, Command, Container, ContainerId, NetworkId, Rejected, State,
    command::{Force, Named},
    object::{Holder, Wanted},
    spec::{EndpointSpec, RunSpec},
};
use weft_proto::v1;

use super::{
    Local, ProposeError, choose,
    drivers::removal,
    engine::Done,
    live::{Attaching, Cell, End, Failure, Live, Phase, Steer},
    make::runtime_id,
    networks,
};
use crate::{
    attach::Ask,
    container::{AttachConfig, AttachSession, Error},
};

/// How long the kernel and, on networks of the cluster, the managers may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(20);
/// How long a change of networks may take to be seen by the loop that does it.
const SEEN_DEADLINE: Duration = Duration::from_secs(10);

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The state forbids it, or cannot be kept.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The container could not be started.
    #[error("{}", .0.message)]
    Start(Failure),
    /// The runtime.
    #[error(transparent)]
    Runtime(#[from] Error),
    /// The kernel does not come to carry it.
    #[error("the network is not ready: {reason}")]
    NotReady {
        /// What is in the way.
        reason: String,
    },
    /// The managers refuse, or are not there.
    #[error("{}", .0.message())]
    Managers(Status),
    /// The machine cannot be read.
    #[error(transparent)]
    Facts(#[from] crate::facts::FactError),
}

impl From<Rejected> for CallError {
    fn from(rejected: Rejected) -> Self {
        Self::Propose(ProposeError::Rejected(rejected))
    }
}

/// A container that was made.
pub struct Made {
    /// Its ID.
    pub id: ContainerId,
    /// Its name, as chosen.
    pub name: String,
}

/// A client's place at a container.
pub struct Attachment {
    told: oneshot::Receiver<Result<(AttachSession, u64), Error>>,
    /// Outlives the container, which may be forgotten before its output is read.
    live: watch::Receiver<Live>,
}

impl Attachment {
    /// The session and the number of its run, as soon as the container is made; none if it is not
    /// started.
    pub async fn session(&mut self) -> Option<Result<(AttachSession, u64), Error>> {
        (&mut self.told).await.ok()
    }

    /// Waits for the end of that run.
    pub async fn ended(mut self, run: u64) -> End {
        let ended =
            self.live.wait_for(|live| live.ended.as_ref().is_some_and(|end| end.run >= run));
        let none = End { run, exit_code: 0, error: String::new() };
        ended.await.ok().and_then(|live| live.ended.clone()).unwrap_or(none)
    }
}

impl Local {
    /// The container that `text` means.
    ///
    /// # Errors
    /// When none or several are meant.
    pub fn find(&self, text: &str) -> Result<Arc<Container>, Rejected> {
        self.state().container_named(text).cloned()
    }

    /// Makes a container; nothing runs yet. `read` reads what is asked for with the newest state.
    ///
    /// # Errors
    /// Why not.
    pub async fn create(
        &self,
        request: Option<Named>,
        mut wire: v1::RunSpec,
        read: impl FnOnce(&v1::RunSpec, &State) -> Result<RunSpec, Rejected> + Send + 'static,
    ) -> Result<Made, CallError> {
        let id = ContainerId::from_bytes(rand::random());
        let done_already = request.as_ref().is_some_and(|n| self.state().repeated(n).is_some());
        if !done_already {
            self.check_image(&wire).await?;
        }
        // Held until the container is in the state.
        let chosen = wire.name.is_empty().then(|| self.names.reserve(|| self.state()));
        if let Some(chosen) = &chosen {
            chosen.name().clone_into(&mut wire.name);
        }
        if let Some(container) = &mut wire.container {
            name_gateway(&mut container.hosts, &self.state());
        }
        let asked: &mut [_] = if done_already { &mut [] } else { &mut wire.networks };
        let leased = self.lease(&wire.name.clone(), asked).await?;
        let attachments = leased.attachments();
        let made = self.engine.propose(request, move |state| {
            let spec = read(&wire, state)?;
            spec.check()?;
            let name = |network| {
                let held = attachments.get(&network).copied();
                held.unwrap_or_else(|| AttachmentId::from_bytes(rand::random()))
            };
            let endpoints = choose::endpoints(state, &spec, name)?;
            Ok(vec![Command::CreateContainer { id, spec: Arc::new(spec), endpoints }])
        });
        let Done { applied, state } = match made.await {
            Ok(done) => done,
            Err(error) => {
                self.give_up(&leased).await;
                return Err(error.into());
            }
        };
        let id = applied.id.parse().unwrap_or(id);
        let name = state.container(id).map(|c| c.spec.name.clone()).unwrap_or_default();
        Ok(Made { id, name })
    }

    /// Refuses an image that is not there before anything is made. What is no path is refused by its form.
    async fn check_image(&self, wire: &v1::RunSpec) -> Result<(), CallError> {
        let image = wire.container.as_ref().and_then(|spec| spec.image.strip_prefix("rootfs:"));
        match image.map(Path::new).filter(|dir| dir.is_absolute()) {
            Some(dir) => Ok(self.context.runtime.check_image(dir).await?),
            None => Ok(()),
        }
    }

    /// Starts a container, and comes back when its command runs. One that runs is left as it is.
    ///
    /// # Errors
    /// Why it does not run.
    pub async fn start(&self, request: Option<Named>, id: ContainerId) -> Result<(), CallError> {
        let cell = self.table.cell(id);
        if matches!(cell.live.borrow().phase, Phase::Up { .. })
            && self.state().container(id).is_some_and(|c| c.wanted == Wanted::Running)
        {
            return Ok(());
        }
        let start = self.propose_start(request, id).await?;
        Self::started(&cell, id, start).await
    }

    /// Waits until a start was taken up.
    async fn started(cell: &Cell, id: ContainerId, start: u64) -> Result<(), CallError> {
        let mut live = cell.live.subscribe();
        // The cell is ours, so it does not end.
        let Ok(live) = live.wait_for(|live| live.start >= start || live.gone).await else {
            return Ok(());
        };
        match &live.failed {
            Some(failure) if failure.start == start => Err(CallError::Start(failure.clone())),
            // Removed by somebody before it was begun.
            _ if live.start < start => Err(not_found("container", &id.short()).into()),
            Some(_) | None => Ok(()),
        }
    }

    /// Wants a container to run, from now on anew; tells which start that is.
    pub(super) async fn propose_start(
        &self,
        request: Option<Named>,
        id: ContainerId,
    ) -> Result<u64, CallError> {
        let defaults = Arc::clone(&self.defaults);
        let v6 = networks::host_has_v6();
        let cursor = Some(self.port_cursor.load(Ordering::Relaxed)).filter(|port| *port > 0);
        let done = self.engine.propose(request, move |state| {
            let container = known(state, id)?;
            let choice = choose::Ports {
                state,
                defaults: &defaults,
                v6,
                cursor,
                is_taken: &networks::is_taken,
            };
            let ports = choice.choose(container)?;
            Ok(vec![Command::SetContainer { id, wanted: Wanted::Running, ports, force: Force::No }])
        });
        let Done { state, .. } = done.await?;
        let container = known(&state, id)?;
        if let Some(last) = container.ports.last() {
            self.port_cursor.store(last.host_port, Ordering::Relaxed);
        }
        Ok(container.starts)
    }

    /// Stops it and starts it again.
    ///
    /// # Errors
    /// Why it does not run.
    pub async fn restart(
        &self,
        request: Option<Named>,
        id: ContainerId,
        grace: Option<Duration>,
    ) -> Result<(), CallError> {
        let cell = self.table.cell(id);
        cell.steer(Steer { grace, ..Steer::default() });
        let start = self.propose_start(request, id).await?;
        Self::started(&cell, id, start).await
    }

    /// Ends a container, and comes back when it has ended. Success if it had.
    ///
    /// # Errors
    /// When the state cannot be kept.
    pub async fn stop(&self, id: ContainerId, steer: Steer) -> Result<(), CallError> {
        let cell = self.table.cell(id);
        cell.steer(steer);
        let stop = Command::SetContainer {
            id,
            wanted: Wanted::Stopped,
            ports: Vec::new(),
            force: Force::No,
        };
        let done = self.engine.propose(None, move |state| {
            let running = known(state, id)?.wanted == Wanted::Running;
            Ok(if running { vec![stop] } else { Vec::new() })
        });
        done.await?;
        let mut live = cell.live.subscribe();
        // The cell is ours, so it does not end.
        let _ = live.wait_for(|live| matches!(live.phase, Phase::Down | Phase::Removing)).await;
        Ok(())
    }

    /// Sends a signal. SIGKILL ends a container for good, whatever its restart policy is.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&self, id: ContainerId, signal: i32) -> Result<(), CallError> {
        let container = known(&self.state(), id)?.clone();
        if !matches!(self.live(id).phase, Phase::Up { .. }) {
            return Err(CallError::Runtime(Error::NotRunning { id: runtime_id(id) }));
        }
        if signal == libc::SIGKILL {
            return self.stop(id, Steer { kill: true, ..Steer::default() }).await;
        }
        if Some(signal) == container.spec.container.stop_signal.or(Some(libc::SIGTERM)) {
            // It was told to end: no restart follows.
            self.table.cell(id).steer(Steer { last: true, ..Steer::default() });
        }
        Ok(self.context.runtime.kill(&runtime_id(id), signal).await?)
    }

    /// Removes a container, and comes back when nothing of it is left.
    ///
    /// # Errors
    /// Why not.
    pub async fn remove(
        &self,
        request: Option<Named>,
        id: ContainerId,
        force: Force,
    ) -> Result<(), CallError> {
        self.engine.propose(request, move |_| Ok(vec![removal(id, force)])).await?;
        let mut state = self.engine.watch();
        // The engine lives as long as this value.
        let _ = state.wait_for(|state| state.container(id).is_none()).await;
        Ok(())
    }

    /// Removes all that do not run; their IDs.
    ///
    /// # Errors
    /// When the state cannot be kept.
    pub async fn prune(&self) -> Result<Vec<ContainerId>, CallError> {
        let state = self.state();
        let mut removed = Vec::new();
        for container in state.containers().filter(|c| c.wanted == Wanted::Stopped) {
            match self.remove(None, container.id, Force::No).await {
                Ok(()) => removed.push(container.id),
                // Somebody has started it, or is in its namespace.
                Err(CallError::Propose(ProposeError::Rejected(_))) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// Waits until a container has ended and no restart is due; its exit code and why it did not run.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn wait(&self, id: ContainerId) -> Result<(i32, String), CallError> {
        let cell = self.table.cell(id);
        let known = known(&self.state(), id)?.clone();
        let mut live = cell.live.subscribe();
        let over = |live: &Live| matches!(live.phase, Phase::Down | Phase::Removing);
        let at_once = over(&live.borrow()) && known.wanted != Wanted::Running;
        if !at_once {
            // The cell is ours, so it does not end.
            let ended =
                |live: &Live| over(live) && live.ended.as_ref().is_some_and(|e| e.run == live.run);
            let _ = live.wait_for(ended).await;
        }
        if let Some(End { exit_code, error, .. }) = live.borrow().ended.clone() {
            return Ok((exit_code, error));
        }
        let last = self.state().container(id).and_then(|c| c.last.clone()).or(known.last.clone());
        Ok(last.map_or((0, String::new()), |last| (last.exit_code, last.error)))
    }

    /// Attaches to a container: at once if it runs, otherwise when it is started the next time.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn attach(
        &self,
        id: ContainerId,
        config: AttachConfig,
    ) -> Result<Attachment, CallError> {
        let cell = self.table.cell(id);
        // Before the container can be gone, and its cell with it.
        let live = cell.live.subscribe();
        let (tell, told) = oneshot::channel();
        let (phase, run) = {
            let live = cell.live.borrow();
            (live.phase, live.run)
        };
        match phase {
            Phase::Up { .. } => {
                let session = self.context.runtime.attach(&runtime_id(id), config).await;
                let _ = tell.send(session.map(|session| (session, run)));
            }
            Phase::Down | Phase::Starting | Phase::Restarting | Phase::Removing => {
                cell.attach(Attaching { config, tell });
            }
        }
        if let Err(gone) = known(&self.state(), id) {
            // It was forgotten while somebody asked: nobody drives this cell.
            self.table.forget(id);
            return Err(gone.into());
        }
        Ok(Attachment { told, live })
    }

    /// Puts a container on one more network; comes back when the kernel carries it, or at once if it
    /// does not run.
    ///
    /// # Errors
    /// Why not.
    pub async fn connect(
        &self,
        request: Option<Named>,
        id: ContainerId,
        mut wire: v1::EndpointSpec,
        read: impl FnOnce(&v1::EndpointSpec, &State) -> Result<EndpointSpec, Rejected> + Send + 'static,
    ) -> Result<NetworkId, CallError> {
        let name = known(&self.state(), id)?.spec.name.clone();
        let done_already = request.as_ref().is_some_and(|n| self.state().repeated(n).is_some());
        let asked: &mut [_] = if done_already { &mut [] } else { std::slice::from_mut(&mut wire) };
        let leased = self.lease(&name, asked).await?;
        let attachments = leased.attachments();
        let (tell, told) = oneshot::channel();
        let done = self.engine.propose(request, move |state| {
            let container = known(state, id)?;
            let spec = read(&wire, state)?;
            let held = attachments.get(&spec.network).copied();
            let attachment = held.unwrap_or_else(|| AttachmentId::from_bytes(rand::random()));
            let ifname = choose::ifname(state, container);
            let endpoint = choose::endpoint(state, &spec, attachment, ifname)?;
            // Nobody listens any more if the caller has gone.
            let _ = tell.send(spec.network);
            Ok(vec![Command::Connect { container: id, spec, endpoint }])
        });
        let Done { state, .. } = match done.await {
            Ok(done) => done,
            Err(error) => {
                self.give_up(&leased).await;
                return Err(error.into());
            }
        };
        let container = known(&state, id)?.clone();
        let newest = || container.endpoints.last().map(|endpoint| endpoint.spec.network);
        // A retry chooses nothing, and finds it done.
        let network = told.await.ok().or_else(newest);
        let network = network.ok_or_else(|| not_found("network", ""))?;
        self.carried(id, state.revision()).await?;
        let foreign = container.endpoint_on(network).filter(|endpoint| endpoint.foreign());
        if let Some(endpoint) = foreign.filter(|_| self.is_plumbed(id)) {
            let ready = Ask::Ready(endpoint.attachment);
            self.ground.ask(&ready).await.map_err(CallError::Managers)?;
        }
        Ok(network)
    }

    /// Takes a container off a network; comes back when the kernel has nothing of it.
    ///
    /// # Errors
    /// Why not.
    pub async fn disconnect(
        &self,
        request: Option<Named>,
        id: ContainerId,
        network: NetworkId,
    ) -> Result<(), CallError> {
        let before = known(&self.state(), id)?.clone();
        let leave = vec![Command::Disconnect { container: id, network }];
        let done = self.engine.propose(request, move |_| Ok(leave)).await?;
        self.carried(id, done.state.revision()).await?;
        let foreign = before.endpoint_on(network).filter(|endpoint| endpoint.foreign());
        if let Some(endpoint) = foreign {
            let detach = Ask::Detach(endpoint.attachment);
            self.ground.ask(&detach).await.map_err(CallError::Managers)?;
        }
        Ok(())
    }

    pub(super) fn is_plumbed(&self, id: ContainerId) -> bool {
        let standing = self.context.plumbing.standing();
        standing.borrow().sandboxes.contains(&Holder::Container(id))
    }

    /// Waits until the kernel carries a container's networks as of this revision, if it runs.
    pub(super) async fn carried(&self, id: ContainerId, revision: u64) -> Result<(), CallError> {
        if !self.is_plumbed(id) {
            return Ok(());
        }
        let seen = self.context.assigned.borrow().1.revision;
        let holder = Holder::Container(id);
        let carried = self.context.plumbing.carried(holder, revision, CONNECT_DEADLINE);
        let gone = async {
            // It may end meanwhile.
            let mut live = self.table.cell(id).live.subscribe();
            let _ = live.wait_for(|live| !matches!(live.phase, Phase::Up { .. })).await;
        };
        tokio::select! {
            carried = carried => carried.map_err(|reason| CallError::NotReady { reason })?,
            () = gone => return Ok(()),
        }
        let mut standing = self.context.plumbing.standing();
        let _ = standing.wait_for(|now| now.seen >= seen).await;
        Ok(())
    }

    /// Waits until the data plane has been looked at for this revision.
    pub(super) async fn seen(&self, revision: u64) {
        let mut standing: watch::Receiver<_> = self.context.plumbing.standing();
        let seen = standing.wait_for(|now| now.own >= revision);
        // If the loop is stuck, it goes on by itself.
        let _ = tokio::time::timeout(SEEN_DEADLINE, seen).await;
    }
}

fn known(state: &State, id: ContainerId) -> Result<&Arc<Container>, Rejected> {
    state.container(id).ok_or_else(|| not_found("container", &id.short()))
}

fn not_found(kind: &str, name: &str) -> Rejected {
    Rejected::NotFound { kind: kind.to_owned(), name: name.to_owned() }
}

/// What stands for the host's own address in a line of the hosts file, as in Docker.
const HOST_GATEWAY: &str = ":host-gateway";

/// Puts the host's address on the default bridge where a line asks for it. Without one the line
/// stays as it is, and is refused.
fn name_gateway(hosts: &mut [String], state: &State) {
    let bridge = state.networks().find(|n| n.spec.is_predefined() && !n.subnets.is_empty());
    let Some(gateway) = bridge.and_then(|n| n.subnets.first()).map(|s| s.gateway) else { return };
    for line in hosts {
        if let Some(name) = line.strip_suffix(HOST_GATEWAY) {
            *line = format!("{name}:{gateway}");
        }
    }
}
