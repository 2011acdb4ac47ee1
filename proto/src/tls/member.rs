//! Calling a node that need not be a manager: for a manager that asks a worker something.
//!
//! Workers listen on the cluster's port like managers do, with their own certificates. Which node it
//! must be is always known then, so the certificate must be that node's.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, Error};
use thiserror::Error as ThisError;
use tonic::transport::Channel;

use super::address::HostPort;
use super::checked::{Checked, ServerCheck};
use super::config::{RING_SPEAKS_TLS13, finish};
use super::connect::channel_with;
use super::identity::provider;
use super::live::LiveIdentity;
use super::peer::{Peer, Role};
use super::verify::refuse;

/// Calls the node `node_id` of our cluster, in whatever role, at `address` as ourselves.
pub fn member_channel(live: &LiveIdentity, address: &HostPort, node_id: &str) -> Channel {
    channel_with(member_client_config(live, node_id), address)
}

/// What a manager calls another node with.
fn member_client_config(live: &LiveIdentity, node_id: &str) -> Arc<ClientConfig> {
    let verifier = MemberVerifier { live: live.clone(), node_id: node_id.to_owned() };
    let builder = ClientConfig::builder_with_details(provider(), live.clock())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect(RING_SPEAKS_TLS13)
        // "Dangerous" is rustls's word for any verifier of one's own.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Checked::new(verifier)));
    finish(builder.with_client_cert_resolver(Arc::new(live.clone())))
}

/// A good certificate of another node than the one that was called, or of no node.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[error("the server is {found} ({role}) of cluster {cluster}, not node {wanted}")]
struct OtherMember {
    wanted: String,
    found: String,
    role: Role,
    cluster: String,
}

/// What is believed: a certificate that one of our roots signed for that node.
#[derive(Debug)]
struct MemberVerifier {
    live: LiveIdentity,
    node_id: String,
}

impl ServerCheck for MemberVerifier {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let chain: Vec<_> = std::iter::once(leaf).chain(rest).cloned().collect();
        let now = UNIX_EPOCH + Duration::from_secs(now.as_secs());
        self.live.trust().check_own(&chain, now).map_err(refuse)?;
        let peer = Peer::from_der(leaf).map_err(refuse)?;
        let ours = self.live.subject().cluster_id;
        let is_node = peer.role != Role::Client;
        if is_node && peer.node_id == self.node_id && peer.cluster_id == ours {
            return Ok(());
        }
        let Peer { node_id: found, role, cluster_id: cluster, .. } = peer;
        Err(refuse(OtherMember { wanted: self.node_id.clone(), found, role, cluster }))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::super::config::server_config;
    use super::super::identity::Identity;
    use super::super::testing::TestCa;
    use super::*;

    /// Whether a manager that wants node `wanted` believes this server.
    async fn believes(manager: &LiveIdentity, server: Identity, wanted: &str) -> bool {
        let (near, far) = tokio::io::duplex(1 << 16);
        let acceptor = TlsAcceptor::from(server_config(&LiveIdentity::new(server)));
        let serving = async {
            let mut stream = acceptor.accept(near).await?;
            stream.write_all(b"!").await
        };
        let calling = async {
            let name = ServerName::try_from("weft-manager").unwrap();
            let connector = TlsConnector::from(member_client_config(manager, wanted));
            connector.connect(name, far).await?.read_u8().await
        };
        let (_, heard) = tokio::join!(serving, calling);
        heard.is_ok()
    }

    #[tokio::test]
    async fn only_the_node_that_was_called_is_believed_in_whatever_role() {
        let (ours, other) = (TestCa::new("c1"), TestCa::new("c1"));
        let manager = LiveIdentity::new(ours.manager("m1"));
        let roots = &ours.root_pem;
        let table = [
            (ours.worker("w1"), true),
            (ours.manager("w1"), true),
            (ours.worker("w2"), false),
            (ours.issue(Role::Client, "w1", "c1", roots), false),
            (ours.issue(Role::Worker, "w1", "c2", roots), false),
            (other.worker("w1"), false),
        ];
        for (server, expected) in table {
            let subject = server.subject().clone();
            assert_eq!(believes(&manager, server, "w1").await, expected, "{subject:?}");
        }
    }
}
