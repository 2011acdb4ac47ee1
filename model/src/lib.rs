//! (being built) The objects of the cluster and the pure state machine over them.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// All objects of the cluster, a value. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    applied: u64,
}

/// One decided change; what the Raft log holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proposal {}

/// What applying a proposal gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {}

impl State {
    /// Applies `proposal`, the entry at `index` of the log: everything or nothing.
    pub fn apply(&mut self, index: u64, _proposal: &Proposal) -> Outcome {
        self.applied = index;
        Outcome {}
    }
}
