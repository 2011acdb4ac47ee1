//! A cluster in one thread, over a simulated network and clock, from one seed.
//!
//! Real: the replicated store, the leader's loops and controllers, the dispatcher's desk, the services;
//! the worker's session, cache, task drivers, desired state, and the data plane's planner and loop.
//! Simulated: time, the network, the disks of the stores, kernels and containers, and the faults that
//! are done to all of them. A seed fixes everything that happens, so a run that fails can be repeated.
//!
//! Most faults come at random. Some come on purpose (`chaos::pointed`), when keys and addresses change hands: a
//! node is cut off while the key of a peer is rotated; all containers end while a kernel clings to what is
//! theirs.
//!
//! What was planted to see it caught, and by how many of the first eight seeds: a leader that switches keys
//! without waiting for anybody (`manager/src/controller/keys.rs`), 6. Not yet by any of the first four: an
//! address that is free before its container has let go of it (`worker/src/tasks/driver.rs`).
//!
//! Reading order: [`world`] (the run), `chaos`, `host`, `daemon`, `net`, `link`, `machine`, `client`,
//! `operator`, `audit` (checks all the time), `rest` (checks at the end).

mod audit;
mod book;
mod caller;
mod chaos;
mod client;
mod clock;
mod daemon;
mod ground;
mod home;
mod host;
mod kernel;
mod keys;
mod link;
mod local;
mod machine;
mod net;
mod operator;
mod request;
mod rest;
mod runtime;
mod trace;
pub mod world;

use std::{net::SocketAddr, time::Duration};

pub use world::{Ending, run};

/// Hosts that are managers at first; they are workers, too.
const MANAGERS: u8 = 3;
/// All hosts.
const HOSTS: u8 = 8;
/// How much a host lives through at a time, and the shortest time that a message takes.
const TICK: Duration = Duration::from_millis(5);
/// How long a manager waits for somebody to lead before it sends a caller away.
const LEADER_WAIT: Duration = Duration::from_secs(2);

/// The host with this address.
fn host_at(address: &str) -> Option<u8> {
    let address: SocketAddr = address.parse().ok()?;
    (1..=HOSTS).find(|host| daemon::address(*host) == address)
}
