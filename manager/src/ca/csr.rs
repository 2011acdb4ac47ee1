//! Certificate signing requests (PKCS #10, RFC 2986): only the key is taken from them.

use rcgen::{
    CertificateSigningRequestParams, PKCS_ECDSA_P256_SHA256, PublicKey, PublicKeyData as _,
};
use rustls::pki_types::CertificateSigningRequestDer;
use thiserror::Error;

/// Ours have about 250 bytes; nothing that fits a key needs more.
pub const MAX_CSR_BYTES: usize = 4096;
/// A point of P-256, uncompressed: a tag and two coordinates (SEC 1 section 2.3.3).
const P256_POINT_BYTES: usize = 65;

/// Why a request is not signed.
#[derive(Debug, Error)]
pub enum CsrError {
    /// Larger than any request of ours.
    #[error("signing request has {found} bytes, more than {MAX_CSR_BYTES}")]
    TooLong {
        /// Its size.
        found: usize,
    },
    /// Not a request, or its signature is not of the key in it.
    #[error("signing request is malformed or not signed by its own key")]
    Malformed(#[source] rcgen::Error),
    /// Another kind of key than nodes have.
    #[error("signing request must be for an ECDSA P-256 key")]
    Algorithm,
}

/// The public key of a request, proven by the request's signature to be in the sender's hands.
pub fn proven_key(csr_der: &[u8]) -> Result<PublicKey, CsrError> {
    if csr_der.len() > MAX_CSR_BYTES {
        return Err(CsrError::TooLong { found: csr_der.len() });
    }
    let der = CertificateSigningRequestDer::from(csr_der);
    let key =
        CertificateSigningRequestParams::from_der(&der).map_err(CsrError::Malformed)?.public_key;
    // The signature's algorithm does not fix the curve: P-384 may sign with SHA-256 as well.
    let is_p256 =
        *key.algorithm() == PKCS_ECDSA_P256_SHA256 && key.der_bytes().len() == P256_POINT_BYTES;
    if is_p256 { Ok(key) } else { Err(CsrError::Algorithm) }
}
