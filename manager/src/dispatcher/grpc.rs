//! Sessions on the wire.

use std::{net::IpAddr, sync::Arc};

use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use weft_model::{Command, NodeId, spec::Role};
use weft_proto::{
    convert::{
        node::{description_of, role},
        session::{Reports, tunnel_from_wire},
        status::{hinted, invalid, not_member, refused},
    },
    v1::{
        AttachForeignRequest, AttachForeignResponse, DetachForeignRequest, DetachForeignResponse,
        ForeignReadyRequest, ForeignReadyResponse, LeaveClusterRequest, LeaveClusterResponse,
        ManagerPeer, SessionRequest, SessionResponse, dispatcher_service_server::DispatcherService,
        session_request, session_response,
    },
};

use super::{FromWorker, Hello, SessionEnd, ToWorker, Welcome};
use crate::{
    api::{Api, caller_of, foreign, origin_of},
    manager::{Core, Manager, write_failed},
};

/// Messages of a worker that wait for their turn; more wait in its connection.
const INBOUND_MAX: usize = 64;
/// Messages to a worker that wait to be taken.
const OUTBOUND_MAX: usize = 16;
/// Longest boot ID that is kept.
const BOOT_ID_MAX: usize = 64;

type Answers = ReceiverStream<Result<SessionResponse, Status>>;

#[tonic::async_trait]
impl DispatcherService for Api {
    type SessionStream = Answers;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let manager = self.manager()?;
        let node = calling_node(&request)?;
        let seen_from = origin_of(&request)?.source;
        let (sender, answers) = mpsc::channel(OUTBOUND_MAX);
        let core = Arc::clone(&manager.core);
        manager.spawn(run(core, node, seen_from, request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn leave(
        &self,
        request: Request<LeaveClusterRequest>,
    ) -> Result<Response<LeaveClusterResponse>, Status> {
        let manager = self.manager()?;
        let id = calling_node(&request)?;
        leave(&manager, id).await?;
        Ok(Response::new(LeaveClusterResponse {}))
    }

    async fn attach_foreign(
        &self,
        request: Request<AttachForeignRequest>,
    ) -> Result<Response<AttachForeignResponse>, Status> {
        let manager = self.manager()?;
        let caller = caller_of(&request)?.clone();
        let node = calling_node(&request)?;
        foreign::attach(&manager, &caller, node, request.get_ref()).await?;
        Ok(Response::new(AttachForeignResponse {}))
    }

    async fn foreign_ready(
        &self,
        request: Request<ForeignReadyRequest>,
    ) -> Result<Response<ForeignReadyResponse>, Status> {
        let manager = self.manager()?;
        let node = calling_node(&request)?;
        let id = foreign::id_of(&request.get_ref().id)?;
        manager.core.write(vec![Command::ForeignReady { node, id }]).await?;
        Ok(Response::new(ForeignReadyResponse {}))
    }

    async fn detach_foreign(
        &self,
        request: Request<DetachForeignRequest>,
    ) -> Result<Response<DetachForeignResponse>, Status> {
        let manager = self.manager()?;
        let node = calling_node(&request)?;
        let id = foreign::id_of(&request.get_ref().id)?;
        manager.core.write(vec![Command::DetachForeign { node, id }]).await?;
        Ok(Response::new(DetachForeignResponse {}))
    }
}

/// Takes a node's word that nothing of the cluster is on it any more. A manager must be demoted first:
/// its vote counts.
async fn leave(manager: &Manager, id: NodeId) -> Result<(), Status> {
    let state = manager.current().await?;
    if let Some(node) = state.node(id).filter(|node| node.spec.role == Role::Manager) {
        let hint = format!("on another manager: weft node demote {}", node.description.hostname);
        let message = format!("node {} is a manager", node.description.hostname);
        return Err(hinted(Code::FailedPrecondition, message, Some(&hint)));
    }
    manager.core.sessions.close(id);
    Ok(manager.core.write(vec![Command::NodeCleared { id }]).await?)
}

fn calling_node<T>(request: &Request<T>) -> Result<NodeId, Status> {
    caller_of(request)?.node().ok_or_else(|| Status::permission_denied("only a node has a session"))
}

/// One session on the wire.
async fn run(
    core: Arc<Core>,
    node: NodeId,
    seen_from: Option<IpAddr>,
    requests: Streaming<SessionRequest>,
    answers: mpsc::Sender<Result<SessionResponse, Status>>,
) {
    let (to_desk, inbound) = mpsc::channel(INBOUND_MAX);
    let (outbound, from_desk) = mpsc::channel(OUTBOUND_MAX);
    let status = tokio::select! {
        end = core.session(node, inbound, outbound) => status_of(&end),
        status = read(requests, to_desk) => status,
        () = write(from_desk, seen_from, &answers) => None,
    };
    if let Some(status) = status {
        tracing::debug!(node = %node.short(), code = %status.code(), reason = status.message(), "session ended");
        // Nobody may be listening any more.
        let _ = answers.send(Err(status)).await;
    }
}

/// Hands on what the worker says, until it says something that cannot be read. When it hangs up the
/// desk notices.
async fn read(
    mut requests: Streaming<SessionRequest>,
    to_desk: mpsc::Sender<FromWorker>,
) -> Option<Status> {
    while let Some(request) = requests.next().await {
        let message = match request.and_then(|request| message_of(&request)) {
            Ok(message) => message,
            Err(status) => return Some(status),
        };
        if to_desk.send(message).await.is_err() {
            return None;
        }
    }
    None
}

async fn write(
    mut from_desk: mpsc::Receiver<ToWorker>,
    seen_from: Option<IpAddr>,
    answers: &mpsc::Sender<Result<SessionResponse, Status>>,
) {
    while let Some(message) = from_desk.recv().await {
        if answers.send(Ok(answer(message, seen_from))).await.is_err() {
            return;
        }
    }
    // The desk has gone and says why itself.
    std::future::pending().await
}

fn message_of(request: &SessionRequest) -> Result<FromWorker, Status> {
    use session_request::Request as Wire;
    match &request.request {
        Some(Wire::Hello(hello)) => Ok(FromWorker::Hello(hello_of(hello)?)),
        Some(Wire::Heartbeat(_)) => Ok(FromWorker::Heartbeat),
        Some(Wire::Applied(applied)) => Ok(FromWorker::Applied(applied.revision)),
        Some(Wire::Reports(bytes)) => Reports::from_wire(bytes)
            .map(FromWorker::Reports)
            .map_err(|error| Status::invalid_argument(format!("{error}: {}", error.source))),
        Some(Wire::Tunnel(bytes)) => tunnel_from_wire(bytes)
            .map(FromWorker::Tunnel)
            .map_err(|error| Status::invalid_argument(format!("{error}: {}", error.source))),
        None => Err(Status::invalid_argument("a message of a kind this version does not know")),
    }
}

fn hello_of(hello: &session_request::Hello) -> Result<Hello, Status> {
    let missing = || Status::invalid_argument("the hello has no description");
    let description = hello.description.as_ref().ok_or_else(missing)?;
    if hello.boot_id.is_empty() || hello.boot_id.len() > BOOT_ID_MAX {
        let message = format!("the boot ID must have 1 to {BOOT_ID_MAX} characters");
        return Err(Status::invalid_argument(message));
    }
    let incarnation = Some(hello.raft_incarnation.clone()).filter(|text| !text.is_empty());
    Ok(Hello {
        description: description_of(description).map_err(|error| invalid(&error))?,
        boot_id: hello.boot_id.clone(),
        raft_incarnation: incarnation,
    })
}

fn answer(message: ToWorker, seen_from: Option<IpAddr>) -> SessionResponse {
    use session_response::Response as Wire;
    let response = match message {
        ToWorker::Welcome(welcome) => Wire::Welcome(welcome_to_wire(&welcome, seen_from)),
        ToWorker::Assignments(update) => Wire::Assignments(update.to_wire()),
        ToWorker::ReportsTaken(number) => Wire::ReportsTaken(number),
    };
    SessionResponse { response: Some(response) }
}

fn welcome_to_wire(welcome: &Welcome, seen_from: Option<IpAddr>) -> session_response::Welcome {
    session_response::Welcome {
        heartbeat_ms: u32::try_from(welcome.heartbeat.as_millis()).unwrap_or(u32::MAX),
        managers: welcome.managers.iter().map(manager_peer).collect(),
        role: role(welcome.role).into(),
        seen_from: seen_from.map(|ip| ip.to_canonical().to_string()).unwrap_or_default(),
    }
}

/// A manager as nodes are told of it.
pub(crate) fn manager_peer((number, node, address): &(u64, NodeId, String)) -> ManagerPeer {
    ManagerPeer { number: *number, node_id: node.to_string(), addr: address.clone() }
}

/// What the worker is told about the end; nothing if it ended itself.
fn status_of(end: &SessionEnd) -> Option<Status> {
    Some(match end {
        SessionEnd::Closed => return None,
        SessionEnd::NoHello => Status::invalid_argument(end.to_string()),
        SessionEnd::Replaced { .. } => Status::aborted(end.to_string()),
        SessionEnd::NotMember { .. } => not_member(end.to_string()),
        SessionEnd::Lagging { .. } => Status::resource_exhausted(end.to_string()),
        SessionEnd::Refused(rejected) => refused(rejected),
        SessionEnd::Store(error) => write_failed(error),
        SessionEnd::Deposed | SessionEnd::Stopped => Status::unavailable(end.to_string()),
    })
}
