//! Services.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tonic::{Code, Request, Response, Status};
use weft_model::{
    Command, Service, ServiceId, State,
    command::UpdateKind,
    spec::{Invalid, ServiceSpec},
};
use weft_proto::{
    convert::{
        service::{service as to_wire, spec_of},
        status::{hinted, invalid, refused},
    },
    v1::{
        self, CreateServiceRequest, CreateServiceResponse, GetServiceRequest, GetServiceResponse,
        ListServicesRequest, ListServicesResponse, RemoveServiceRequest, RemoveServiceResponse,
        RollbackServiceRequest, RollbackServiceResponse, ServiceLogsRequest, UpdateServiceRequest,
        UpdateServiceResponse, service_service_server::ServiceService,
    },
};

use super::{Api, logs, resolve};
use crate::{ids::IdSource, manager::named};

#[tonic::async_trait]
impl ServiceService for Api {
    type LogsStream = logs::Lines;

    async fn create(
        &self,
        request: Request<CreateServiceRequest>,
    ) -> Result<Response<CreateServiceResponse>, Status> {
        let manager = self.manager()?;
        let name = named(request.get_ref())?;
        let CreateServiceRequest { spec, .. } = request.into_inner();
        let wire = spec.unwrap_or_default();
        let choice = |state: &State, ids: &mut dyn IdSource| {
            let spec = Arc::new(read(state, &wire)?);
            let vips = state.choose_vips(&spec, &BTreeMap::new());
            let vips = vips.map_err(|error| refused(&error))?;
            let id = ServiceId::from_bytes(ids.bytes());
            Ok(Command::CreateService { id, spec, vips })
        };
        let (id, state) = manager.decide(name, choice).await?;
        let service = Some(shown(&state, &id)?);
        Ok(Response::new(CreateServiceResponse { service }))
    }

    async fn list(
        &self,
        _request: Request<ListServicesRequest>,
    ) -> Result<Response<ListServicesResponse>, Status> {
        let state = self.manager()?.current().await?;
        let services = state.services().map(|service| to_wire(&state, service)).collect();
        Ok(Response::new(ListServicesResponse { services }))
    }

    async fn get(
        &self,
        request: Request<GetServiceRequest>,
    ) -> Result<Response<GetServiceResponse>, Status> {
        let state = self.manager()?.current().await?;
        let service = Some(shown(&state, &request.get_ref().service)?);
        Ok(Response::new(GetServiceResponse { service }))
    }

    async fn update(
        &self,
        request: Request<UpdateServiceRequest>,
    ) -> Result<Response<UpdateServiceResponse>, Status> {
        let manager = self.manager()?;
        let request = request.into_inner();
        let name = named(&request)?;
        let wire = request.spec.clone().unwrap_or_default();
        let choice = |state: &State, _: &mut dyn IdSource| {
            let service = resolve::service(state, &request.service)?;
            let mut spec = read(state, &wire)?;
            spec.force_update = service.spec.force_update + u64::from(request.force);
            let expect = (request.version != 0).then_some(request.version);
            update(state, &service, spec, expect, UpdateKind::Update)
        };
        let (id, state) = manager.decide(name, choice).await?;
        let service = Some(shown(&state, &id)?);
        Ok(Response::new(UpdateServiceResponse { service }))
    }

    async fn rollback(
        &self,
        request: Request<RollbackServiceRequest>,
    ) -> Result<Response<RollbackServiceResponse>, Status> {
        let manager = self.manager()?;
        let name = named(request.get_ref())?;
        let RollbackServiceRequest { service, .. } = request.into_inner();
        let choice = |state: &State, _: &mut dyn IdSource| {
            let service = resolve::service(state, &service)?;
            let previous = service.previous.as_deref().ok_or_else(|| {
                let message = format!("service {} has no previous spec", service.spec.name);
                hinted(Code::FailedPrecondition, message, Some("it was never updated"))
            })?;
            let version = Some(service.meta.version);
            update(state, &service, previous.clone(), version, UpdateKind::Rollback)
        };
        let (id, state) = manager.decide(name, choice).await?;
        let service = Some(shown(&state, &id)?);
        Ok(Response::new(RollbackServiceResponse { service }))
    }

    async fn remove(
        &self,
        request: Request<RemoveServiceRequest>,
    ) -> Result<Response<RemoveServiceResponse>, Status> {
        let manager = self.manager()?;
        let name = named(request.get_ref())?;
        let RemoveServiceRequest { service, .. } = request.into_inner();
        let choice = |state: &State, _: &mut dyn IdSource| {
            Ok(Command::RemoveService { id: resolve::service(state, &service)?.id })
        };
        let (service_id, _) = manager.decide(name, choice).await?;
        Ok(Response::new(RemoveServiceResponse { service_id }))
    }

    async fn logs(
        &self,
        request: Request<ServiceLogsRequest>,
    ) -> Result<Response<logs::Lines>, Status> {
        let manager = self.manager()?;
        let state = manager.current().await?;
        Ok(Response::new(logs::gather(&manager, &state, &request.into_inner())?))
    }
}

/// A service for the wire, by name, ID or prefix.
fn shown(state: &State, text: &str) -> Result<v1::Service, Status> {
    let service = resolve::service(state, text)?;
    Ok(to_wire(state, &service))
}

/// The user's words, with the networks found and every field checked.
fn read(state: &State, wire: &v1::ServiceSpec) -> Result<ServiceSpec, Status> {
    let spec = spec_of(wire, |text| {
        resolve::network(state, text).map(|network| network.id).map_err(Wrong::Name)
    });
    let spec = spec.map_err(|wrong| match wrong {
        Wrong::Field(error) => invalid(&error),
        Wrong::Name(status) => status,
    })?;
    refuse_twice(state, &spec).map_err(|error| invalid(&error))?;
    spec.check().map_err(|error| invalid(&error))?;
    Ok(spec)
}

/// The check of a spec knows networks by their IDs; the user gave names.
fn refuse_twice(state: &State, spec: &ServiceSpec) -> Result<(), Invalid> {
    let mut seen = BTreeSet::new();
    for id in spec.networks.iter().map(|usage| usage.network) {
        if !seen.insert(id) {
            let name =
                state.network(id).map_or_else(|| id.short(), |found| found.spec.name.clone());
            return Err(Invalid::new("--network", name, "is given twice"));
        }
    }
    Ok(())
}

/// What can be wrong with the user's words.
enum Wrong {
    Field(Invalid),
    Name(Status),
}

impl From<Invalid> for Wrong {
    fn from(error: Invalid) -> Self {
        Self::Field(error)
    }
}

fn update(
    state: &State,
    service: &Service,
    spec: ServiceSpec,
    expect: Option<u64>,
    kind: UpdateKind,
) -> Result<Command, Status> {
    let vips = state.choose_vips(&spec, &service.vips).map_err(|error| refused(&error))?;
    Ok(Command::UpdateService { id: service.id, expect, spec: Arc::new(spec), vips, kind })
}
