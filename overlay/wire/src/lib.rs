//! The encrypted link between nodes, in user space: WireGuard around IP, UDP and VXLAN, for kernels
//! that have no WireGuard of their own.
//!
//! It runs as a process of its own, so that flows outlive the daemon. The daemon hands it one
//! [`Config`], always complete, and reads back a [`Status`].
//!
//! Reading order: [`Config`] is what it should do, `engine` makes sockets and threads of it, `lane` is
//! the thread that packets pass through, [`packet`] is what happens to their bytes, `verifier` keeps
//! strangers away from the lanes, `server` and [`Client`] are how the daemon speaks to it.

#![deny(unsafe_code)]

mod client;
mod config;
mod engine;
#[doc(hidden)]
pub mod fuzzing;
mod lane;
mod message;
pub mod packet;
mod server;
mod status;
mod sys;
mod tables;
mod verifier;

pub use client::{Client, ClientError};
pub use config::{Config, Identity, Key, Mac, Member, Network, Node, PeerIdentity};
pub use server::{RunError, SOCKET, main, run};
pub use status::{PeerStatus, Reason, Status};
