//! The gRPC services: each call is converted, checked, decided on the state as it is, written, and
//! converted back.
//!
//! The handlers know nothing of roles, certificates or forwarding: the gate has seen to that before
//! they are called, and has left who called in the request's extensions.

mod choose;
pub mod cluster;
pub(crate) mod foreign;
pub(crate) mod history;
mod logs;
mod networks;
mod nodes;
mod raft;
mod resolve;
mod services;
mod tasks;
mod watch;

use tonic::{Request, Status, service::Routes};
use weft_proto::v1::{
    dispatcher_service_server::DispatcherServiceServer, join_service_server::JoinServiceServer,
    network_service_server::NetworkServiceServer, node_service_server::NodeServiceServer,
    raft_service_server::RaftServiceServer, service_service_server::ServiceServiceServer,
    task_service_server::TaskServiceServer, watch_service_server::WatchServiceServer,
};

use crate::{
    gate::{Caller, Origin},
    manager::{Manager, ManagerSlot},
};

/// All services of a manager. They find the manager of the moment in the slot.
#[derive(Clone)]
pub struct Api {
    slot: ManagerSlot,
}

/// Adds the services of a manager to `routes`, over whatever manager `slot` holds at each call. The
/// gate must stand before them.
pub fn add_services(routes: Routes, slot: ManagerSlot) -> Routes {
    let api = Api::new(slot);
    routes
        .add_service(NodeServiceServer::new(api.clone()))
        .add_service(NetworkServiceServer::new(api.clone()))
        .add_service(ServiceServiceServer::new(api.clone()))
        .add_service(TaskServiceServer::new(api.clone()))
        .add_service(WatchServiceServer::new(api.clone()))
        .add_service(JoinServiceServer::new(api.clone()))
        .add_service(RaftServiceServer::new(api.clone()))
        .add_service(DispatcherServiceServer::new(api))
}

impl Api {
    /// The services themselves, without a gate and a wire: what a simulation calls.
    pub fn new(slot: ManagerSlot) -> Self {
        Self { slot }
    }

    /// The manager of the moment. The gate has looked before; it may have stopped since.
    pub(crate) fn manager(&self) -> Result<Manager, Status> {
        let manager = self.slot.load_full();
        let manager = manager
            .ok_or_else(|| Status::failed_precondition("this node is not a manager any more"))?;
        Ok(Manager::clone(&manager))
    }
}

/// Who called, as the gate has found.
pub(crate) fn caller_of<T>(request: &Request<T>) -> Result<&Caller, Status> {
    // Without a gate nobody is let in.
    request.extensions().get().ok_or_else(|| Status::permission_denied("the caller is not known"))
}

/// Where a call came from, as the gate has found.
pub(crate) fn origin_of<T>(request: &Request<T>) -> Result<&Origin, Status> {
    request.extensions().get().ok_or_else(|| Status::permission_denied("the caller is not known"))
}
