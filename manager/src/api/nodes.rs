//! Nodes.

use std::time::Duration;

use tonic::{Code, Request, Response, Status};
use weft_model::{
    Command, Node, Rotation, State,
    command::Force,
    spec::{NodeSpec, Role},
    tunnel::{WIREGUARD_PORT, tunnel_ports},
};
use weft_proto::{
    convert::{
        node::{availability_of, node as to_wire, role_of},
        status::{hinted, invalid},
    },
    v1::{
        self, AgentLinksRequest, GetNodeRequest, GetNodeResponse, ListNodesRequest,
        ListNodesResponse, ManagerStatus, NodeLinksRequest, NodeLinksResponse, Reachability,
        RemoveNodeRequest, RemoveNodeResponse, RotateKeyRequest, RotateKeyResponse,
        UpdateNodeRequest, UpdateNodeResponse, agent_service_client::AgentServiceClient,
        node_service_server::NodeService,
    },
};

use super::{Api, origin_of, resolve};
use crate::{
    controller::keys,
    manager::{Manager, named},
    store::Status as StoreStatus,
};

/// How long a node may take to say how its links are.
const LINKS_WAIT: Duration = Duration::from_secs(5);

#[tonic::async_trait]
impl NodeService for Api {
    async fn list(
        &self,
        _request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        let manager = self.manager()?;
        let state = manager.current().await?;
        let status = manager.store().status();
        let nodes = state.nodes().map(|node| shown(&state, node, &status)).collect();
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
        let node = Some(in_detail(&manager, &state, &node));
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
        let node = Some(in_detail(&manager, &state, &node));
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
            let id = match resolve::node(state, &node, asked) {
                Ok(found) => found.id,
                // One that was removed before may still hold addresses.
                Err(status) if force == Force::Yes => {
                    resolve::removed_node(state, &node).map_err(|_| status)?.id
                }
                Err(status) => return Err(status),
            };
            Ok(Command::RemoveNode { id, force })
        };
        let (node_id, state) = manager.decide(name, choice).await?;
        let held = node_id.parse().map_or(0, |id| state.addresses_held_at(id));
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        Ok(Response::new(RemoveNodeResponse { node_id, held }))
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
            let node = resolve::node(state, &node, asked)?;
            let generation = node.tunnel.as_ref().map_or(0, |tunnel| tunnel.current.generation);
            // One that is going on goes on by itself: asking again changes nothing.
            Ok(Command::RotateKey { id: node.id, generation, from: Rotation::Idle })
        };
        let (id, state) = manager.decide(name, choice).await?;
        let node = resolve::node(&state, &id, None)?;
        let node = Some(in_detail(&manager, &state, &node));
        Ok(Response::new(RotateKeyResponse { node }))
    }

    async fn links(
        &self,
        request: Request<NodeLinksRequest>,
    ) -> Result<Response<NodeLinksResponse>, Status> {
        let manager = self.manager()?;
        let asked = origin_of(&request)?.asked;
        let state = manager.current().await?;
        let node = resolve::node(&state, &request.get_ref().node, asked)?;
        links(&manager, &node).await.map(Response::new)
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

/// The encrypted links of a node, as it says itself.
async fn links(manager: &Manager, node: &Node) -> Result<NodeLinksResponse, Status> {
    let name = &node.description.hostname;
    let silent = |why: &str| {
        let hint = format!("see if it is there: weft node inspect {name}");
        hinted(Code::Unavailable, format!("node {name} cannot be asked: {why}"), Some(&hint))
    };
    if !node.in_touch() {
        return Err(silent(&format!("it is {}, {}", node.state.word(), node.message)));
    }
    let channel = manager.core.channels.node(&node.description.address.to_string(), node.id);
    let mut client = AgentServiceClient::new(channel.map_err(|error| silent(&error.to_string()))?);
    match tokio::time::timeout(LINKS_WAIT, client.links(AgentLinksRequest {})).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) if status.code() == Code::Unavailable => Err(silent(status.message())),
        Ok(Err(status)) => {
            Err(Status::new(status.code(), format!("node {name}: {}", status.message())))
        }
        Err(_) => Err(silent(&format!("no answer for {LINKS_WAIT:?}"))),
    }
}

/// A node for the wire, with how it does as a manager, and its first port of WireGuard.
pub(super) fn shown(state: &State, node: &Node, status: &StoreStatus) -> v1::Node {
    let mut wire =
        to_wire(node, (node.spec.role == Role::Manager).then(|| as_manager(node, status)));
    if let Some(tunnel) = &mut wire.tunnel {
        let base = state.cluster().map_or(WIREGUARD_PORT, |cluster| cluster.spec.wireguard_port);
        let ports = tunnel_ports(base, 1, tunnel.generation);
        tunnel.port = ports.first().copied().map_or(0, u32::from);
    }
    wire
}

/// The same with the names of those its rotation waits for, whom only the leader knows.
fn in_detail(manager: &Manager, state: &State, node: &Node) -> v1::Node {
    let mut wire = shown(state, node, &manager.store().status());
    if let Some(tunnel) = &mut wire.tunnel {
        let waiting = keys::waits_for(state, &manager.core.sessions.all_applied(), node);
        let names = waiting.iter().filter_map(|id| state.node(*id));
        tunnel.waiting_for = names.map(|node| node.description.hostname.clone()).collect();
    }
    wire
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
        raft_incarnation: node.raft_incarnation.clone().unwrap_or_default(),
    }
}
