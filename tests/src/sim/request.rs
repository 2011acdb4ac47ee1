//! What clients ask of managers: the calls of the public services, without the wire.

use tonic::{Code, Request, Status};
use weft_manager::{Manager, ManagerSlot, api::Api};
use weft_proto::v1::{
    CreateNetworkRequest, CreateServiceRequest, GetServiceRequest, RemoveNetworkRequest,
    RemoveServiceRequest, ServiceSpec, UpdateServiceRequest,
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
            let reply = perform(&Api::new(slot), body).await;
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

async fn perform(api: &Api, call: Call) -> Reply {
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
    }
}
