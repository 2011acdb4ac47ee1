//! Services.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{State, expect_version, not_found};
use crate::{
    command::{Applied, UpdateKind},
    id::{NetworkId, ServiceId},
    object::{Meta, Service, UpdateState, UpdateStatus},
    rejected::Rejected,
    spec::{EndpointMode, Invalid, ServiceSpec},
    task_state::Desired,
};

type Vips = BTreeMap<NetworkId, Vec<IpAddr>>;

impl State {
    pub(super) fn create_service(
        &mut self,
        id: ServiceId,
        spec: &Arc<ServiceSpec>,
        vips: &Vips,
    ) -> Result<Applied, Rejected> {
        self.has_cluster()?;
        self.check_service(None, spec)?;
        if self.services.contains_key(&id) {
            return Err(self.service_exists(id, &spec.name));
        }
        self.take_vips(spec, &Vips::new(), vips)?;
        let service = Service {
            id,
            meta: Meta::new(self.now),
            spec: Arc::clone(spec),
            previous: None,
            spec_version: 1,
            vips: vips.clone(),
            update: None,
        };
        self.services.insert_mut(id, Arc::new(service));
        Ok(Applied::of(id))
    }

    pub(super) fn update_service(
        &mut self,
        id: ServiceId,
        expect: Option<u64>,
        spec: &Arc<ServiceSpec>,
        vips: &Vips,
        kind: UpdateKind,
    ) -> Result<Applied, Rejected> {
        let service = self.service(id).ok_or_else(|| not_found("service", id))?.clone();
        expect_version("service", &service.spec.name, expect, service.meta.version)?;
        self.check_service(Some(&service), spec)?;
        self.take_vips(spec, &service.vips, vips)?;
        let mut next = Service::clone(&service);
        next.meta.touch(self.now);
        next.previous = Some(Arc::clone(&service.spec));
        next.spec = Arc::clone(spec);
        next.vips = vips.clone();
        if !service.spec.makes_same_tasks(spec) {
            next.spec_version = next.meta.version;
            let (state, message) = match kind {
                UpdateKind::Update => (UpdateState::Updating, "update in progress"),
                UpdateKind::Rollback => (UpdateState::RollbackStarted, "rollback in progress"),
            };
            let message = message.to_owned();
            next.update = Some(UpdateStatus { state, started: self.now, completed: None, message });
        }
        self.services.insert_mut(id, Arc::new(next));
        self.rest_vips(&service.vips, vips);
        Ok(Applied::of(id))
    }

    pub(super) fn set_update_status(
        &mut self,
        id: ServiceId,
        expect: Option<u64>,
        status: &UpdateStatus,
    ) -> Result<Applied, Rejected> {
        let service = self.service(id).ok_or_else(|| not_found("service", id))?;
        expect_version("spec of service", &service.spec.name, expect, service.spec_version)?;
        let mut next = Service::clone(service);
        next.update = Some(status.clone());
        next.meta.touch(self.now);
        self.services.insert_mut(id, Arc::new(next));
        Ok(Applied::of(id))
    }

    pub(super) fn remove_service(&mut self, id: ServiceId) -> Result<Applied, Rejected> {
        let service = self.service(id).ok_or_else(|| not_found("service", id))?.clone();
        let tasks: Vec<_> = self.tasks_of(id).map(|task| task.id).collect();
        for task in tasks {
            self.stop(task, Desired::Remove)?;
        }
        self.services.remove_mut(&id);
        self.bereave_foreigners(id);
        self.rest_vips(&service.vips, &Vips::new());
        Ok(Applied::of(id))
    }

    fn check_service(&self, present: Option<&Service>, spec: &ServiceSpec) -> Result<(), Rejected> {
        spec.check()?;
        let own = present.map(|service| service.id);
        let other = self
            .services()
            .find(|s| Some(s.id) != own && s.spec.name.eq_ignore_ascii_case(&spec.name));
        if let Some(other) = other {
            return Err(self.service_exists(other.id, &spec.name));
        }
        if let Some(present) = present {
            if present.spec.name != spec.name {
                let reason = "a service cannot be renamed";
                return Err(Invalid::new("--name", &spec.name, reason).into());
            }
            let same =
                std::mem::discriminant(&present.spec.mode) == std::mem::discriminant(&spec.mode);
            if !same {
                let reason = "the mode of a service cannot be changed";
                return Err(Invalid::new("--mode", "", reason).into());
            }
        }
        for usage in &spec.networks {
            self.network(usage.network)
                .ok_or_else(|| not_found("network", usage.network.short()))?;
            let names = || std::iter::once(&spec.name).chain(&usage.aliases);
            let taken = self.foreigners().find(|foreign| {
                foreign.network == usage.network
                    && names().any(|name| foreign.name.eq_ignore_ascii_case(name))
            });
            if let Some(foreign) = taken {
                let (kind, name) = ("attachment".to_owned(), foreign.name.clone());
                return Err(Rejected::Exists { kind, name, id: foreign.id.short() });
            }
        }
        Ok(())
    }

    fn service_exists(&self, id: ServiceId, name: &str) -> Rejected {
        Rejected::Exists { kind: "service".to_owned(), name: name.to_owned(), id: id.short() }
    }

    /// Takes the addresses of `vips` that `present` does not hold yet. A VIP that both have keeps
    /// its address for the life of the service.
    fn take_vips(
        &mut self,
        spec: &ServiceSpec,
        present: &Vips,
        vips: &Vips,
    ) -> Result<(), Rejected> {
        let wanted = |network: &NetworkId| {
            spec.endpoint_mode == EndpointMode::Vip
                && spec.networks.iter().any(|usage| usage.network == *network)
        };
        let complete = spec.networks.iter().all(|usage| {
            spec.endpoint_mode == EndpointMode::Dnsrr || vips.contains_key(&usage.network)
        });
        if !complete || !vips.keys().all(wanted) {
            return Err(Rejected::Forbidden {
                what: format!("service {} is refused", spec.name),
                why: "its virtual addresses do not fit its networks".to_owned(),
                hint: String::new(),
            });
        }
        for (network, addresses) in vips {
            if present.get(network) != Some(addresses) {
                self.take_addresses(*network, addresses)?;
            }
        }
        Ok(())
    }

    fn rest_vips(&mut self, before: &Vips, after: &Vips) {
        for (network, addresses) in before {
            if after.get(network) != Some(addresses) {
                self.rest_addresses(*network, addresses);
            }
        }
    }

    /// Virtual addresses for `spec`: those of `present` stay, missing ones are chosen.
    ///
    /// # Errors
    /// [`Rejected::Exhausted`] when a network has no address left.
    pub fn choose_vips(&self, spec: &ServiceSpec, present: &Vips) -> Result<Vips, Rejected> {
        if spec.endpoint_mode == EndpointMode::Dnsrr {
            return Ok(Vips::new());
        }
        spec.networks
            .iter()
            .map(|usage| {
                let addresses = match present.get(&usage.network) {
                    Some(addresses) => addresses.clone(),
                    None => self.choose_addresses(usage.network)?,
                };
                Ok((usage.network, addresses))
            })
            .collect()
    }
}
