//! Certificates as PEM (RFC 7468) in one canonical form, because join tokens carry the digest of
//! those bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Characters of base 64 in a line (RFC 7468 section 2).
const LINE: usize = 64;

/// The canonical PEM of one certificate: lines of 64 characters that end with a single line feed.
pub fn certificate_pem(der: &[u8]) -> String {
    encode("CERTIFICATE", der)
}

/// The canonical PEM of several certificates, one after another.
pub fn certificates_pem(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(|certificate| certificate_pem(certificate)).collect()
}

/// The canonical PEM of a private key in PKCS #8.
pub(super) fn private_key_pem(pkcs8_der: &[u8]) -> String {
    encode("PRIVATE KEY", pkcs8_der)
}

fn encode(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        // Base 64 is ASCII, so any offset is a character boundary.
        let (line, tail) = rest.split_at(rest.len().min(LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

/// All certificates of a PEM text in their order; other sections and text between them are passed
/// over.
pub fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, PemError> {
    CertificateDer::pem_slice_iter(text.as_bytes()).collect()
}

/// The first private key of a PEM text.
pub(super) fn private_key(text: &str) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_slice(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_form_that_the_authority_writes() {
        let key = rcgen::KeyPair::generate().unwrap();
        let root = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        assert_eq!(certificate_pem(root.der()), root.pem());
        assert_eq!(certificates(&root.pem().repeat(2)).unwrap(), vec![root.der().clone(); 2]);
        assert_eq!(private_key_pem(key.serialized_der()), key.serialize_pem());
    }
}
