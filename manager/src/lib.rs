//! The manager's part of a node: the replicated store, the controllers, the certificate authority
//! and the gRPC services.
//!
//! **Architecture invariant:** the manager never touches the kernel, and it does not know the
//! worker: the two meet on the wire and in the daemon, which puts them together.
#![forbid(unsafe_code)]

pub mod ca;
pub mod clock;
pub mod controller;
pub mod ids;
pub(crate) mod raft;
pub mod store;
