//! What an operator says of a node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a node does for the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Runs tasks.
    #[default]
    Worker,
    /// Runs tasks and takes part in Raft.
    Manager,
}

impl Role {
    /// "worker" or "manager".
    pub fn word(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        }
    }
}

/// Whether a node takes tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Availability {
    /// Takes new tasks.
    #[default]
    Active,
    /// Keeps its tasks and takes no new ones.
    Pause,
    /// Gives up its tasks.
    Drain,
}

impl Availability {
    /// "active", "pause" or "drain".
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pause => "pause",
            Self::Drain => "drain",
        }
    }
}

/// An operator's words on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Worker or manager.
    pub role: Role,
    /// Whether it takes tasks.
    pub availability: Availability,
    /// Labels that constraints can ask for.
    pub labels: BTreeMap<String, String>,
}
