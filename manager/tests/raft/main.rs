//! The replicated store as a cluster sees it, in one process over an in-memory network.

mod cluster;
mod support;
