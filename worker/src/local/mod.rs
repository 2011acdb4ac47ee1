//! The local engine: containers and networks of this node alone, which belong to no cluster.

pub mod log;
