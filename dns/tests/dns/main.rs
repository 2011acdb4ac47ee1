//! The promises of the resolver, one file each. One binary, so that linking is paid once.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

mod fake;
mod files;
mod forwarding;
mod leaks;
mod malformed;
mod namespace;
mod resolving;
mod serving;
mod support;
mod wire;
