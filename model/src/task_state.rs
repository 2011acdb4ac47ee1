//! How far a task has come. It only ever goes forward.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a task is on its way. The order is the order of life; a task never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaskState {
    /// Made by the orchestrator; has no addresses yet.
    New,
    /// Has its addresses; waits for a node.
    Pending,
    /// Has a node, which does not know of it yet.
    Assigned,
    /// The node has taken it.
    Accepted,
    /// The node makes its namespace and its links.
    Preparing,
    /// The node starts its container.
    Starting,
    /// The container runs.
    Running,
    /// Ended by itself with exit code 0.
    Complete,
    /// Ended because it was told to.
    Shutdown,
    /// Ended by itself with another exit code, or could not be started.
    Failed,
    /// The node refused it.
    Rejected,
    /// Its node was removed by force.
    Orphaned,
}

impl TaskState {
    /// Whether the container has ended for good.
    pub fn is_final(self) -> bool {
        self > Self::Running
    }

    /// The word in tables and JSON, as in Docker.
    pub fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Orphaned => "orphaned",
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What the cluster wants of a task. It only ever goes forward, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Desired {
    /// To run.
    Running,
    /// To end, and to stay in the history.
    Shutdown,
    /// To end and be forgotten.
    Remove,
}
