//! The encrypted link between nodes, in user space: WireGuard around IP, UDP and VXLAN, for kernels
//! that have no WireGuard of their own.
//!
//! It runs as a process of its own, so that flows outlive the daemon. The daemon hands it one
//! [`Config`], always complete, and reads back a [`Status`].

mod config;
pub mod packet;
mod status;

pub use config::{Config, Identity, Key, Mac, Member, Network, Node, PeerIdentity};
pub use status::{PeerStatus, Reason, Status};
