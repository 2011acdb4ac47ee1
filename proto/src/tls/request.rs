//! The node's own key and its request for a certificate. The key is made here and never leaves the
//! node.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use thiserror::Error;

/// A fresh P-256 key, waiting for its certificate.
pub struct NodeKey(KeyPair);

/// The key or the request could not be made; the system's randomness failed.
#[derive(Debug, Error)]
#[error("cannot make a node key")]
pub struct NodeKeyError(#[from] rcgen::Error);

impl NodeKey {
    /// Draws a new key from the system's randomness.
    pub fn generate() -> Result<Self, NodeKeyError> {
        Ok(Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    /// Takes the key of an existing identity again, to renew an expired certificate by possession
    /// of its key.
    pub fn from_pem(key_pem: &str) -> Result<Self, NodeKeyError> {
        Ok(Self(KeyPair::from_pem(key_pem)?))
    }

    /// A certificate signing request (PKCS #10) in DER.
    ///
    /// Its subject is empty: role, node and cluster are the authority's decision, only the key is
    /// ours.
    pub fn csr_der(&self) -> Result<Vec<u8>, NodeKeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&self.0)?.der().to_vec())
    }

    /// The key as PKCS #8 PEM, for [`super::Identity::from_pem`].
    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }
}
