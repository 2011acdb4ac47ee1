//! Choosing free subnets, addresses, ports and network identifiers.
//!
//! Everything here is a pure function: it takes what is used, and returns a choice or says why there
//! is none. Nothing is remembered between calls; the caller's state is the only truth.
#![forbid(unsafe_code)]

pub mod address;
pub mod local;
pub mod port;
pub mod subnet;
pub mod vni;

pub use address::{Pool, Use, choose_address};
pub use local::{AddressPool, choose_local, choose_unique_local, default_pools};
pub use port::choose_port;
pub use subnet::{choose_subnet, overlaps, unique_local};
pub use vni::choose_vni;

/// A pool that has nothing left to give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pool} is exhausted: {used} of {size} in use")]
pub struct Exhausted {
    /// What ran out, as the user knows it: a CIDR, or "VNI".
    pub pool: String,
    /// How many are in use, those at rest included.
    pub used: u128,
    /// How many there are.
    pub size: u128,
}
