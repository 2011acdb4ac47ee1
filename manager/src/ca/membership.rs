//! How a node whose certificate has expired shows who it is: by the key that it had.
//!
//! It calls without a certificate, and sends the expired one along with a signing request made with
//! the same key. The request's own signature proves that it holds the key, and the root's signature
//! says whose key that was. A copy of the two sent by somebody else yields a certificate for that
//! same key, which is of use to nobody but the node; so no challenge is needed.
//!
//! A cluster that was powered off for longer than certificates live comes back by itself that way.

use rcgen::PublicKeyData as _;
use thiserror::Error;
use weft_proto::tls::{IssuedError, Peer, issued_by};

use super::csr::{self, CsrError};

/// Why the sender is not the node of the certificate.
#[derive(Debug, Error)]
pub enum ProofError {
    /// The certificate was never issued by this cluster.
    #[error("certificate is not of this cluster")]
    Certificate(#[from] IssuedError),
    /// The request proves nothing.
    #[error("signing request refused")]
    Csr(#[from] CsrError),
    /// The request proves another key.
    #[error("signing request is not made with the key of the certificate")]
    OtherKey,
}

/// The node that the expired certificate was issued to, proven to hold its key.
///
/// The caller must still look whether it is a member, and give it the role the cluster gives it
/// now: neither is the certificate's to say.
pub fn prove_member(
    roots_pem: &str,
    certificate_der: &[u8],
    csr_der: &[u8],
) -> Result<Peer, ProofError> {
    let peer = issued_by(roots_pem, certificate_der)?;
    let key = csr::proven_key(csr_der)?;
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate_der)
        .map_err(|_| IssuedError::Subject(weft_proto::tls::PeerError::Syntax))?;
    if *certificate.public_key().subject_public_key.data == *key.der_bytes() {
        Ok(peer)
    } else {
        Err(ProofError::OtherKey)
    }
}
