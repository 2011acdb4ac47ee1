//! A node's identity: its certificate, its key, and the roots it trusts. Checked whole when it is
//! made.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use thiserror::Error;

use super::peer::{Peer, PeerError};
use super::pem;
use super::verify::{Trust, TrustError};

/// A certificate chain with its key, and the roots that this node trusts. Cheap to clone.
///
/// Whoever holds one knows that the key belongs to the certificate, that the certificate is of a
/// cluster and that one of the roots signed it. Whether it is still valid is a question of time,
/// asked at each handshake.
#[derive(Clone)]
pub struct Identity(Arc<Parts>);

struct Parts {
    certified: Arc<CertifiedKey>,
    key: PrivateKeyDer<'static>,
    roots: Vec<CertificateDer<'static>>,
    trust: Trust,
    subject: Peer,
}

/// Why three PEM texts are not an identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A section of a text is not PEM.
    #[error("{what} is not PEM: {reason}")]
    Pem {
        /// Which of the texts.
        what: &'static str,
        /// What the parser says; it keeps no source chain.
        reason: String,
    },
    /// There is no certificate at all.
    #[error("the certificate chain is empty")]
    NoCertificate,
    /// The key is of a kind that cannot sign handshakes, or it is not the certificate's.
    #[error("the key does not fit the certificate")]
    Key(#[source] rustls::Error),
    /// The certificate does not say which node it is for.
    #[error("the certificate is not of a cluster")]
    Subject(#[from] PeerError),
    /// The roots cannot be used, or none of them signed the certificate.
    #[error("the certificate is not signed by a trusted root")]
    Trust(#[from] TrustError),
}

impl Identity {
    /// Puts an identity together from the chain (own certificate first, then the root that signed
    /// it), the key (PKCS #8) and the trusted roots, all PEM.
    pub fn from_pem(
        chain_pem: &str,
        key_pem: &str,
        roots_pem: &str,
    ) -> Result<Self, IdentityError> {
        let chain = certificates("certificate chain", chain_pem)?;
        let roots = certificates("trusted roots", roots_pem)?;
        let key = pem::private_key(key_pem).map_err(|error| not_pem("private key", &error))?;
        let certified = certified_key(chain, &key)?;
        let leaf = certified.cert.first().ok_or(IdentityError::NoCertificate)?;
        let subject = Peer::from_der(leaf)?;
        let trust = Trust::new(&roots)?;
        trust.check_own(&certified.cert, subject.not_before)?;
        Ok(Self(Arc::new(Parts { certified: Arc::new(certified), key, roots, trust, subject })))
    }

    /// Who this certificate says we are.
    pub fn subject(&self) -> &Peer {
        &self.0.subject
    }

    /// Own certificate first, then what the other side needs to reach a root.
    pub fn chain_pem(&self) -> String {
        pem::certificates_pem(&self.0.certified.cert)
    }

    /// The private key as PKCS #8 PEM: secret.
    pub fn key_pem(&self) -> String {
        pem::private_key_pem(self.0.key.secret_der())
    }

    /// Every root that this node trusts.
    pub fn roots_pem(&self) -> String {
        pem::certificates_pem(&self.0.roots)
    }

    /// The own certificate alone, in DER.
    pub fn certificate_der(&self) -> &[u8] {
        // `from_pem` refused an empty chain, and the empty slice would be refused by every reader.
        self.0.certified.cert.first().map_or(&[], |leaf| leaf.as_ref())
    }

    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        self.0.certified.clone()
    }

    pub(super) fn trust(&self) -> &Trust {
        &self.0.trust
    }
}

/// Keeps the key out of logs.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("subject", &self.0.subject).finish_non_exhaustive()
    }
}

/// The one cryptography of the whole program. Named everywhere, as two in one process make the
/// automatic choice panic.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Result<CertifiedKey, IdentityError> {
    if chain.is_empty() {
        return Err(IdentityError::NoCertificate);
    }
    let signer = rustls::crypto::ring::sign::any_ecdsa_type(key).map_err(IdentityError::Key)?;
    let certified = CertifiedKey::new(chain, signer);
    certified.keys_match().map_err(IdentityError::Key)?;
    Ok(certified)
}

fn certificates(
    what: &'static str,
    text: &str,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    pem::certificates(text).map_err(|error| not_pem(what, &error))
}

fn not_pem(what: &'static str, error: &rustls::pki_types::pem::Error) -> IdentityError {
    IdentityError::Pem { what, reason: error.to_string() }
}
