//! The containers of this node, as operators see and steer them.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, Semaphore, oneshot},
    task::JoinSet,
};
use tonic::{Code, Request, Response, Status, Streaming};
use weft_model::{CableEnd, State, command::Force};
use weft_proto::{
    convert::{run, status::invalid, value},
    v1::{
        self, ContainerLogsRequest, ExecRequest, GetContainerRequest, GetContainerResponse,
        KillContainerRequest, KillContainerResponse, ListContainersRequest, ListContainersResponse,
        StopContainerRequest, StopContainerResponse, container_service_server::ContainerService,
    },
};

use super::{
    Sources, attach, describe,
    exec::{self, Answers},
    logs::{self, Records},
    own::{self, Resolver, named},
    refusal,
};
use crate::{
    container::{ContainerId, DEFAULT_STOP_GRACE, Error, Found, Phase},
    desired::Sorted,
    local::{CallError, live::Steer},
    worker::Worker,
};

/// Commands that `exec` may have running at the same time on one node.
const EXEC_SESSIONS_MAX: usize = 256;
/// Highest signal number of Linux (SIGRTMAX).
const SIGNAL_MAX: u32 = 64;

/// Words of containers of this node that `ps` shows without `-a`.
const IS_UP: [&str; 3] = ["running", "restarting", "removing"];

/// See the module. Dropping it ends the commands that were started detached, and abandons what is
/// being stopped.
pub struct Containers {
    sources: Sources,
    /// What the runtime resolves its directory to.
    state_dir: PathBuf,
    sessions: Arc<Semaphore>,
    /// What goes on though its caller has gone: stopping, and detached commands.
    background: Mutex<JoinSet<()>>,
}

impl Containers {
    /// Of a worker.
    pub fn new(worker: &Worker) -> Self {
        Self::over(worker.into())
    }

    /// Of its parts.
    pub fn over(sources: Sources) -> Self {
        // It was made when the runtime began; if it is gone, the path as it was given says more.
        let state_dir = std::fs::canonicalize(&sources.state_dir);
        Self {
            state_dir: state_dir.unwrap_or_else(|_| sources.state_dir.clone()),
            sources,
            sessions: Arc::new(Semaphore::new(EXEC_SESSIONS_MAX)),
            background: Mutex::default(),
        }
    }

    /// Does `work` to its end, whether or not somebody waits for it.
    async fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut background = self.background.lock().await;
        // Those that have ended are let go of, so that there are no more than run.
        while background.try_join_next().is_some() {}
        background.spawn(work);
    }

    /// A task's container, with its health while it runs.
    fn describe(&self, found: &Found, sorted: &Sorted<'_>) -> v1::Container {
        let mut shown = describe::container(found, sorted, &self.state_dir);
        let task = found.id.as_str().parse().ok();
        let health = task.and_then(|task| self.sources.health.of(task));
        shown.health = health.as_ref().map(own::health);
        shown
    }

    async fn stop_now(&self, id: &ContainerId, grace: Duration) -> Result<(), Status> {
        let (told, stopped) = oneshot::channel();
        let (runtime, own) = (Arc::clone(&self.sources.runtime), id.clone());
        // A caller that goes away must not leave a container without its SIGKILL.
        self.in_background(async move {
            // Nobody may be left who wants to know.
            let _ = told.send(runtime.stop(&own, grace).await);
        })
        .await;
        match stopped.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(refusal::status(error)),
            Err(_) => Err(Status::unavailable("the daemon is ending")),
        }
    }
}

#[tonic::async_trait]
impl ContainerService for Containers {
    type LogsStream = Records;
    type ExecStream = Answers;
    type AttachStream = attach::Attached;

    async fn list(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        let all = request.into_inner().all;
        let found = self.sources.all().await?;
        let (_, assignments) = self.sources.assigned.borrow().clone();
        let sorted = Sorted::new(&assignments);
        let mut containers = Vec::new();
        let mut runtime: BTreeMap<&str, &Found> =
            found.iter().map(|found| (found.id.as_str(), found)).collect();
        if let Some(local) = &self.sources.local {
            for container in local.state().containers() {
                let found = runtime.remove(container.id.to_string().as_str());
                let shown = own::container(local, container, found, &sorted, &self.state_dir);
                if all || IS_UP.contains(&shown.status.as_str()) {
                    containers.push(shown);
                }
            }
        }
        let others = found.iter().filter(|found| runtime.contains_key(found.id.as_str()));
        let shown = others.filter(|found| all || !has_ended(found));
        containers.extend(shown.map(|found| self.describe(found, &sorted)));
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn get(
        &self,
        request: Request<GetContainerRequest>,
    ) -> Result<Response<GetContainerResponse>, Status> {
        let text = request.into_inner().container;
        let (_, assignments) = self.sources.assigned.borrow().clone();
        let sorted = Sorted::new(&assignments);
        if let (Some(local), Some(own)) = (&self.sources.local, self.sources.own(&text)?) {
            let found = self.sources.one(&own.id.to_string()).await.ok();
            let shown = own::container(local, &own, found.as_ref(), &sorted, &self.state_dir);
            return Ok(Response::new(GetContainerResponse { container: Some(shown) }));
        }
        let found = self.sources.one(&text).await?;
        let container = Some(self.describe(&found, &sorted));
        Ok(Response::new(GetContainerResponse { container }))
    }

    async fn logs(
        &self,
        request: Request<ContainerLogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        let query = logs::query(&request)?;
        let found = self.sources.one(&request.container).await?;
        logs::read(&self.sources, &found.id, query).await.map(Response::new)
    }

    async fn stop(
        &self,
        request: Request<StopContainerRequest>,
    ) -> Result<Response<StopContainerResponse>, Status> {
        let request = request.into_inner();
        let asked =
            value::span("grace", request.grace.as_ref()).map_err(|error| invalid(&error))?;
        if let (Some(local), Some(own)) =
            (self.sources.local.clone(), self.sources.own(&request.container)?)
        {
            let id = own.id;
            let steer = Steer { grace: asked, ..Steer::default() };
            on_and_on(async move { local.stop(id, steer).await }).await?;
            return Ok(Response::new(StopContainerResponse { container_id: id.to_string() }));
        }
        let found = self.sources.one(&request.container).await?;
        let own = found.config.as_ref().map_or(DEFAULT_STOP_GRACE, |config| config.stop_grace);
        if !has_ended(&found) {
            self.stop_now(&found.id, asked.unwrap_or(own)).await?;
        }
        Ok(Response::new(StopContainerResponse { container_id: found.id.to_string() }))
    }

    async fn kill(
        &self,
        request: Request<KillContainerRequest>,
    ) -> Result<Response<KillContainerResponse>, Status> {
        let request = request.into_inner();
        let signal = match request.signal {
            0 => libc::SIGKILL,
            asked => signal(asked)?,
        };
        if let (Some(local), Some(own)) =
            (&self.sources.local, self.sources.own(&request.container)?)
        {
            local.kill(own.id, signal).await.map_err(own::status)?;
            return Ok(Response::new(KillContainerResponse { container_id: own.id.to_string() }));
        }
        let found = self.sources.one(&request.container).await?;
        match self.sources.runtime.kill(&found.id, signal).await {
            Ok(()) => {}
            // What is left of one that has ended has nobody who takes a signal.
            Err(Error::ShimGone { id }) => return Err(refusal::status(Error::NotRunning { id })),
            Err(error) => return Err(refusal::status(error)),
        }
        Ok(Response::new(KillContainerResponse { container_id: found.id.to_string() }))
    }

    async fn exec(
        &self,
        request: Request<Streaming<ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let mut requests = request.into_inner();
        let start = exec::first(&mut requests).await?;
        let config = exec::config(&start)?;
        let permit = Arc::clone(&self.sessions).try_acquire_owned().map_err(|_| {
            let text = format!("{EXEC_SESSIONS_MAX} commands of exec run on this node already");
            Status::new(Code::ResourceExhausted, text)
        })?;
        let found = self.sources.one(&start.container).await?;
        let session = match self.sources.runtime.exec(&found.id, config).await {
            Ok(session) => session,
            Err(error) => return exec::not_started(error).map(Response::new),
        };
        if !start.detach {
            return Ok(Response::new(exec::attached(session, requests, &start, permit)?));
        }
        let work = exec::detached(session, permit)?;
        self.in_background(work).await;
        Ok(Response::new(exec::only_started()))
    }

    async fn create(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Result<Response<v1::CreateContainerResponse>, Status> {
        let v1::CreateContainerRequest { spec, request_id } = request.into_inner();
        let (local, request) = (Arc::clone(self.sources.local()?), named(&request_id)?);
        let spec = spec.unwrap_or_default();
        let read = |spec: &v1::RunSpec, state: &State| run::spec_of(spec, &Resolver(state));
        let made = on_and_on(async move { local.create(request, spec, read).await }).await?;
        let (container_id, name) = (made.id.to_string(), made.name);
        Ok(Response::new(v1::CreateContainerResponse { container_id, name, warnings: Vec::new() }))
    }

    async fn start(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Result<Response<v1::StartContainerResponse>, Status> {
        let v1::StartContainerRequest { container, request_id } = request.into_inner();
        let (local, own) = self.sources.only_own(&container).await?;
        let started = local.start(named(&request_id)?, own.id).await;
        started.map_err(own::not_started)?;
        Ok(Response::new(v1::StartContainerResponse { container_id: own.id.to_string() }))
    }

    async fn restart(
        &self,
        request: Request<v1::RestartContainerRequest>,
    ) -> Result<Response<v1::RestartContainerResponse>, Status> {
        let v1::RestartContainerRequest { container, grace, request_id } = request.into_inner();
        let grace = value::span("grace", grace.as_ref()).map_err(|error| invalid(&error))?;
        let (local, own) = self.sources.only_own(&container).await?;
        let restarted = local.restart(named(&request_id)?, own.id, grace).await;
        restarted.map_err(own::not_started)?;
        Ok(Response::new(v1::RestartContainerResponse { container_id: own.id.to_string() }))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Result<Response<v1::RemoveContainerResponse>, Status> {
        let v1::RemoveContainerRequest { container, force, request_id } = request.into_inner();
        let (local, own) = self.sources.only_own(&container).await?;
        let force = if force { Force::Yes } else { Force::No };
        local.remove(named(&request_id)?, own.id, force).await.map_err(own::status)?;
        Ok(Response::new(v1::RemoveContainerResponse { container_id: own.id.to_string() }))
    }

    async fn wait(
        &self,
        request: Request<v1::WaitContainerRequest>,
    ) -> Result<Response<v1::WaitContainerResponse>, Status> {
        let (local, own) = self.sources.only_own(&request.get_ref().container).await?;
        let (exit_code, error) = local.wait(own.id).await.map_err(own::status)?;
        Ok(Response::new(v1::WaitContainerResponse { exit_code, error }))
    }

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachContainerRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut requests = request.into_inner();
        let start = attach::first(&mut requests).await?;
        let (local, own) = self.sources.only_own(&start.container).await?;
        let place = local.attach(own.id, attach::config(&start)).await.map_err(own::status)?;
        Ok(Response::new(attach::serve(local, own.id, place, requests)))
    }

    async fn prune(
        &self,
        _: Request<v1::PruneContainersRequest>,
    ) -> Result<Response<v1::PruneContainersResponse>, Status> {
        let local = Arc::clone(self.sources.local()?);
        let removed = on_and_on(async move { local.prune().await }).await?;
        let removed = removed.iter().map(ToString::to_string).collect();
        Ok(Response::new(v1::PruneContainersResponse { removed }))
    }

    async fn connect_pair(
        &self,
        request: Request<v1::ConnectPairRequest>,
    ) -> Result<Response<v1::ConnectPairResponse>, Status> {
        let v1::ConnectPairRequest { containers, subnet, request_id } = request.into_inner();
        let pair: [String; 2] = containers
            .try_into()
            .map_err(|_| Status::invalid_argument("containers: a direct link has two ends"))?;
        let subnet =
            match subnet.as_str() {
                "" => None,
                text => Some(text.parse().map_err(|_| {
                    Status::invalid_argument(format!("subnet {text}: must be a CIDR"))
                })?),
            };
        let (local, request) = (Arc::clone(self.sources.local()?), named(&request_id)?);
        let laid = Arc::clone(&local);
        let cable =
            on_and_on(async move { laid.connect_pair(request, pair, subnet).await }).await?;
        let end = |end: &CableEnd| v1::PairEnd {
            container_id: end.container.to_string(),
            container_name: local.name_of(end.container),
            interface: end.ifname.clone(),
            address: end.address.to_string(),
        };
        Ok(Response::new(v1::ConnectPairResponse { ends: cable.ends.iter().map(end).collect() }))
    }
}

/// Does `work` to its end, whether or not its caller waits.
async fn on_and_on<T: Send + 'static>(
    work: impl Future<Output = Result<T, CallError>> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::spawn(work).await;
    done.map_err(|error| Status::internal(error.to_string()))?.map_err(own::status)
}

fn has_ended(found: &Found) -> bool {
    match found.status.phase {
        Phase::Exited(_) | Phase::Failed { .. } => true,
        Phase::Created | Phase::Starting | Phase::Running => false,
    }
}

/// A signal's number from the wire.
pub(super) fn signal(number: u32) -> Result<i32, Status> {
    match i32::try_from(number) {
        Ok(known) if (1..=SIGNAL_MAX).contains(&number) => Ok(known),
        Ok(_) | Err(_) => {
            let text = format!("signal {number}: must be a number from 1 to {SIGNAL_MAX}");
            Err(Status::invalid_argument(text))
        }
    }
}
