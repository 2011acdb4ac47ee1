//! The manager's part of a node: the replicated store, the controllers, the certificate authority
//! and the gRPC services.
//!
//! **Architecture invariant:** the manager never touches the kernel, and it does not know the
//! worker: the two meet on the wire and in the daemon, which puts them together.
//!
//! Reading order: [`store`], [`manager`], [`gate`], [`api`], [`join`], [`dispatcher`], the leader's
//! loops and the [`controller`]s they run.
#![forbid(unsafe_code)]

pub mod api;
pub mod ca;
pub mod clock;
pub mod controller;
pub mod dispatcher;
pub mod gate;
pub mod ids;
pub mod join;
mod leader;
pub mod manager;
pub(crate) mod raft;
pub mod store;

#[doc(hidden)]
pub use raft::fuzzing;

pub use manager::{Manager, ManagerConfig, ManagerSlot, ManagerTimings, StartError};
