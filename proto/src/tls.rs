//! Who is at the other end: what both sides of every connection need.
//!
//! Nodes speak TLS 1.3 to each other and nothing else. Every node holds a certificate of the
//! cluster's own authority whose subject says which node it is, in which role, of which cluster;
//! the server learns them as a [`Peer`] next to each request. A node that joins has no certificate
//! yet: it arrives without one, and it knows the server by the digest of the root certificate which
//! its join token carries.
//!
//! Identities are swapped while running: a [`LiveIdentity`] is read at each handshake, so that a
//! renewed certificate or a new root reaches the next connection at once, and the old connections
//! go on.
//!
//! Reading order: [`token`], [`peer`], [`identity`], [`store`], [`live`], [`config`], [`accept`],
//! [`connect`].

pub mod accept;
pub mod address;
mod authority;
mod backoff;
mod base36;
pub mod bootstrap;
pub mod budget;
mod checked;
pub mod config;
pub mod connect;
pub mod connection;
pub mod identity;
pub mod live;
mod member;
pub mod peer;
pub mod pem;
pub mod registry;
pub mod renewal;
pub mod request;
pub mod serve;
pub mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod token;
pub mod unix;
mod verify;

pub use accept::{AcceptLimits, Incoming, Listener, incoming};
pub use address::HostPort;
pub use bootstrap::bootstrap_client_config;
pub use config::{anonymous_client_config, client_config, client_config_to_node, server_config};
pub use connect::{anonymous_channel, bootstrap_channel, channel, channel_to_node};
pub use connection::{Connection, ConnectionInfo, peer_of};
pub use identity::{Identity, IdentityError};
pub use live::LiveIdentity;
pub use member::member_channel;
pub use peer::{Peer, PeerError, Role};
pub use registry::Registry;
pub use renewal::renew_at;
pub use request::NodeKey;
pub use token::{JoinToken, TokenFormatError, ca_digest};
pub use unix::{UnixConnected, bind_unix, unix_channel, unix_incoming};
pub use verify::{IssuedError, issued_by};

/// The only protocol spoken inside TLS, as ALPN names it (RFC 7301, RFC 9113 section 3.1).
pub const ALPN_H2: &[u8] = b"h2";
