//! The networks of this node, as operators see and make them.

use std::{collections::BTreeMap, sync::Arc};

use tonic::{Request, Response, Status};
use weft_model::{Container, Network, NetworkId, State};
use weft_proto::{
    convert::{
        network::{local_spec_of, network as to_wire},
        run,
        status::{invalid, refused},
    },
    v1::{
        self, ConnectNetworkRequest, ConnectNetworkResponse, CreateNetworkRequest,
        CreateNetworkResponse, DisconnectNetworkRequest, DisconnectNetworkResponse,
        GetNetworkRequest, GetNetworkResponse, ListNetworksRequest, ListNetworksResponse,
        PruneNetworksRequest, PruneNetworksResponse, RemoveNetworkRequest, RemoveNetworkResponse,
        local_network_service_server::LocalNetworkService,
    },
};

use super::{
    Sources,
    own::{self, Resolver, named},
};
use crate::{
    desired::Sorted,
    local::{Local, of_container},
    worker::Worker,
};

/// See the module.
pub struct Networks {
    sources: Sources,
}

impl Networks {
    /// Of a worker.
    pub fn new(worker: &Worker) -> Self {
        Self { sources: worker.into() }
    }

    fn local(&self) -> Result<&Arc<Local>, Status> {
        self.sources.local()
    }
}

#[tonic::async_trait]
impl LocalNetworkService for Networks {
    async fn create(
        &self,
        request: Request<CreateNetworkRequest>,
    ) -> Result<Response<CreateNetworkResponse>, Status> {
        let CreateNetworkRequest { spec, request_id } = request.into_inner();
        let spec = local_spec_of(&spec.unwrap_or_default()).map_err(|error| invalid(&error))?;
        let (local, request) = (self.local()?, named(&request_id)?);
        let id = local.create_network(request, spec).await.map_err(own::status)?;
        let network = Some(shown(&local.state(), &id.to_string())?);
        Ok(Response::new(CreateNetworkResponse { network }))
    }

    async fn list(
        &self,
        _request: Request<ListNetworksRequest>,
    ) -> Result<Response<ListNetworksResponse>, Status> {
        let state = self.local()?.state();
        let networks = state.networks().map(|network| wire(&state, network)).collect();
        Ok(Response::new(ListNetworksResponse { networks }))
    }

    async fn get(
        &self,
        request: Request<GetNetworkRequest>,
    ) -> Result<Response<GetNetworkResponse>, Status> {
        let network = Some(shown(&self.local()?.state(), &request.get_ref().network)?);
        Ok(Response::new(GetNetworkResponse { network }))
    }

    async fn remove(
        &self,
        request: Request<RemoveNetworkRequest>,
    ) -> Result<Response<RemoveNetworkResponse>, Status> {
        let RemoveNetworkRequest { network, request_id } = request.into_inner();
        let removed = self.local()?.remove_network(named(&request_id)?, network).await;
        let network_id = removed.map_err(own::status)?;
        Ok(Response::new(RemoveNetworkResponse { network_id }))
    }

    async fn prune(
        &self,
        _request: Request<PruneNetworksRequest>,
    ) -> Result<Response<PruneNetworksResponse>, Status> {
        let removed = self.local()?.prune_networks().await.map_err(own::status)?;
        Ok(Response::new(PruneNetworksResponse { removed }))
    }

    async fn connect_container(
        &self,
        request: Request<ConnectNetworkRequest>,
    ) -> Result<Response<ConnectNetworkResponse>, Status> {
        let ConnectNetworkRequest { container, endpoint, request_id } = request.into_inner();
        let (local, request) = (Arc::clone(self.local()?), named(&request_id)?);
        let id = local.find(&container).map_err(|error| refused(&error))?.id;
        let endpoint = endpoint.unwrap_or_default();
        let read = |endpoint: &v1::EndpointSpec, state: &State| {
            run::endpoint_of(endpoint, &Resolver(state))
        };
        let of = Arc::clone(&local);
        // It goes on when its caller has gone: half of it is no use to anybody.
        let work = async move { of.connect(request, id, endpoint, read).await };
        let connected = tokio::spawn(work).await;
        let connected = connected.map_err(|error| Status::internal(error.to_string()))?;
        let network = connected.map_err(own::status)?;
        let (_, assignments) = self.sources.assigned.borrow().clone();
        let (state, sorted) = (local.state(), Sorted::new(&assignments));
        let network = state.container(id).and_then(|container| {
            own::network(container, container.endpoint_on(network)?, &state, &sorted)
        });
        Ok(Response::new(ConnectNetworkResponse { network }))
    }

    async fn disconnect_container(
        &self,
        request: Request<DisconnectNetworkRequest>,
    ) -> Result<Response<DisconnectNetworkResponse>, Status> {
        let DisconnectNetworkRequest { container, network, force: _, request_id } =
            request.into_inner();
        let (local, request) = (Arc::clone(self.local()?), named(&request_id)?);
        let container = local.find(&container).map_err(|error| refused(&error))?;
        let network = self.network_of(&local, &container, &network)?;
        let work = async move { local.disconnect(request, container.id, network).await };
        let done = tokio::spawn(work).await;
        done.map_err(|error| Status::internal(error.to_string()))?.map_err(own::status)?;
        Ok(Response::new(DisconnectNetworkResponse {}))
    }
}

impl Networks {
    /// The network that a word means to a container, of this node or of the cluster.
    fn network_of(
        &self,
        local: &Local,
        container: &Container,
        word: &str,
    ) -> Result<NetworkId, Status> {
        let (_, assignments) = self.sources.assigned.borrow().clone();
        let (state, sorted) = (local.state(), Sorted::new(&assignments));
        let mut all: BTreeMap<_, _> =
            container.endpoints.iter().map(|endpoint| (endpoint.spec.network, "")).collect();
        all.extend(sorted.networks.iter().map(|(id, network)| (*id, network.name.as_str())));
        all.extend(state.networks().map(|network| (network.id, network.spec.name.as_str())));
        let is_on = |id| container.endpoint_on(id).is_some();
        of_container(word, &all, is_on).map_err(|error| refused(&error))
    }
}

fn shown(state: &State, text: &str) -> Result<v1::Network, Status> {
    let network = state.network_named(text).map_err(|error| refused(&error))?;
    Ok(wire(state, network))
}

fn wire(state: &State, network: &Network) -> v1::Network {
    to_wire(state, network)
}
