//! The objects of the cluster, the commands that change them, and the pure state machine over them.
//!
//! **Architecture invariant:** nothing here does IO, reads a clock, draws a random number or walks
//! an unordered map. Time and identifiers come in with the commands.
#![forbid(unsafe_code)]

pub mod assignments;
pub mod cable;
pub mod check;
pub mod command;
pub mod constraint;
pub mod id;
pub mod mac;
pub mod object;
pub mod rejected;
pub mod spec;
pub mod state;
pub mod task_state;
pub mod time;
pub mod tunnel;

pub use assignments::{Assignments, Change};
pub use cable::{Cable, CableEnd};
pub use check::Violation;
pub use command::{Applied, Command, Digest, Named, Outcome, Proposal};
pub use id::{
    AttachmentId, CableId, ClusterId, ContainerId, NetworkId, NodeId, RequestId, ServiceId, TaskId,
};
pub use object::{Attachment, Cluster, Container, Network, Node, Service, Subnet, Task};
pub use rejected::Rejected;
pub use state::State;
pub use task_state::{Desired, TaskState};
pub use time::Time;
pub use tunnel::{Engine, NodeKey, PublicKey, Rotation, Tunnel, TunnelReport};
