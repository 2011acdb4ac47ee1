//! Which certificates are believed: signed by a trusted root, valid now, of our cluster, and of the
//! wanted role.
//!
//! The verifiers here are asked anew at each handshake and look at the live identity each time, so
//! that a changed set of roots needs no new configuration.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerifier as _};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use thiserror::Error;

use super::checked::ServerCheck;
use super::identity::provider;
use super::live::LiveIdentity;
use super::peer::{Peer, PeerError, Role};
use super::pem;

/// A set of roots, ready to check chains against. Cheap to clone.
#[derive(Clone)]
pub(super) struct Trust {
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<WebPkiServerVerifier>,
}

/// Why roots cannot be used, or do not cover the own certificate.
#[derive(Debug, Error)]
pub enum TrustError {
    /// A root is not a certificate that can be trusted.
    #[error("a root certificate cannot be used")]
    Root(#[source] Error),
    /// There is no root, so nobody could be believed.
    #[error("the set of trusted roots is empty")]
    Empty,
    /// No root signed the own certificate.
    #[error("no trusted root signed the certificate")]
    Unsigned(#[source] Error),
}

impl Trust {
    pub(super) fn new(roots: &[CertificateDer<'_>]) -> Result<Self, TrustError> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.clone().into_owned()).map_err(TrustError::Root)?;
        }
        let store = Arc::new(store);
        // The builders fail only for an empty store, as no revocation lists are given.
        let clients = WebPkiClientVerifier::builder_with_provider(store.clone(), provider())
            .build()
            .map_err(|_| TrustError::Empty)?;
        let servers = WebPkiServerVerifier::builder_with_provider(store, provider())
            .build()
            .map_err(|_| TrustError::Empty)?;
        Ok(Self { clients, servers })
    }

    /// Checks that the own chain leads to one of the roots, at a time when the certificate is
    /// valid.
    pub(super) fn check_own(
        &self,
        chain: &[CertificateDer<'_>],
        valid_at: SystemTime,
    ) -> Result<(), TrustError> {
        let (leaf, rest) = chain.split_first().ok_or(TrustError::Empty)?;
        let at =
            UnixTime::since_unix_epoch(valid_at.duration_since(UNIX_EPOCH).unwrap_or_default());
        match self.clients.verify_client_cert(leaf, rest, at) {
            Ok(_) => Ok(()),
            Err(error) => Err(TrustError::Unsigned(error)),
        }
    }

    /// Checks a manager's chain for a connection we open.
    pub(super) fn check_manager(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<Peer, Error> {
        self.servers.verify_server_cert(leaf, rest, name, &[], now)?;
        let peer = subject(leaf)?;
        match peer.role {
            Role::Manager => Ok(peer),
            role @ (Role::Worker | Role::Client) => Err(refuse(Refused::NotManager { role })),
        }
    }
}

/// Whose certificate this is, if one of the roots issued it at any time: it may have expired since.
///
/// For a node that comes back after its certificate has ended; what it may still do is up to the
/// caller, who must also see a proof that it holds the key.
pub fn issued_by(roots_pem: &str, certificate_der: &[u8]) -> Result<Peer, IssuedError> {
    let roots = pem::certificates(roots_pem).map_err(|_| IssuedError::Roots)?;
    let peer = Peer::from_der(certificate_der)?;
    let leaf = CertificateDer::from(certificate_der);
    Trust::new(&roots)?.check_own(std::slice::from_ref(&leaf), peer.not_before)?;
    Ok(peer)
}

/// Why a certificate is not one that the roots issued.
#[derive(Debug, Error)]
pub enum IssuedError {
    /// The roots are not PEM.
    #[error("the roots are not PEM")]
    Roots,
    /// The certificate has no usable subject.
    #[error("the certificate is not of a cluster")]
    Subject(#[from] PeerError),
    /// No root issued it.
    #[error("the certificate is not signed by a trusted root")]
    Trust(#[from] TrustError),
}

/// A chain that is signed properly and still not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Refused {
    #[error("certificate belongs to cluster {found}, not to {ours}")]
    OtherCluster { ours: String, found: String },
    #[error("the server is a {role}, not a manager")]
    NotManager { role: Role },
    #[error("the server is node {found}, not {wanted}")]
    OtherNode { wanted: String, found: String },
    #[error("the server did not present the root certificate that the join token names")]
    OtherRoot,
}

pub(super) fn refuse(why: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}

fn subject(leaf: &CertificateDer<'_>) -> Result<Peer, Error> {
    Peer::from_der(leaf).map_err(refuse)
}

fn same_cluster(live: &LiveIdentity, peer: &Peer) -> Result<(), Error> {
    let ours = live.subject().cluster_id;
    if peer.cluster_id == ours {
        return Ok(());
    }
    Err(refuse(Refused::OtherCluster { ours, found: peer.cluster_id.clone() }))
}

/// What the server believes: any certificate of our cluster, or none at all.
#[derive(Debug)]
pub(super) struct ClientVerifier(pub(super) LiveIdentity);

impl ClientCertVerifier for ClientVerifier {
    /// A joining node has no certificate. What it may call without one is decided per method, not
    /// here.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: every node has one certificate to offer, and hints would tell a stranger our
    /// roots.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.trust().clients.verify_client_cert(leaf, rest, now)?;
        same_cluster(&self.0, &subject(leaf)?)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.trust().clients.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.trust().clients.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.trust().clients.supported_verify_schemes()
    }
}

/// What a node believes of the server it calls: a manager of our cluster.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    pub(super) live: LiveIdentity,
    /// The one node it must be; any manager if not given.
    pub(super) node_id: Option<String>,
}

impl ServerVerifier {
    fn check_node(&self, peer: &Peer) -> Result<(), Error> {
        match &self.node_id {
            Some(wanted) if *wanted != peer.node_id => Err(refuse(Refused::OtherNode {
                wanted: wanted.clone(),
                found: peer.node_id.clone(),
            })),
            Some(_) | None => Ok(()),
        }
    }
}

impl ServerCheck for ServerVerifier {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let peer = self.live.trust().check_manager(leaf, rest, name, now)?;
        same_cluster(&self.live, &peer)?;
        self.check_node(&peer)
    }
}
