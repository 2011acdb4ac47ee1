//! The services of managers as callers see them: over unix sockets and mutual TLS, with real
//! replicated stores.

#![allow(clippy::unwrap_used)]

mod attach;
mod cluster;
mod join;
mod keys;
mod logs;
mod networks;
mod services;
mod support;
mod tokens;
mod watch;
