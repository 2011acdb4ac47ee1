//! Names for containers: what a name means to the one who asks, and the servers that say so.
//!
//! The reading order is the order of a query. [`wire`] turns bytes into a question, [`resolve`]
//! decides what the asker may know (pure: zones, asker, question), [`answer`] writes the reply,
//! [`server`] moves bytes between sockets and those functions, and [`forward`] relays what is not
//! ours to the upstream servers. [`files`] writes the three files a container reads names with.
//!
//! **Architecture invariant:** this crate depends on nothing of ours, and only `server` and
//! `forward` do IO, read the clock or draw randomness. A query never waits for a manager.
#![forbid(unsafe_code)]

pub mod answer;
pub mod asker;
pub mod files;
pub mod forward;
pub mod limits;
pub mod resolve;
pub mod reverse;
pub mod server;
pub mod wire;
pub mod zone;

pub use asker::Asker;
pub use server::{ServeError, Server, Stats};
pub use zone::{Elsewhere, NetworkNames, Synced, Zones, elsewhere_hash};
