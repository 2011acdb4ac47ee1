//! What a manager is told when it starts.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use weft_model::{ClusterId, NodeId};
use weft_proto::tls::LiveIdentity;

use crate::{
    clock::{Clock, SystemClock},
    store::{LogLimits, Timings},
};

/// How to start a manager. [`ManagerConfig::new`] fills in what rarely changes.
#[derive(Clone)]
pub struct ManagerConfig {
    /// Where the replicated store lives.
    pub dir: PathBuf,
    /// This node.
    pub node: NodeId,
    /// Its number in the cluster, which is its number in Raft.
    pub number: u64,
    /// The cluster.
    pub cluster: ClusterId,
    /// Where the other managers reach this one.
    pub address: SocketAddr,
    /// What it shows them.
    pub identity: LiveIdentity,
    /// For times in commands and certificates.
    pub clock: Arc<dyn Clock>,
    /// Beginning of all identifiers and election times of this run; new at each start.
    pub seed: [u8; 32],
    /// How patient it is.
    pub timings: ManagerTimings,
    /// When its log is compacted.
    pub limits: LogLimits,
}

/// How patient a manager is.
#[derive(Clone, Copy, Debug)]
pub struct ManagerTimings {
    /// Between managers.
    pub raft: Timings,
    /// Between two heartbeats of a worker.
    pub heartbeat: Duration,
    /// After so much silence a node's tasks are hidden.
    pub silent: Duration,
    /// After so much silence they are replaced.
    pub down: Duration,
    /// Changes that come within this time are looked at together.
    pub debounce: Duration,
    /// How long a call waits for a leader.
    pub leader_wait: Duration,
    /// How often the members of Raft are compared with the state though nothing has changed.
    pub members: Duration,
}

impl Default for ManagerTimings {
    fn default() -> Self {
        Self {
            raft: Timings::default(),
            heartbeat: Duration::from_secs(1),
            silent: Duration::from_secs(3),
            down: Duration::from_secs(8),
            debounce: Duration::from_millis(5),
            leader_wait: Duration::from_secs(2),
            members: Duration::from_millis(500),
        }
    }
}

impl ManagerConfig {
    /// A manager with the system's clock and randomness and the usual patience.
    pub fn new(
        dir: PathBuf,
        node: NodeId,
        number: u64,
        cluster: ClusterId,
        address: SocketAddr,
        identity: LiveIdentity,
    ) -> Self {
        Self {
            dir,
            node,
            number,
            cluster,
            address,
            identity,
            clock: Arc::new(SystemClock),
            seed: rand::random(),
            timings: ManagerTimings::default(),
            limits: LogLimits::default(),
        }
    }
}
