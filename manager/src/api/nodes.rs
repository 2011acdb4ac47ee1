//! Nodes.

use tonic::{Request, Response, Status};
use weft_model::{
    Command, Node, Rotation, State,
    command::Force,
    spec::{NodeSpec, Role},
};
use weft_proto::{
    convert::{
        node::{availability_of, node as to_wire, role_of},
        status::invalid,
    },
    v1::{
        self, GetNodeRequest, GetNodeResponse, ListNodesRequest, ListNodesResponse, ManagerStatus,
        NodeLinksRequest, NodeLinksResponse, Reachability, RemoveNodeRequest, RemoveNodeResponse,
        RotateKeyRequest, RotateKeyResponse, UpdateNodeRequest, UpdateNodeResponse,
        node_service_server::NodeService,
    },
};

use super::{Api, origin_of, resolve};
use crate::{manager::named, store::Status as StoreStatus};

#[tonic::async_trait]
impl NodeService for Api {
    async fn list(
        &self,
        _request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        let manager = self.manager()?;
        let state = manager.current().await?;
        let status = manager.store().status();
        let nodes = state.nodes().map(|node| shown(node, &status)).collect();
        Ok(Response::new(ListNodesResponse { nodes }))
    }

    async fn get(
        &self,
        request: Request<GetNodeRequest>,
    ) -> Result<Response<GetNodeResponse>, Status> {
        let manager = self.manager()?;
        let asked = origin_of(&request)?.asked;
        let state = manager.current().await?;
        let node = resolve::node(&state, &request.get_ref().node, asked)?;
        let node = Some(shown(&node, &manager.store().status()));
        Ok(Response::new(GetNodeResponse { node }))
    }

    async fn update(
        &self,
        request: Request<UpdateNodeRequest>,
    ) -> Result<Response<UpdateNodeResponse>, Status> {
        let manager = self.manager()?;
        let asked = origin_of(&request)?.asked;
        let request = request.into_inner();
        let name = named(&request)?;
        let choice = |state: &State, _: &mut dyn crate::ids::IdSource| {
            let node = resolve::node(state, &request.node, asked)?;
            let expect = (request.version != 0).then_some(request.version);
            Ok(Command::UpdateNode { id: node.id, expect, spec: changed(&node.spec, &request)? })
        };
        let (id, state) = manager.decide(name, choice).await?;
        let node = resolve::node(&state, &id, None)?;
        let node = Some(shown(&node, &manager.store().status()));
        Ok(Response::new(UpdateNodeResponse { node }))
    }

    async fn remove(
        &self,
        request: Request<RemoveNodeRequest>,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        let manager = self.manager()?;
        let asked = origin_of(&request)?.asked;
        let name = named(request.get_ref())?;
        let RemoveNodeRequest { node, force, .. } = request.into_inner();
        let force = if force { Force::Yes } else { Force::No };
        let choice = |state: &State, _: &mut dyn crate::ids::IdSource| {
            Ok(Command::RemoveNode { id: resolve::node(state, &node, asked)?.id, force })
        };
        let (node_id, _) = manager.decide(name, choice).await?;
        Ok(Response::new(RemoveNodeResponse { node_id }))
    }

    async fn rotate_key(
        &self,
        request: Request<RotateKeyRequest>,
    ) -> Result<Response<RotateKeyResponse>, Status> {
        let manager = self.manager()?;
        let asked = origin_of(&request)?.asked;
        let name = named(request.get_ref())?;
        let RotateKeyRequest { node, .. } = request.into_inner();
        let choice = |state: &State, _: &mut dyn crate::ids::IdSource| {
            let id = resolve::node(state, &node, asked)?.id;
            // One that is going on goes on by itself: asking again changes nothing.
            let from = Rotation::Idle;
            Ok(Command::RotateKey { id, from })
        };
        let (id, state) = manager.decide(name, choice).await?;
        let node = resolve::node(&state, &id, None)?;
        let node = Some(shown(&node, &manager.store().status()));
        Ok(Response::new(RotateKeyResponse { node }))
    }

    async fn links(
        &self,
        _request: Request<NodeLinksRequest>,
    ) -> Result<Response<NodeLinksResponse>, Status> {
        Err(Status::unimplemented("the links of a node cannot be asked for yet"))
    }
}

/// The operator's words on a node with the changes that the request asks for.
fn changed(spec: &NodeSpec, request: &UpdateNodeRequest) -> Result<NodeSpec, Status> {
    let mut next = spec.clone();
    if let Some(wire) = request.availability {
        let given = availability_of(wire).map_err(|error| invalid(&error))?;
        next.availability = given.unwrap_or(next.availability);
    }
    if let Some(wire) = request.role {
        next.role = role_of(wire).map_err(|error| invalid(&error))?.unwrap_or(next.role);
    }
    for key in &request.label_rm {
        next.labels.remove(key);
    }
    next.labels.extend(request.label_add.clone());
    Ok(next)
}

/// A node for the wire, with how it does as a manager.
pub(super) fn shown(node: &Node, status: &StoreStatus) -> v1::Node {
    to_wire(node, (node.spec.role == Role::Manager).then(|| as_manager(node, status)))
}

fn as_manager(node: &Node, status: &StoreStatus) -> ManagerStatus {
    let leader = status.leadership.leader.as_ref();
    let leads = leader.is_some_and(|leader| leader.number == node.number);
    let refused = status.refusals.contains_key(&node.number);
    // The leader hears of every node by its session; of itself it knows without one.
    let reachable = !refused && (leads || node.in_touch());
    let reachability = if reachable { Reachability::Reachable } else { Reachability::Unreachable };
    ManagerStatus {
        leader: leads,
        reachability: reachability.into(),
        addr: node.description.address.to_string(),
        voter: status.voters.iter().any(|voter| voter.number == node.number),
    }
}
