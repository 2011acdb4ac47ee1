//! The containers of this node, as operators see and steer them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, Semaphore, oneshot},
    task::JoinSet,
};
use tonic::{Code, Request, Response, Status, Streaming};
use weft_proto::{
    convert::{status::invalid, value},
    v1::{
        self, ContainerLogsRequest, ExecRequest, GetContainerRequest, GetContainerResponse,
        KillContainerRequest, KillContainerResponse, ListContainersRequest, ListContainersResponse,
        StopContainerRequest, StopContainerResponse, container_service_server::ContainerService,
    },
};

use super::{
    Sources, describe,
    exec::{self, Answers},
    logs::{self, Records},
    refusal,
};
use crate::{
    container::{ContainerId, DEFAULT_STOP_GRACE, Error, Found, Phase},
    desired::Sorted,
    worker::Worker,
};

/// Commands that `exec` may have running at the same time on one node.
const EXEC_SESSIONS_MAX: usize = 256;
/// Highest signal number of Linux (SIGRTMAX).
const SIGNAL_MAX: u32 = 64;

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
    type AttachStream =
        tokio_stream::wrappers::ReceiverStream<Result<v1::AttachContainerResponse, Status>>;

    async fn list(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        let all = request.into_inner().all;
        let found = self.sources.all().await?;
        let (_, assignments) = self.sources.assigned.borrow().clone();
        let sorted = Sorted::new(&assignments);
        let containers = found
            .iter()
            .filter(|found| all || !has_ended(found))
            .map(|found| describe::container(found, &sorted, &self.state_dir))
            .collect();
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn get(
        &self,
        request: Request<GetContainerRequest>,
    ) -> Result<Response<GetContainerResponse>, Status> {
        let found = self.sources.one(&request.into_inner().container).await?;
        let (_, assignments) = self.sources.assigned.borrow().clone();
        let sorted = Sorted::new(&assignments);
        let container = Some(describe::container(&found, &sorted, &self.state_dir));
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
        _: Request<v1::CreateContainerRequest>,
    ) -> Result<Response<v1::CreateContainerResponse>, Status> {
        Err(Status::unimplemented("create"))
    }

    async fn start(
        &self,
        _: Request<v1::StartContainerRequest>,
    ) -> Result<Response<v1::StartContainerResponse>, Status> {
        Err(Status::unimplemented("start"))
    }

    async fn restart(
        &self,
        _: Request<v1::RestartContainerRequest>,
    ) -> Result<Response<v1::RestartContainerResponse>, Status> {
        Err(Status::unimplemented("restart"))
    }

    async fn remove(
        &self,
        _: Request<v1::RemoveContainerRequest>,
    ) -> Result<Response<v1::RemoveContainerResponse>, Status> {
        Err(Status::unimplemented("remove"))
    }

    async fn wait(
        &self,
        _: Request<v1::WaitContainerRequest>,
    ) -> Result<Response<v1::WaitContainerResponse>, Status> {
        Err(Status::unimplemented("wait"))
    }

    async fn attach(
        &self,
        _: Request<Streaming<v1::AttachContainerRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("attach"))
    }

    async fn prune(
        &self,
        _: Request<v1::PruneContainersRequest>,
    ) -> Result<Response<v1::PruneContainersResponse>, Status> {
        Err(Status::unimplemented("prune"))
    }

    async fn connect_pair(
        &self,
        _: Request<v1::ConnectPairRequest>,
    ) -> Result<Response<v1::ConnectPairResponse>, Status> {
        Err(Status::unimplemented("connect_pair"))
    }
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
