//! The services of managers as callers see them: over unix sockets and mutual TLS, with real
//! replicated stores.

mod cluster;
mod join;
mod networks;
mod services;
mod support;
mod watch;
