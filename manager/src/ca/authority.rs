//! The cluster's own root, and the certificates it signs.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType,
    SerialNumber,
};
use thiserror::Error;
use time::OffsetDateTime;
use weft_proto::tls::peer::{PeerError, cluster_of_root, is_id};
use weft_proto::tls::{Identity, IdentityError, NodeKey, Peer, Role, ca_digest, pem};

use super::csr::{self, CsrError};

/// A certificate is valid from this long before it was signed, as clocks of nodes differ.
pub const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// Life of the root. A rotation replaces it earlier; it only must not end by itself.
const ROOT_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// Shortest life of a certificate: one that ends before it is renewed helps nobody.
pub const MIN_VALIDITY: Duration = Duration::from_secs(60);
/// Longest life of a certificate.
pub const MAX_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Common name of the root.
const ROOT_NAME: &str = "weft-ca";
/// Random bytes of a serial number: no two are alike, and none can be guessed (at most 20, RFC
/// 5280 section 4.1.2.2).
const SERIAL_BYTES: usize = 16;
/// The name under which a certificate also carries the node's id, which is too long for a DNS name.
const NODE_URI: &str = "urn:weft:node:";

/// A root certificate with its key.
pub struct Authority {
    root_pem: String,
    cluster_id: String,
    root_not_after: SystemTime,
    issuer: Issuer<'static, KeyPair>,
}

/// Whom a certificate is for. Decided by the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What the holder may be.
    pub role: Role,
    /// The node's id, or the name of a client.
    pub node_id: String,
}

/// A signed certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate and then the root, PEM: the chain that [`Identity::from_pem`] takes.
    pub chain_pem: String,
    /// What the certificate says, serial number and life included.
    pub peer: Peer,
}

/// Why a root and a key are not an authority.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// The cluster's id cannot stand in a certificate.
    #[error("cluster id cannot stand in a certificate")]
    ClusterId,
    /// The system's randomness failed, or a PEM text is damaged.
    #[error("cannot make or read the root certificate and its key")]
    Crypto(#[from] rcgen::Error),
    /// The root certificate is not one of a cluster.
    #[error("the root certificate is not of a cluster")]
    Subject(#[from] PeerError),
    /// The root certificate is not PEM, or not exactly one, or not in the form that is hashed.
    #[error("the root certificate must be exactly one certificate in canonical PEM")]
    Form,
    /// The key belongs to another root.
    #[error("the key does not belong to the root certificate")]
    OtherKey,
}

/// Why a certificate was not issued.
#[derive(Debug, Error)]
pub enum IssueError {
    /// The request is not one that can be signed.
    #[error("signing request refused")]
    Csr(#[from] CsrError),
    /// The id or name cannot stand in a certificate.
    #[error("node id or client name cannot stand in a certificate")]
    Id,
    /// Too short or too long a life.
    #[error("validity of {wanted:?} is not between {MIN_VALIDITY:?} and {MAX_VALIDITY:?}")]
    Validity {
        /// What was asked for.
        wanted: Duration,
    },
    /// The root ends before the certificate would be of use.
    #[error("the root certificate is about to end and must be rotated first")]
    RootEnds,
    /// Signing failed.
    #[error("cannot sign the certificate")]
    Sign(#[source] rcgen::Error),
    /// What was signed cannot be read back.
    #[error("the signed certificate is unusable")]
    Unusable(#[from] PeerError),
}

/// Why the own identity could not be made.
#[derive(Debug, Error)]
pub enum IdentityIssueError {
    /// The key could not be made.
    #[error("cannot make a node key")]
    Key(#[from] weft_proto::tls::request::NodeKeyError),
    /// The certificate was not issued.
    #[error("cannot issue a certificate for this node")]
    Issue(#[from] IssueError),
    /// The parts do not fit.
    #[error("the issued certificate does not make an identity")]
    Identity(#[from] IdentityError),
}

impl Authority {
    /// Makes the root of a new cluster, valid from `now` (less [`BACKDATE`]) for 20 years.
    pub fn create(cluster_id: &str, now: SystemTime) -> Result<Self, AuthorityError> {
        if !is_id(cluster_id) {
            return Err(AuthorityError::ClusterId);
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, ROOT_NAME);
        params.distinguished_name.push(DnType::OrganizationName, cluster_id);
        // It signs nodes only, never another authority.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(new_serial());
        params.not_before = OffsetDateTime::from(now - BACKDATE);
        params.not_after = OffsetDateTime::from(now + ROOT_VALIDITY);
        let root = params.self_signed(&key)?;
        Self::from_pem(&root.pem(), &key.serialize_pem())
    }

    /// Takes up an authority from the replicated state. Refuses a key of another root, so that a
    /// damaged state cannot sign certificates that nobody believes.
    pub fn from_pem(root_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let roots = pem::certificates(root_pem).map_err(|_| AuthorityError::Form)?;
        let [root] = &roots[..] else { return Err(AuthorityError::Form) };
        // Tokens carry the digest of the canonical form, which a joining node computes by itself.
        if pem::certificate_pem(root) != root_pem {
            return Err(AuthorityError::Form);
        }
        let key = KeyPair::from_pem(key_pem)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(root).map_err(|_| AuthorityError::Form)?;
        if *parsed.public_key().subject_public_key.data != *key.der_bytes() {
            return Err(AuthorityError::OtherKey);
        }
        let not_after = parsed.validity().not_after.to_datetime();
        Ok(Self {
            root_pem: root_pem.to_owned(),
            cluster_id: cluster_of_root(root)?,
            root_not_after: not_after.into(),
            issuer: Issuer::from_ca_cert_der(root, key)?,
        })
    }

    /// The root certificate, which everybody may know.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The root's key: whoever has it is the cluster.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// What join tokens carry.
    pub fn digest(&self) -> [u8; 32] {
        ca_digest(&self.root_pem)
    }

    /// The cluster this is the authority of.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Signs the key of a request for `subject`, valid for `validity` from `now`, but not beyond
    /// the root.
    ///
    /// Nothing but the key is taken from the request; whatever else it claims is ignored.
    pub fn sign_csr(
        &self,
        csr_der: &[u8],
        subject: &Subject,
        validity: Duration,
        now: SystemTime,
    ) -> Result<Issued, IssueError> {
        let key = csr::proven_key(csr_der)?;
        let mut params = self.leaf(subject)?;
        params.not_before = OffsetDateTime::from(now - BACKDATE);
        params.not_after = OffsetDateTime::from(self.end(validity, now)?);
        let certificate = params.signed_by(&key, &self.issuer).map_err(IssueError::Sign)?;
        let peer = Peer::from_der(certificate.der())?;
        Ok(Issued { chain_pem: certificate.pem() + &self.root_pem, peer })
    }

    /// Makes a key and signs it at once: for the manager that holds this authority, when it makes
    /// the cluster, or finds its own certificate expired.
    pub fn issue_identity(
        &self,
        subject: &Subject,
        validity: Duration,
        now: SystemTime,
    ) -> Result<Identity, IdentityIssueError> {
        let key = NodeKey::generate()?;
        let issued = self.sign_csr(&key.csr_der()?, subject, validity, now)?;
        Ok(Identity::from_pem(&issued.chain_pem, &key.pem(), &self.root_pem)?)
    }

    /// Everything about a certificate but its life.
    fn leaf(&self, subject: &Subject) -> Result<CertificateParams, IssueError> {
        let Subject { role, node_id } = subject;
        if !is_id(node_id) {
            return Err(IssueError::Id);
        }
        let mut params =
            CertificateParams::new([role.name().to_owned()]).map_err(IssueError::Sign)?;
        let uri = format!("{NODE_URI}{node_id}").try_into().map_err(IssueError::Sign)?;
        params.subject_alt_names.push(SanType::URI(uri));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, node_id.as_str());
        params.distinguished_name.push(DnType::OrganizationalUnitName, role.name());
        params.distinguished_name.push(DnType::OrganizationName, self.cluster_id.as_str());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages(*role);
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(new_serial());
        Ok(params)
    }

    fn end(&self, validity: Duration, now: SystemTime) -> Result<SystemTime, IssueError> {
        if !(MIN_VALIDITY..=MAX_VALIDITY).contains(&validity) {
            return Err(IssueError::Validity { wanted: validity });
        }
        if now + MIN_VALIDITY > self.root_not_after {
            return Err(IssueError::RootEnds);
        }
        Ok((now + validity).min(self.root_not_after))
    }
}

/// Nodes serve and call; a client only calls.
fn usages(role: Role) -> Vec<ExtendedKeyUsagePurpose> {
    match role {
        Role::Manager | Role::Worker => {
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
        }
        Role::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
    }
}

/// The first bit is cleared, as DER reads it as a sign.
fn new_serial() -> SerialNumber {
    let mut serial: [u8; SERIAL_BYTES] = rand::random();
    serial[0] &= 0x7f;
    SerialNumber::from_slice(&serial)
}

/// Keeps the key out of logs.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("cluster_id", &self.cluster_id).finish_non_exhaustive()
    }
}
