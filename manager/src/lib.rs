//! (being built)
pub mod ca;
pub(crate) mod raft;
pub mod store;
