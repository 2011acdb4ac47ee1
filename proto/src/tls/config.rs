//! The TLS configurations of the cluster: version 1.3 only, HTTP/2 only, no resumption.
//!
//! Resumption is off on both sides because a resumed session keeps the certificate of the first
//! handshake, so that a renewed, demoted or revoked identity would live on.

use std::sync::Arc;

use rustls::client::{Resumption, WantsClientCert};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, ConfigBuilder, ServerConfig};

use super::ALPN_H2;
use super::checked::Checked;
use super::identity::provider;
use super::live::LiveIdentity;
use super::verify::{ClientVerifier, ServerVerifier};

/// Why building a configuration cannot fail: the provider is ring, which implements every TLS 1.3
/// suite it lists.
pub(super) const RING_SPEAKS_TLS13: &str = "the ring provider supports TLS 1.3";

/// What a manager serves with: its live certificate; a client certificate is optional but checked
/// if given.
pub fn server_config(live: &LiveIdentity) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_details(provider(), live.clock())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect(RING_SPEAKS_TLS13)
        .with_client_cert_verifier(Arc::new(ClientVerifier(live.clone())))
        .with_cert_resolver(Arc::new(live.clone()));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Arc::new(config)
}

/// What a node calls managers with: shows its live certificate, expects a manager of its own
/// cluster.
pub fn client_config(live: &LiveIdentity) -> Arc<ClientConfig> {
    finish(to_managers(live, None).with_client_cert_resolver(Arc::new(live.clone())))
}

/// The same, expecting one particular manager: for Raft, where an answer of another node is no
/// answer.
pub fn client_config_to_node(live: &LiveIdentity, node_id: &str) -> Arc<ClientConfig> {
    let builder = to_managers(live, Some(node_id.to_owned()));
    finish(builder.with_client_cert_resolver(Arc::new(live.clone())))
}

/// The same without showing a certificate: for a node whose own has expired and who asks for a new
/// one.
pub fn anonymous_client_config(live: &LiveIdentity) -> Arc<ClientConfig> {
    finish(to_managers(live, None).with_no_client_auth())
}

fn to_managers(
    live: &LiveIdentity,
    node_id: Option<String>,
) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let verifier = ServerVerifier { live: live.clone(), node_id };
    ClientConfig::builder_with_details(provider(), live.clock())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect(RING_SPEAKS_TLS13)
        // "Dangerous" is rustls's word for any verifier of one's own; ours asks rustls first and
        // then asks for more.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Checked::new(verifier)))
}

pub(super) fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}
