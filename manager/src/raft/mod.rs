//! The replicated store on top of the Raft library.
//!
//! **Architecture invariant:** only this folder names `openraft` and `raft-log`. The rest of the
//! program sees [`crate::store`].
//!
//! Reading order: `types` (what the library is made of here), `runtime` (seeded randomness),
//! `codec` (bytes with a checksum), `files` and `log` (what is on the disk), `identity` and
//! `fence` (who may speak at all), `machine` and `snapshot` (the state and its images), `wire`
//! (messages), `hub` (what every message needs to know), `network` (out) and `inbox` (in),
//! `room` (on the disk),
//! `parts`, `engine`, `members` and `supervise` (all of it put together for the store), `recover`.

mod assembly;
pub(crate) mod codec;
pub(crate) mod engine;
mod errors;
pub(crate) mod fence;
pub(crate) mod files;
pub mod fuzzing;
pub(crate) mod hub;
pub(crate) mod identity;
pub(crate) mod inbox;
pub(crate) mod log;
pub(crate) mod machine;
pub(crate) mod mark;
mod members;
pub(crate) mod network;
mod parts;
pub(crate) mod recover;
pub(crate) mod room;
pub(crate) mod runtime;
pub(crate) mod snapshot;
mod supervise;
pub(crate) mod types;
pub(crate) mod wire;

#[cfg(test)]
mod suite;
