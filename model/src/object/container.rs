//! Containers of this node, made by `weft run`. They live in the node's own state, never in the
//! cluster's.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::Meta;
use crate::{
    id::{AttachmentId, ContainerId, NetworkId},
    spec::{EndpointSpec, Protocol, RunSpec, Scope},
    time::Time,
};

/// What the user wants of a container, the least last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Wanted {
    /// It runs, or is started again as its restart policy says.
    Running,
    /// It does not run.
    Stopped,
    /// Nothing of it is left. There is no way back.
    Removed,
}

/// A container's membership in one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The user's words.
    pub spec: EndpointSpec,
    /// On a network of the node: the [`Attachment`](super::Attachment) in this very state; on one of
    /// the cluster: the one in the node's assignments.
    pub attachment: AttachmentId,
    /// Name of the interface in the container.
    pub ifname: String,
}

impl Endpoint {
    /// Whether the attachment is the cluster's to give.
    pub fn foreign(&self) -> bool {
        self.spec.scope == Scope::Cluster
    }
}

/// A published port, as decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortBinding {
    /// `0.0.0.0` is every IPv4 address of the host, `::` every IPv6 one: two bindings.
    pub host_ip: IpAddr,
    /// On the host.
    pub host_port: u16,
    /// In the container.
    pub port: u16,
    /// Of both.
    pub protocol: Protocol,
}

impl PortBinding {
    /// Whether one packet could be meant for both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let family = self.host_ip.is_ipv4() == other.host_ip.is_ipv4();
        let address = self.host_ip == other.host_ip
            || self.host_ip.is_unspecified()
            || other.host_ip.is_unspecified();
        self.protocol == other.protocol && self.host_port == other.host_port && family && address
    }
}

/// How the health of a container was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthState {
    /// No probe has succeeded yet, and the start period is not over.
    Starting,
    /// The last probe succeeded.
    Healthy,
    /// So many probes in a row failed as the spec allows.
    Unhealthy,
}

impl HealthState {
    /// "starting", "healthy" or "unhealthy".
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// A run of a container that has ended, or could not begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    /// [`Container::starts`] that the run came of.
    pub start: u64,
    /// Of its command; 128 + N after signal N; 125, 126 or 127 where it never ran.
    pub exit_code: i32,
    /// What went wrong, if so.
    pub error: String,
    /// The kernel killed it for its use of memory.
    pub oom: bool,
    /// When its command was started, or should have been.
    pub started: Time,
    /// When it ended.
    pub finished: Time,
    /// Restarts by policy since that start.
    pub restarts: u32,
    /// At the end; none without a health check.
    pub health: Option<HealthState>,
}

/// A container of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its name for ever.
    pub id: ContainerId,
    /// Versions and times.
    pub meta: Meta,
    /// The user's words.
    pub spec: Arc<RunSpec>,
    /// What the user wants of it now.
    pub wanted: Wanted,
    /// Raised by every start and restart that the user asks for; 0 is never started.
    pub starts: u64,
    /// Its networks; at first those of the spec, in that order.
    pub endpoints: Vec<Endpoint>,
    /// Decided at each start, held until an end is noted that no restart follows.
    pub ports: Vec<PortBinding>,
    /// The run that ended last.
    pub last: Option<LastRun>,
}

impl Container {
    /// Its membership in a network.
    pub fn endpoint_on(&self, network: NetworkId) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.spec.network == network)
    }
}
