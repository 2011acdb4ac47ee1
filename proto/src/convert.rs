//! Conversions between the wire and the model: one place for each object, both ways.
//!
//! What comes in is parsed into the model's types, so that everything behind this point holds values
//! that make sense one by one; what goes out is complete, so that no reader has to ask twice.

pub mod cluster;
pub mod container;
pub mod network;
pub mod node;
pub mod run;
pub mod service;
pub mod session;
pub mod status;
pub mod task;
pub mod value;
