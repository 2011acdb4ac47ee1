//! The limits of every HTTP/2 server of ours, set one by one: tonic leaves some of them unlimited.

use tonic::transport::Server;

use super::connect::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};

/// Requests at the same time on one connection. (tonic's default is none, which also removes
/// hyper's own limit.)
pub const MAX_STREAMS: u32 = 128;
/// All header fields of one request together, in bytes.
pub const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Streams that the client opened and reset again before they were accepted (CVE-2023-44487).
pub const MAX_PENDING_RESETS: usize = 20;
/// Streams that we had to reset for errors of the client (the mirror of the same attack).
pub const MAX_LOCAL_RESETS: usize = 1024;
/// A tonic server with these limits; for TLS and unix sockets alike.
///
/// There is no greatest age of a connection: those over TLS end with the certificate of the peer
/// ([`super::connection`]), and those over unix sockets carry what a user watches.
pub fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(MAX_LOCAL_RESETS))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}
