//! Calling a manager: a tonic channel over TLS that dials when it is first used, and again after a
//! failure.
//!
//! Each dial takes the identity as it is at that moment.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, OtherError};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;
use tracing::debug;

use super::address::HostPort;
use super::bootstrap::bootstrap_client_config;
use super::config::{anonymous_client_config, client_config, client_config_to_node};
use super::live::LiveIdentity;
use super::peer::Role;
use super::token::JoinToken;

/// Longest dial: resolving the name, TCP and TLS together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;
/// How often a silent connection is asked for a sign of life.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// How long the other side may take to give it.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// What was reached, and why it was not good.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Nothing listens there, the name is unknown, or the network is down.
    #[error("cannot connect to {address}")]
    Tcp {
        /// What was dialled.
        address: HostPort,
        /// What the system said.
        source: io::Error,
    },
    /// Something listens there and is not a manager that we may believe.
    #[error("connected to {address}, but it is not a manager of this cluster")]
    Tls {
        /// What was dialled.
        address: HostPort,
        /// What the handshake failed of.
        source: io::Error,
    },
    /// The whole took too long.
    #[error("no connection to {address} within {CONNECT_TIMEOUT:?}")]
    Timeout {
        /// What was dialled.
        address: HostPort,
    },
}

/// Calls the manager at `address` as ourselves.
pub fn channel(live: &LiveIdentity, address: &HostPort) -> Channel {
    channel_with(client_config(live), address)
}

/// Calls the manager at `address` as ourselves, if it is the node `node_id`.
pub fn channel_to_node(live: &LiveIdentity, address: &HostPort, node_id: &str) -> Channel {
    channel_with(client_config_to_node(live, node_id), address)
}

/// Calls the manager at `address` without showing a certificate, to renew one that has expired.
pub fn anonymous_channel(live: &LiveIdentity, address: &HostPort) -> Channel {
    channel_with(anonymous_client_config(live), address)
}

/// Calls the manager at `address` with nothing but a join token. The token itself is not sent by
/// this.
pub fn bootstrap_channel(token: &JoinToken, address: &HostPort) -> Channel {
    channel_with(bootstrap_client_config(token.ca_digest), address)
}

/// Calls the manager at `address` with any of the configurations of [`super::config`].
pub fn channel_with(config: Arc<ClientConfig>, address: &HostPort) -> Channel {
    let (connector, address) = (TlsConnector::from(config), address.clone());
    // The scheme is plain `http` because tonic would otherwise look for a TLS configuration of its
    // own.
    let uri = format!("http://{address}");
    let endpoint = Endpoint::from_shared(uri)
        .expect("HostPort admits only characters that a URI authority has");
    patient(endpoint).connect_with_connector_lazy(service_fn(move |_: Uri| {
        let (connector, address) = (connector.clone(), address.clone());
        async move { dial(&connector, &address).await.map(TokioIo::new) }
    }))
}

/// The same signs of life on every channel, so that a host that vanished is noticed in five
/// seconds.
pub(super) fn patient(endpoint: Endpoint) -> Endpoint {
    endpoint
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

async fn dial(
    connector: &TlsConnector,
    address: &HostPort,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    tokio::time::timeout(CONNECT_TIMEOUT, dial_patiently(connector, address))
        .await
        .unwrap_or_else(|_| Err(ConnectError::Timeout { address: address.clone() }))
}

async fn dial_patiently(
    connector: &TlsConnector,
    address: &HostPort,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let tcp = |source| ConnectError::Tcp { address: address.clone(), source };
    let stream = connect_any(address).await.map_err(tcp)?;
    // Small requests must not wait for the other side's delayed acknowledgement.
    stream.set_nodelay(true).map_err(tcp)?;
    // Managers are known by their role, not by where they listen: addresses change, and are not in
    // certificates.
    let name = ServerName::try_from(Role::Manager.name()).expect("the role is a valid DNS name");
    connector
        .connect(name, stream)
        .await
        .map_err(|error| ConnectError::Tls { address: address.clone(), source: in_words(error) })
}

/// Tries every address of a name in turn, each for its part of the time, so that one that swallows
/// packets (IPv6 that leads nowhere, most often) leaves time for the next.
async fn connect_any(address: &HostPort) -> io::Result<TcpStream> {
    let found = tokio::net::lookup_host((address.host(), address.port())).await?;
    let found: Vec<_> = found.take(MAX_ADDRESSES).collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    // One part is left for TLS. At most MAX_ADDRESSES are tried, so the count fits.
    let part = CONNECT_TIMEOUT / (found.len() as u32 + 1);
    for socket in &found {
        match tokio::time::timeout(part, TcpStream::connect(socket)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
        debug!(%address, %socket, error = %last, "address does not answer");
    }
    Err(last)
}

/// Our own reasons to refuse a certificate as sentences: rustls would print them as they stand in
/// the source text.
fn in_words(error: io::Error) -> io::Error {
    let reason = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match reason {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(refused)))) => {
            io::Error::new(error.kind(), refused.to_string())
        }
        // The other reasons are of rustls, which words them itself.
        _ => error,
    }
}
