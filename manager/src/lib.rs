//! (being built)
pub mod ca;
