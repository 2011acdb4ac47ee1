//! What clients know that must be there, because it was acknowledged.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use weft_model::{
    NodeId,
    spec::{Availability, Role},
};
use weft_proto::v1::ServiceSpec;

use super::{HOSTS, MANAGERS, daemon, net::HostId};

/// What must be there, by name. Clones are the same book.
#[derive(Clone)]
pub(super) struct Book(Arc<Mutex<Entries>>);

#[derive(Clone)]
pub(super) struct Entries {
    /// Networks that were made and not removed.
    pub(super) networks: BTreeMap<String, Certainty>,
    /// Services that were made and not removed.
    pub(super) services: BTreeMap<String, ServiceEntry>,
    /// Namespaces that were attached and not detached.
    pub(super) attachments: BTreeMap<String, AttachmentEntry>,
    /// What each machine is.
    pub(super) nodes: BTreeMap<HostId, NodeEntry>,
    /// Calls that were acknowledged.
    pub(super) acknowledged: u64,
    /// Calls that were refused for good.
    pub(super) refused: u64,
    /// Calls that needed more than one try.
    pub(super) retried: u64,
}

#[derive(Clone, Debug)]
pub(super) struct ServiceEntry {
    /// As acknowledged last.
    pub(super) spec: ServiceSpec,
    /// Before the last change.
    pub(super) previous: Option<ServiceSpec>,
}

#[derive(Clone, Debug)]
pub(super) struct AttachmentEntry {
    pub(super) host: HostId,
    /// Of the namespace.
    pub(super) path: PathBuf,
    /// Name of the network.
    pub(super) network: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeEntry {
    pub(super) node: NodeId,
    pub(super) role: Role,
    pub(super) availability: Availability,
}

/// Whether what is written of an object is known to be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certainty {
    /// The last call was acknowledged.
    Known,
    /// A call was refused at its second try: the first one may yet arrive and be taken. The object
    /// is left alone from then on.
    Open,
}

impl Book {
    /// Of a cluster that was just made.
    pub(super) fn new() -> Self {
        let node = |host| {
            let role = if host <= MANAGERS { Role::Manager } else { Role::Worker };
            let node = daemon::node_id(host, 0);
            (host, NodeEntry { node, role, availability: Availability::Active })
        };
        Self(Arc::new(Mutex::new(Entries {
            networks: BTreeMap::new(),
            services: BTreeMap::new(),
            attachments: BTreeMap::new(),
            nodes: (1..=HOSTS).map(node).collect(),
            acknowledged: 0,
            refused: 0,
            retried: 0,
        })))
    }

    pub(super) fn entries(&self) -> Entries {
        self.lock().clone()
    }

    /// Each change is one call on a map, so it is whole whatever a holder did.
    pub(super) fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
