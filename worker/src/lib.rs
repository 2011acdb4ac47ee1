//! The part of every daemon that makes the kernel and the containers agree with what is wanted.
//!
//! [`session`] brings the node's assignments, [`cache`] keeps them over a restart, [`desired`] says
//! what they mean for the kernel and for names, [`plumbing`] makes it so, [`tasks`] runs the
//! containers, [`health`] checks them, [`attach`] sees to namespaces of others, [`tunnel`] has the node's keys of the encrypted
//! links, [`report`] says what came of it, [`metrics`] shows it all, [`doctor`] says what
//! is wrong, and [`worker`] puts them together.
//!
//! **Architecture invariant:** the worker never touches Raft and does not know the manager: they
//! meet on the wire.

pub mod api;
pub mod attach;
pub mod cache;
pub mod container;
pub mod desired;
pub mod doctor;
pub mod facts;
pub mod failpoint;
#[doc(hidden)]
pub mod fuzzing;
pub mod health;
pub mod local;
pub mod memory;
pub mod metrics;
pub mod plumbing;
pub mod report;
pub mod session;
pub mod tasks;
pub mod tunnel;
pub mod worker;

pub use worker::{Config, Worker};
