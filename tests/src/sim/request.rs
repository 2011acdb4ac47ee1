//! What clients ask of managers: the calls of the public services, without the wire.

use tonic::{Code, Request, Status};
use weft_manager::{Manager, ManagerSlot, api::Api, gate::Caller};
use weft_model::{AttachmentId, NodeId, spec::Role};
use weft_proto::v1::{
    AttachForeignRequest, CreateNetworkRequest, CreateServiceRequest, DetachForeignRequest,
    ForeignReadyRequest, GetServiceRequest, RemoveNetworkRequest, RemoveServiceRequest,
    ServiceSpec, UpdateServiceRequest, dispatcher_service_server::DispatcherService,
    network_service_server::NetworkService, service_service_server::ServiceService,
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
    AttachForeign { node: NodeId, request: AttachForeignRequest },
    ForeignReady { node: NodeId, id: AttachmentId },
    DetachForeign { node: NodeId, id: AttachmentId },
}

/// What came of it: the service's spec where there is one.
pub(super) type Reply = Result<Option<ServiceSpec>, Status>;

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
    match call {
        Call::CreateNetwork(request) => {
            NetworkService::create(api, Request::new(request)).await.map(|_| None)
        }
        Call::RemoveNetwork(request) => {
            NetworkService::remove(api, Request::new(request)).await.map(|_| None)
        }
        Call::CreateService(request) => {
            let made = ServiceService::create(api, Request::new(request)).await?;
            Ok(made.into_inner().service.and_then(|service| service.spec))
        }
        Call::UpdateService(request) => {
            let changed = ServiceService::update(api, Request::new(request)).await?;
            Ok(changed.into_inner().service.and_then(|service| service.spec))
        }
        Call::RemoveService(request) => {
            ServiceService::remove(api, Request::new(request)).await.map(|_| None)
        }
        Call::GetService(request) => {
            let got = ServiceService::get(api, Request::new(request)).await?;
            Ok(got.into_inner().service.and_then(|service| service.spec))
        }
        Call::AttachForeign { node, request } => {
            api.attach_foreign(from(manager, node, request)?).await.map(|_| None)
        }
        Call::ForeignReady { node, id } => {
            let request = ForeignReadyRequest { id: id.to_string() };
            api.foreign_ready(from(manager, node, request)?).await.map(|_| None)
        }
        Call::DetachForeign { node, id } => {
            let request = DetachForeignRequest { id: id.to_string() };
            api.detach_foreign(from(manager, node, request)?).await.map(|_| None)
        }
    }
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
