//! Addresses on networks of the cluster, for containers of this node.
//!
//! The managers know the networks and who has which address on them. They are asked before the
//! container's own entry is written, under an ID drawn here: what is assigned and held by nobody after
//! a crash is given back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use weft_model::{AttachmentId, Container, Network, NetworkId, Rejected};
use weft_proto::v1::{AttachForeignRequest, EndpointSpec};

use super::{
    Local,
    calls::CallError,
    named::{ambiguous, is_called, leaves_own},
};
use crate::{attach::Ask, desired::Sorted};

/// How long the managers may take from their word to the addresses.
const DEADLINE: Duration = Duration::from_secs(20);

/// Attachments that were asked for and are not in the state yet.
#[derive(Default)]
pub(super) struct Leases(Mutex<BTreeSet<AttachmentId>>);

impl Leases {
    fn change(&self, change: impl FnOnce(&mut BTreeSet<AttachmentId>)) {
        // Each change is one call, so the set is whole also if a holder of the lock panicked.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn holds(&self, id: AttachmentId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }
}

/// What one call has got of the managers, by network.
pub struct Leased<'a> {
    local: &'a Local,
    of: BTreeMap<NetworkId, AttachmentId>,
}

impl Drop for Leased<'_> {
    fn drop(&mut self) {
        // From here on the state says whose they are.
        self.local.leases.change(|held| held.retain(|id| !self.of.values().any(|own| own == id)));
    }
}

impl Leased<'_> {
    /// The attachments, by network.
    pub(super) fn attachments(&self) -> BTreeMap<NetworkId, AttachmentId> {
        self.of.clone()
    }
}

impl Local {
    /// Whether this attachment is of a container of this node.
    pub(crate) fn holds(&self, id: AttachmentId) -> bool {
        // The state is looked at last: a lease ends when it is there.
        self.leases.holds(id) || {
            let state = self.engine.state();
            let of = |container: &Container| container.endpoints.iter().any(|e| e.attachment == id);
            state.containers().any(|container| of(container))
        }
    }

    /// Asks for addresses on those of `wanted` that are networks of the cluster, and puts the IDs of
    /// these networks in the place of their names.
    ///
    /// # Errors
    /// When the managers refuse; then none is held.
    pub async fn lease<'a>(
        &'a self,
        name: &str,
        wanted: &mut [EndpointSpec],
    ) -> Result<Leased<'a>, CallError> {
        let mut leased = Leased { local: self, of: BTreeMap::new() };
        for endpoint in wanted {
            let own = self.engine.state().network_named(&endpoint.network).cloned();
            let whole = |own: &Arc<Network>| is_called(own.id, &own.spec.name, &endpoint.network);
            let whole = own.as_ref().is_ok_and(whole);
            if whole || !self.is_member() {
                own?;
                continue;
            }
            match self.lease_named(name, endpoint, own).await {
                Ok(Some((network, attachment))) => {
                    endpoint.network = network.to_string();
                    leased.of.insert(network, attachment);
                }
                Ok(None) => {}
                Err(error) => {
                    self.give_up(&leased).await;
                    return Err(error);
                }
            }
        }
        Ok(leased)
    }

    /// Asks for an address on the cluster's network of that name. None if it has none, and the word is
    /// the beginning of the ID of `own`.
    async fn lease_named(
        &self,
        name: &str,
        endpoint: &EndpointSpec,
        own: Result<Arc<Network>, Rejected>,
    ) -> Result<Option<(NetworkId, AttachmentId)>, CallError> {
        let word = &endpoint.network;
        let (network, attachment) = match (self.lease_one(name, endpoint).await, &own) {
            (Ok(got), _) => got,
            (Err(CallError::Managers(status)), Ok(_)) if leaves_own(&status, word) => {
                return Ok(None);
            }
            (Err(error), Ok(_) | Err(Rejected::NotFound { .. })) => return Err(error),
            // It begins the IDs of several of this node, and is nothing there.
            (Err(_), Err(several)) => return Err(several.clone().into()),
        };
        let assigned = self.context.assigned.borrow().1.clone();
        let shared = Sorted::new(&assigned).networks.get(&network).map(|item| item.name.clone());
        let shared = shared.unwrap_or_default();
        if is_called(network, &shared, word) || matches!(own, Err(Rejected::NotFound { .. })) {
            return Ok(Some((network, attachment)));
        }
        self.detach(attachment).await;
        self.leases.change(|held| {
            held.remove(&attachment);
        });
        let own = own?;
        let several = [(own.id, own.spec.name.as_str()), (network, shared.as_str())];
        Err(ambiguous(word, &several).into())
    }

    fn is_member(&self) -> bool {
        !matches!(self.context.assigned.borrow().0, crate::plumbing::Source::Alone)
    }

    async fn lease_one(
        &self,
        name: &str,
        endpoint: &EndpointSpec,
    ) -> Result<(NetworkId, AttachmentId), CallError> {
        let attachment = AttachmentId::from_bytes(rand::random());
        let request = AttachForeignRequest {
            id: attachment.to_string(),
            network: endpoint.network.clone(),
            name: name.to_owned(),
            aliases: endpoint.aliases.clone(),
            service: String::new(),
            addresses: endpoint.addresses.clone(),
        };
        self.leases.change(|held| {
            held.insert(attachment);
        });
        let asked = self.ground.ask(&Ask::Attach(request)).await;
        let known = match asked {
            Ok(()) => self.assigned_network(attachment).await,
            Err(status) => Err(CallError::Managers(status)),
        };
        if known.is_err() {
            // What the managers have done all the same is given back by whoever sees it.
            self.leases.change(|held| {
                held.remove(&attachment);
            });
        }
        known.map(|network| (network, attachment))
    }

    async fn assigned_network(&self, attachment: AttachmentId) -> Result<NetworkId, CallError> {
        let mut assigned = self.context.assigned.clone();
        let network = async {
            loop {
                let now = assigned.borrow_and_update().1.clone();
                if let Some(endpoint) = Sorted::new(&now).endpoints.get(&attachment) {
                    return Some(endpoint.network);
                }
                assigned.changed().await.ok()?;
            }
        };
        let network = tokio::time::timeout(DEADLINE, network).await.ok().flatten();
        let reason = || "the managers have not confirmed it".to_owned();
        network.ok_or_else(|| CallError::NotReady { reason: reason() })
    }

    /// Gives back what is not needed after all.
    pub(super) async fn give_up(&self, leased: &Leased<'_>) {
        for attachment in leased.of.values() {
            self.detach(*attachment).await;
        }
    }

    async fn detach(&self, attachment: AttachmentId) {
        if let Err(status) = self.ground.ask(&Ask::Detach(attachment)).await {
            let (id, reason) = (attachment.short(), status.message());
            tracing::warn!(attachment = %id, reason, "not given back yet");
        }
    }

    /// Waits until the loop that plumbs has seen the addresses of a container on the cluster's
    /// networks.
    pub(super) async fn has_addresses(&self, container: &Container) -> Result<(), CallError> {
        for endpoint in container.endpoints.iter().filter(|endpoint| endpoint.foreign()) {
            self.assigned_network(endpoint.attachment).await?;
        }
        let revision = self.context.assigned.borrow().1.revision;
        let mut standing = self.context.plumbing.standing();
        let seen = standing.wait_for(|now| now.seen >= revision);
        // If the loop is stuck, that is what is told of the container's own network.
        let _ = tokio::time::timeout(DEADLINE, seen).await;
        Ok(())
    }
}
