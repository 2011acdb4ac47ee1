//! The packets of the encrypted link: how a container's frame becomes the packets that are sealed,
//! and how opened packets become frames again.
//!
//! Everything here is a pure function of bytes, or a value that keeps its memory between batches. No
//! byte may make it panic: what comes in was written by containers, or by nodes that may be
//! compromised.

mod bytes;
pub mod checksum;
mod claims;
mod coalesce;
mod cut;
mod ecn;
mod flow;
mod frame;
mod hash;
mod outer;
mod segment;
mod tcp;
mod vnet;

pub use claims::{Claims, Destination, claims, destination};
pub use coalesce::{Coalescer, Merging, Output};
pub use ecn::{CongestionLost, Ecn, leave_tunnel};
pub use frame::BadFrame;
pub use hash::flow_hash;
pub use outer::{NotVxlan, Outer, Received, receive};
pub use segment::Segments;
pub use vnet::{Gso, GsoKind, Partial, VnetHeader};
