//! The encrypted link between the nodes, that all encrypted networks share.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_wire::{Identity, Node};

/// The encrypted link to the nodes that share an encrypted network with this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Who does the work.
    pub engine: Engine,
    /// This node's keys; two while they are rotated. Packets are sent with the first.
    pub identities: Vec<Identity>,
    /// The nodes, by their number in the cluster.
    pub nodes: BTreeMap<u64, Node>,
}

/// What speaks WireGuard on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Engine {
    /// The kernel. It has one lane: the first port of each identity is used.
    Kernel,
    /// A process of our own.
    Userspace,
}
