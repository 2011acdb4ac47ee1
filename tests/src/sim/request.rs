//! What clients ask of managers: the calls of the public services, without the wire.

use tonic::{Code, Request, Status};
use weft_manager::{
    Manager, ManagerSlot,
    api::Api,
    gate::{Caller, Credential, Origin},
};
use weft_model::{
    AttachmentId, Command, Named, NodeId, Proposal, RequestId, command::NewNode, spec::Role,
};
use weft_proto::{
    convert::status::refused,
    v1::{
        AttachForeignRequest, CreateNetworkRequest, CreateServiceRequest, DetachForeignRequest,
        ForeignReadyRequest, GetServiceRequest, RemoveNetworkRequest, RemoveNodeRequest,
        RemoveServiceRequest, RollbackServiceRequest, RotateKeyRequest, Service, ServiceSpec,
        UpdateNodeRequest, UpdateServiceRequest, dispatcher_service_server::DispatcherService,
        network_service_server::NetworkService, node_service_server::NodeService,
        service_service_server::ServiceService,
    },
};

use super::net::{Answer, HostId, Net, Parcel};

/// A call.
#[derive(Clone, Debug)]
pub(super) enum Call {
    CreateNetwork(CreateNetworkRequest),
    RemoveNetwork(RemoveNetworkRequest),
    CreateService(CreateServiceRequest),
    UpdateService(UpdateServiceRequest),
    RemoveService(RemoveServiceRequest),
    GetService(GetServiceRequest),
    RollbackService(RollbackServiceRequest),
    UpdateNode(UpdateNodeRequest),
    RemoveNode(RemoveNodeRequest),
    RotateKey(RotateKeyRequest),
    Join { request: String, node: NewNode, secret: [u8; 16] },
    AttachForeign { node: NodeId, request: AttachForeignRequest },
    ForeignReady { node: NodeId, id: AttachmentId },
    DetachForeign { node: NodeId, id: AttachmentId },
}

/// What came of a call that was done.
#[derive(Clone, Debug)]
pub(super) enum Shown {
    Nothing,
    /// The service as it is now.
    Service(Box<ServiceSpec>),
    /// The number of a node that was let in.
    Number(u64),
}

/// What an asker gets.
pub(super) type Reply = Result<Shown, Status>;

/// A manager that takes a call and does not lead hands it on at most once.
const HOPS_MAX: u8 = 1;

/// Whether an answer leaves it open what happened.
pub(super) fn is_open(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::Aborted
    )
}

/// Takes a call at a manager, as the gate does: here if it leads, else at the leader.
pub(super) async fn take(
    (net, own): (Net, HostId),
    slot: ManagerSlot,
    (call, client, hops, body): (u64, HostId, u8, Call),
) {
    let answer = |reply| Parcel::Answer { call, answer: Answer::Api(reply) };
    let Some(manager) = slot.load_full() else {
        let reply = Err(Status::unavailable("the manager is just starting"));
        return net.send(own, client, answer(reply));
    };
    match leader(&manager, own).await {
        Some(host) if host == own => {
            let reply = perform(&manager, &Api::new(slot), body).await;
            net.send(own, client, answer(reply));
        }
        Some(host) if hops < HOPS_MAX => {
            net.send(own, host, Parcel::Api { call, client, hops: hops + 1, body });
        }
        Some(_) | None => {
            let reply = Err(Status::unavailable("nobody leads here"));
            net.send(own, client, answer(reply));
        }
    }
}

/// The host of the leader, once somebody leads.
pub(super) async fn leader(manager: &Manager, own: HostId) -> Option<HostId> {
    let mut leadership = manager.store().leadership();
    let known = leadership.wait_for(|now| now.is_leader() || now.leader.is_some());
    let known = tokio::time::timeout(super::LEADER_WAIT, known).await.ok()?.ok()?;
    if known.is_leader() {
        return Some(own);
    }
    super::host_at(&known.leader.as_ref()?.address)
}

async fn perform(manager: &Manager, api: &Api, call: Call) -> Reply {
    let nothing = Shown::Nothing;
    let service = |service: Option<Service>| {
        let spec = service.and_then(|service| service.spec);
        spec.map_or(Shown::Nothing, |spec| Shown::Service(Box::new(spec)))
    };
    match call {
        Call::CreateNetwork(request) => {
            NetworkService::create(api, Request::new(request)).await.map(|_| nothing)
        }
        Call::RemoveNetwork(request) => {
            NetworkService::remove(api, Request::new(request)).await.map(|_| nothing)
        }
        Call::CreateService(request) => {
            let made = ServiceService::create(api, Request::new(request)).await?;
            Ok(service(made.into_inner().service))
        }
        Call::UpdateService(request) => {
            let changed = ServiceService::update(api, Request::new(request)).await?;
            Ok(service(changed.into_inner().service))
        }
        Call::RollbackService(request) => {
            let changed = ServiceService::rollback(api, Request::new(request)).await?;
            Ok(service(changed.into_inner().service))
        }
        Call::RemoveService(request) => {
            ServiceService::remove(api, Request::new(request)).await.map(|_| nothing)
        }
        Call::GetService(request) => {
            let got = ServiceService::get(api, Request::new(request)).await?;
            Ok(service(got.into_inner().service))
        }
        Call::UpdateNode(request) => {
            NodeService::update(api, by_administrator(request)).await.map(|_| nothing)
        }
        Call::RemoveNode(request) => {
            NodeService::remove(api, by_administrator(request)).await.map(|_| nothing)
        }
        Call::RotateKey(request) => {
            NodeService::rotate_key(api, by_administrator(request)).await.map(|_| nothing)
        }
        Call::Join { request, node, secret } => join(manager, &request, node, secret).await,
        Call::AttachForeign { node, request } => {
            api.attach_foreign(from(manager, node, request)?).await.map(|_| nothing)
        }
        Call::ForeignReady { node, id } => {
            let request = ForeignReadyRequest { id: id.to_string() };
            api.foreign_ready(from(manager, node, request)?).await.map(|_| nothing)
        }
        Call::DetachForeign { node, id } => {
            let request = DetachForeignRequest { id: id.to_string() };
            api.detach_foreign(from(manager, node, request)?).await.map(|_| nothing)
        }
    }
}

/// A request over the socket of a manager's own machine.
fn by_administrator<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let origin = Origin { credential: Credential::Local, source: None, asked: None };
    request.extensions_mut().insert(origin);
    request
}

/// Lets a node in, without the certificates: what the state says of it is what counts here.
async fn join(manager: &Manager, request: &str, node: NewNode, secret: [u8; 16]) -> Reply {
    let id = node.id;
    let now = manager.view().now();
    let commands = vec![Command::AddNode { node, secret }];
    let request = RequestId::new(request).map(|id| Named { id, digest: None });
    let proposal = Proposal { request, now, commands };
    let written = manager.store().propose(proposal).await;
    let (_, outcome) = written.map_err(|error| Status::unavailable(error.to_string()))?;
    outcome.into_result().map_err(|error| refused(&error))?;
    let number = manager.view().node(id).map(|node| node.number);
    number.map(Shown::Number).ok_or_else(|| Status::failed_precondition("it was removed again"))
}

/// A request of a node, which the gate lets in if it is a member.
fn from<T>(manager: &Manager, node: NodeId, message: T) -> Result<Request<T>, Status> {
    let member = manager.view().node(node).cloned();
    let member = member.ok_or_else(|| Status::permission_denied("not a member"))?;
    let mut request = Request::new(message);
    request.extensions_mut().insert(match member.spec.role {
        Role::Manager => Caller::Manager(node),
        Role::Worker => Caller::Worker(node),
    });
    Ok(request)
}
