//! The replicated store as a cluster sees it, in one process over an in-memory network.

mod cluster;
mod compaction;
mod damage;
mod fencing;
mod limits;
mod members;
mod model;
mod partition;
mod recovery;
mod room;
mod simulation;
mod support;
