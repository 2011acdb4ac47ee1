//! Networks.

use tonic::{Request, Response, Status};
use weft_model::{Command, NetworkId, Rejected, State};
use weft_proto::{
    convert::{
        network::{network as to_wire, spec_of},
        status::{invalid, refused},
    },
    v1::{
        CreateNetworkRequest, CreateNetworkResponse, GetNetworkRequest, GetNetworkResponse,
        ListNetworksRequest, ListNetworksResponse, PruneNetworksRequest, PruneNetworksResponse,
        RemoveNetworkRequest, RemoveNetworkResponse, network_service_server::NetworkService,
    },
};

use super::{Api, choose, resolve};
use crate::manager::named;

#[tonic::async_trait]
impl NetworkService for Api {
    async fn create(
        &self,
        request: Request<CreateNetworkRequest>,
    ) -> Result<Response<CreateNetworkResponse>, Status> {
        let manager = self.manager()?;
        let name = named(request.get_ref())?;
        let CreateNetworkRequest { spec, .. } = request.into_inner();
        let spec = spec_of(&spec.unwrap_or_default()).map_err(|error| invalid(&error))?;
        spec.check().map_err(|error| invalid(&error))?;
        let choice = |state: &State, ids: &mut dyn crate::ids::IdSource| {
            let id = NetworkId::from_bytes(ids.bytes());
            // A name that is taken is the clearer refusal than a subnet that overlaps.
            state.refuse_taken(id, &spec).map_err(|error| refused(&error))?;
            let cluster = cluster(state)?;
            let vni = (!spec.on_segment()).then(|| choose::vni(state, &cluster)).transpose();
            let vni = vni.map_err(|error| refused(&error))?;
            let subnets =
                choose::subnets(state, &cluster, &spec).map_err(|error| refused(&error))?;
            Ok(Command::CreateNetwork { id, spec: spec.clone(), vni, subnets })
        };
        let (id, state) = manager.decide(name, choice).await?;
        let network = resolve::network(&state, &id)?;
        Ok(Response::new(CreateNetworkResponse { network: Some(to_wire(&state, &network)) }))
    }

    async fn list(
        &self,
        _request: Request<ListNetworksRequest>,
    ) -> Result<Response<ListNetworksResponse>, Status> {
        let state = self.manager()?.current().await?;
        let networks = state.networks().map(|network| to_wire(&state, network)).collect();
        Ok(Response::new(ListNetworksResponse { networks }))
    }

    async fn get(
        &self,
        request: Request<GetNetworkRequest>,
    ) -> Result<Response<GetNetworkResponse>, Status> {
        let state = self.manager()?.current().await?;
        let network = resolve::network(&state, &request.get_ref().network)?;
        Ok(Response::new(GetNetworkResponse { network: Some(to_wire(&state, &network)) }))
    }

    async fn remove(
        &self,
        request: Request<RemoveNetworkRequest>,
    ) -> Result<Response<RemoveNetworkResponse>, Status> {
        let manager = self.manager()?;
        let name = named(request.get_ref())?;
        let RemoveNetworkRequest { network, .. } = request.into_inner();
        let choice = |state: &State, _: &mut dyn crate::ids::IdSource| {
            Ok(Command::RemoveNetwork { id: resolve::network(state, &network)?.id })
        };
        let (network_id, _) = manager.decide(name, choice).await?;
        Ok(Response::new(RemoveNetworkResponse { network_id }))
    }

    /// Removes what nobody uses, as one write; what a task has joined meanwhile stays. A retry gets
    /// the same networks, by their IDs: their names are gone with them.
    async fn prune(
        &self,
        request: Request<PruneNetworksRequest>,
    ) -> Result<Response<PruneNetworksResponse>, Status> {
        let manager = self.manager()?;
        let unused = |state: &State| {
            let unused = state.networks().filter(|n| state.network_users(n.id).is_empty());
            unused.map(|network| Command::RemoveNetwork { id: network.id }).collect()
        };
        let name = named(request.get_ref())?;
        let (outcome, before) = manager.core.decide_each(name, unused).await?;
        let mut removed = Vec::new();
        for result in outcome.results {
            match result {
                Ok(applied) => removed.push(name_of(&before, applied.id)),
                Err(error) if is_overtaken(&error) => {}
                Err(error) => return Err(refused(&error)),
            }
        }
        Ok(Response::new(PruneNetworksResponse { removed }))
    }
}

/// The name of a network in this state, or the ID of one that is not in it.
fn name_of(state: &State, id: String) -> String {
    let found = id.parse().ok().and_then(|id| state.network(id));
    found.map_or(id, |network| network.spec.name.clone())
}

/// Somebody has come to use the network, or has removed it.
fn is_overtaken(error: &Rejected) -> bool {
    matches!(error, Rejected::InUse { .. } | Rejected::NotFound { .. })
}

/// The cluster, which every state has but the very first.
pub(super) fn cluster(state: &State) -> Result<std::sync::Arc<weft_model::Cluster>, Status> {
    let missing = || Status::unavailable("the cluster is just being made");
    state.cluster().cloned().ok_or_else(missing)
}
