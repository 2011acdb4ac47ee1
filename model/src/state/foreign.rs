//! Namespaces that somebody else owns, on attachable networks.
//!
//! Whoever may open the socket of any node may bring one, so nothing here lets a foreign namespace
//! take a name or an address that another member has; answering for a service needs more rights, and
//! who calls is the manager's to check.

use std::sync::Arc;

use super::{State, not_found};
use crate::{
    command::{Applied, NewForeign},
    id::{AttachmentId, NetworkId, NodeId, ServiceId},
    mac,
    object::{Attachment, Foreign, Holder, Meta},
    rejected::Rejected,
    spec::{Invalid, check_name},
};

/// Most aliases of one attachment.
const ALIASES_MAX: usize = 64;

impl State {
    /// All namespaces of others, by the ID of their attachment.
    pub fn foreigners(&self) -> impl Iterator<Item = &Arc<Foreign>> {
        self.foreigners.values()
    }

    /// One of them.
    pub fn foreign(&self, id: AttachmentId) -> Option<&Arc<Foreign>> {
        self.foreigners.get(&id)
    }

    pub(super) fn attach_foreign(&mut self, new: &NewForeign) -> Result<Applied, Rejected> {
        self.node(new.node).ok_or_else(|| not_found("node", new.node.short()))?;
        let network = self.network(new.network);
        let network = network.ok_or_else(|| not_found("network", new.network.short()))?.clone();
        if !network.spec.attachable {
            return Err(Rejected::Forbidden {
                what: format!("{} cannot join network {}", new.name, network.spec.name),
                why: "the network is not attachable".to_owned(),
                hint: format!(
                    "make the network with: weft network create --attachable {}",
                    network.spec.name
                ),
            });
        }
        check_label("--name", &new.name)?;
        if new.aliases.len() > ALIASES_MAX {
            let reason = format!("at most {ALIASES_MAX} are allowed");
            return Err(Invalid::new("--alias", new.aliases.len(), reason).into());
        }
        for alias in &new.aliases {
            check_label("--alias", alias)?;
        }
        self.check_foreign_names(new)?;
        if let Some(service) = new.service {
            self.check_foreign_service(service, &network)?;
        }
        if self.attachments.contains_key(&new.id) {
            let (kind, id) = ("attachment".to_owned(), new.id.short());
            return Err(Rejected::Exists { kind, name: id.clone(), id });
        }
        self.take_addresses(new.network, &new.addresses)?;
        let attachment = Attachment {
            id: new.id,
            network: new.network,
            holder: Holder::Foreign(new.id),
            addresses: new.addresses.clone(),
            mac: mac::derive(&new.addresses),
            node: Some(new.node),
        };
        let foreign = Foreign {
            id: new.id,
            meta: Meta::new(self.now),
            name: new.name.clone(),
            aliases: new.aliases.clone(),
            network: new.network,
            node: new.node,
            service: new.service,
            ready: false,
        };
        self.attachments.insert_mut(new.id, Arc::new(attachment));
        self.foreigners.insert_mut(new.id, Arc::new(foreign));
        Ok(Applied::of(new.id))
    }

    /// The name is nobody's on the network, and no alias is a service's.
    fn check_foreign_names(&self, new: &NewForeign) -> Result<(), Rejected> {
        let named = |foreign: &&Arc<Foreign>| {
            foreign.network == new.network && foreign.name.eq_ignore_ascii_case(&new.name)
        };
        if let Some(other) = self.foreigners().find(named) {
            let (kind, name) = ("attachment".to_owned(), new.name.clone());
            return Err(Rejected::Exists { kind, name, id: other.id.short() });
        }
        for name in std::iter::once(&new.name).chain(&new.aliases) {
            if let Some((kind, id)) = self.service_named(new.network, name) {
                return Err(Rejected::Exists { kind, name: name.clone(), id: id.short() });
            }
        }
        Ok(())
    }

    /// The service that has this name or alias on the network.
    fn service_named(&self, network: NetworkId, name: &str) -> Option<(String, ServiceId)> {
        self.services().find_map(|service| {
            let usage = service.spec.networks.iter().find(|usage| usage.network == network)?;
            let mut aliases = usage.aliases.iter();
            let kind = if service.spec.name.eq_ignore_ascii_case(name) {
                "service"
            } else if aliases.any(|alias| alias.eq_ignore_ascii_case(name)) {
                "alias of a service"
            } else {
                return None;
            };
            Some((kind.to_owned(), service.id))
        })
    }

    fn check_foreign_service(
        &self,
        id: ServiceId,
        network: &crate::Network,
    ) -> Result<(), Rejected> {
        let service = self.service(id).ok_or_else(|| not_found("service", id.short()))?;
        if service.spec.networks.iter().any(|usage| usage.network == network.id) {
            return Ok(());
        }
        Err(Rejected::Forbidden {
            what: format!(
                "nothing on network {} answers for {}",
                network.spec.name, service.spec.name
            ),
            why: "the service is not on that network".to_owned(),
            hint: format!(
                "weft service update --network-add {} {}",
                network.spec.name, service.spec.name
            ),
        })
    }

    pub(super) fn foreign_ready(
        &mut self,
        node: NodeId,
        id: AttachmentId,
    ) -> Result<Applied, Rejected> {
        let foreign = self.foreign_on(node, id)?.ok_or_else(|| gone(id))?;
        if !foreign.ready {
            self.change_foreign(id, |foreign| foreign.ready = true);
        }
        Ok(Applied::of(id))
    }

    pub(super) fn detach_foreign(
        &mut self,
        node: NodeId,
        id: AttachmentId,
    ) -> Result<Applied, Rejected> {
        if self.foreign_on(node, id)?.is_some() {
            self.free_foreign(id);
        }
        Ok(Applied::of(id))
    }

    /// The attachment if there is one; the node must be its own.
    fn foreign_on(&self, node: NodeId, id: AttachmentId) -> Result<Option<Arc<Foreign>>, Rejected> {
        match self.foreign(id) {
            // To others it is as if it were not there.
            Some(foreign) if foreign.node != node => Err(gone(id)),
            found => Ok(found.cloned()),
        }
    }

    fn free_foreign(&mut self, id: AttachmentId) {
        self.foreigners.remove_mut(&id);
        if let Some(found) = self.attachment(id).cloned() {
            self.attachments.remove_mut(&id);
            self.rest_addresses(found.network, &found.addresses);
        }
    }

    /// Whatever the namespaces of a node that is gone for good held is free.
    pub(super) fn free_foreigners_of(&mut self, node: NodeId) {
        let of_node = self.foreigners().filter(|foreign| foreign.node == node);
        let ids: Vec<_> = of_node.map(|foreign| foreign.id).collect();
        for id in ids {
            self.free_foreign(id);
        }
    }

    /// A service that is gone has nobody who answers for it.
    pub(super) fn bereave_foreigners(&mut self, service: ServiceId) {
        let of_service = self.foreigners().filter(|foreign| foreign.service == Some(service));
        let ids: Vec<_> = of_service.map(|foreign| foreign.id).collect();
        for id in ids {
            self.change_foreign(id, |foreign| foreign.service = None);
        }
    }

    fn change_foreign(&mut self, id: AttachmentId, change: impl FnOnce(&mut Foreign)) {
        if let Some(found) = self.foreign(id) {
            let mut foreign = Foreign::clone(found);
            change(&mut foreign);
            foreign.meta.touch(self.now);
            self.foreigners.insert_mut(id, Arc::new(foreign));
        }
    }
}

fn gone(id: AttachmentId) -> Rejected {
    not_found("attachment", id.short())
}

/// A name that is one label: `web.1` and `tasks.web` belong to services.
fn check_label(field: &str, name: &str) -> Result<(), Invalid> {
    check_name(field, name)?;
    if name.contains('.') {
        return Err(Invalid::new(field, name, "must have no dot"));
    }
    Ok(())
}
