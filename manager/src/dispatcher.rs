//! The managers' end of the workers' sessions.
//!
//! A session tells its node what it must know, complete first and then as differences, and takes in
//! what the node saw. The core ([`Desk`]) speaks plain values over channels and knows nothing of
//! gRPC, so that a simulation can run it; [`grpc`] puts it on the wire. Everything here lives in the
//! leader's memory and is lost with it on purpose: the next leader gives every node a grace period.

mod desk;
pub(crate) mod grpc;
pub mod liveness;
mod reign;
mod sessions;

use std::time::Duration;

use weft_model::{NodeId, Rejected, TunnelReport, object::NodeDescription, spec::Role};
use weft_proto::convert::session::{AssignmentsUpdate, Reports};

pub use desk::Desk;
pub(crate) use desk::managers;
pub use sessions::Sessions;

use crate::store::ProposeError;

/// What a worker says.
#[derive(Clone, Debug, PartialEq)]
pub enum FromWorker {
    /// First of all, and again when its description has changed.
    Hello(Hello),
    /// It lives.
    Heartbeat,
    /// Its data plane agrees with the assignments of this revision.
    Applied(u64),
    /// What it saw.
    Reports(Reports),
    /// What it has for encrypted links.
    Tunnel(TunnelReport),
}

/// How a worker presents itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What it is.
    pub description: NodeDescription,
    /// Random for each start of its daemon.
    pub boot_id: String,
    /// For a manager: the incarnation of its Raft store.
    pub raft_incarnation: Option<String>,
}

/// What a worker is told.
#[derive(Clone, Debug, PartialEq)]
pub enum ToWorker {
    /// First of all.
    Welcome(Welcome),
    /// What it must know.
    Assignments(AssignmentsUpdate),
    /// The reports up to this number are in the log.
    ReportsTaken(u64),
}

/// The answer to a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// Whom to call when this manager is gone: number, node and address.
    pub managers: Vec<(u64, NodeId, String)>,
    /// What the cluster wants the node to be.
    pub role: Role,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionEnd {
    /// The worker hung up.
    #[error("the worker hung up")]
    Closed,
    /// The worker did not begin with a hello.
    #[error("a session begins with a hello")]
    NoHello,
    /// A newer session of the same node has begun.
    #[error("a newer session of this node has begun (boot {boot_id})")]
    Replaced {
        /// Of the newer one.
        boot_id: String,
    },
    /// The node is no member any more.
    #[error("node {node} is not a member of this cluster")]
    NotMember {
        /// Which.
        node: NodeId,
    },
    /// The worker does not take what it is sent.
    #[error("the worker took nothing for {waited:?}")]
    Lagging {
        /// How long.
        waited: Duration,
    },
    /// The state refuses what the worker says of itself.
    #[error(transparent)]
    Refused(Rejected),
    /// The log cannot be written.
    #[error(transparent)]
    Store(#[from] ProposeError),
    /// The next leader must know who is there.
    #[error("this manager leads no more")]
    Deposed,
    /// The store has stopped.
    #[error("this manager stops")]
    Stopped,
}
