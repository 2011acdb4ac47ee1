//! The local engine: what it keeps, and how it changes.

mod engine;
mod log;
