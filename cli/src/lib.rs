//! The binary `weft`: the user's commands, which are a client of the API and nothing more, and the
//! daemon put together.
//!
//! Reading order: [`args`] is the command line as types, [`commands`] does what it says through
//! [`client`], [`docker`] gives objects the shape that Docker's users know, [`output`] prints.

#![forbid(unsafe_code)]

pub mod args;
pub mod client;
pub mod commands;
pub mod daemon;
pub mod docker;
pub mod error;
pub mod output;
pub mod run;
pub mod wire;

pub use run::main;
