//! The subject of a node's certificate: role, node and cluster, as the authority wrote them.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Longest id that a certificate may carry: common and organization names end there (RFC 5280
/// appendix A.1, `ub-common-name`), and 32 bytes in hexadecimal fit exactly.
pub const MAX_ID_LENGTH: usize = 64;

/// What a certificate allows its holder to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Takes part in Raft and serves the others.
    Manager,
    /// Runs tasks.
    Worker,
    /// A user's program that calls the API.
    Client,
}

impl Role {
    /// Every role there is.
    pub const ALL: [Self; 3] = [Self::Manager, Self::Worker, Self::Client];

    /// The organizational unit of the certificate, and its first DNS name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Manager => "weft-manager",
            Self::Worker => "weft-worker",
            Self::Client => "weft-client",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl From<weft_model::spec::Role> for Role {
    fn from(role: weft_model::spec::Role) -> Self {
        match role {
            weft_model::spec::Role::Manager => Self::Manager,
            weft_model::spec::Role::Worker => Self::Worker,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The holder of a verified certificate.
///
/// Parsing checks nothing about signatures: take a `Peer` only from a finished handshake or of
/// one's own certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// What the holder may be.
    pub role: Role,
    /// The node's id; for [`Role::Client`] the name it was issued for.
    pub node_id: String,
    /// The cluster that issued the certificate.
    pub cluster_id: String,
    /// The serial number in lower-case hexadecimal, the name of this one certificate for
    /// revocation.
    pub serial: String,
    /// First second of validity.
    pub not_before: SystemTime,
    /// Last second of validity.
    pub not_after: SystemTime,
}

/// Why a certificate is not one of a cluster's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeerError {
    /// Not X.509, or followed by more bytes.
    #[error("certificate cannot be parsed")]
    Syntax,
    /// A subject field is missing, repeated, or not text.
    #[error("certificate subject must have exactly one {field} of text")]
    Field {
        /// `CN`, `OU` or `O`.
        field: &'static str,
    },
    /// The organizational unit is no role.
    #[error("certificate role `{}` is unknown", .found.escape_default())]
    Role {
        /// The organizational unit, cut to the length of an id.
        found: String,
    },
    /// An id could not have been given by an authority.
    #[error(
        "certificate {field} must be 1 to {MAX_ID_LENGTH} characters of a-z, 0-9, `-`, `_` and `.`"
    )]
    Id {
        /// `CN` or `O`.
        field: &'static str,
    },
    /// A time before 1970.
    #[error("certificate validity cannot be represented")]
    Validity,
}

impl Peer {
    /// Reads the subject of a certificate in DER.
    pub fn from_der(der: &[u8]) -> Result<Self, PeerError> {
        let (rest, certificate) =
            x509_parser::parse_x509_certificate(der).map_err(|_| PeerError::Syntax)?;
        if !rest.is_empty() {
            return Err(PeerError::Syntax);
        }
        Self::from_certificate(&certificate)
    }

    fn from_certificate(certificate: &X509Certificate<'_>) -> Result<Self, PeerError> {
        let subject = certificate.subject();
        let unit = only(subject.iter_organizational_unit(), "OU")?;
        let role = Role::from_name(unit)
            .ok_or_else(|| PeerError::Role { found: unit.chars().take(MAX_ID_LENGTH).collect() })?;
        let validity = certificate.validity();
        Ok(Self {
            role,
            node_id: id(subject.iter_common_name(), "CN")?,
            cluster_id: cluster_id(subject)?,
            serial: serial_hex(certificate.raw_serial()),
            not_before: time(validity.not_before.timestamp())?,
            not_after: time(validity.not_after.timestamp())?,
        })
    }

    /// True while the certificate is valid at `now`.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// The cluster that a subject (of a node or of a root) belongs to.
fn cluster_id(subject: &X509Name<'_>) -> Result<String, PeerError> {
    id(subject.iter_organization(), "O")
}

/// The cluster that a root certificate in DER belongs to.
pub fn cluster_of_root(der: &[u8]) -> Result<String, PeerError> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(der).map_err(|_| PeerError::Syntax)?;
    cluster_id(certificate.subject())
}

/// True if `id` may stand in a certificate.
pub fn is_id(id: &str) -> bool {
    (1..=MAX_ID_LENGTH).contains(&id.len())
        && id.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
}

fn id<'a>(
    values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>,
    field: &'static str,
) -> Result<String, PeerError> {
    let value = only(values, field)?;
    if is_id(value) { Ok(value.to_owned()) } else { Err(PeerError::Id { field }) }
}

/// Two subject fields of one kind would let two readers see two different nodes, so that is
/// refused.
fn only<'a>(
    mut values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>,
    field: &'static str,
) -> Result<&'a str, PeerError> {
    match (values.next(), values.next()) {
        (Some(value), None) => value.as_str().map_err(|_| PeerError::Field { field }),
        _ => Err(PeerError::Field { field }),
    }
}

/// A serial number without the sign byte that DER may put before it.
fn serial_hex(raw: &[u8]) -> String {
    let digits = raw.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(raw);
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn time(unix_seconds: i64) -> Result<SystemTime, PeerError> {
    let seconds = u64::try_from(unix_seconds).map_err(|_| PeerError::Validity)?;
    Ok(UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::DnType::{CommonName, OrganizationName, OrganizationalUnitName};
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber};

    fn certificate(subject: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (field, value) in subject {
            params.distinguished_name.push(field.clone(), *value);
        }
        params.serial_number = Some(SerialNumber::from_slice(&[0xfe, 1]));
        params.not_before = rcgen::date_time_ymd(2030, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 1, 2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn subject_becomes_a_peer() {
        let unit = (OrganizationalUnitName, "weft-worker");
        let der = certificate(&[(CommonName, "0a1b"), unit, (OrganizationName, "c1")]);
        let peer = Peer::from_der(&der).unwrap();
        assert_eq!(peer.role, Role::Worker);
        assert_eq!((peer.node_id.as_str(), peer.cluster_id.as_str()), ("0a1b", "c1"));
        assert_eq!(peer.serial, "fe01");
        assert_eq!(peer.not_after.duration_since(peer.not_before).unwrap().as_secs(), 86_400);
        assert!(peer.is_valid_at(peer.not_after));
        assert!(!peer.is_valid_at(peer.not_after + Duration::from_secs(1)));
        assert_eq!(Peer::from_der(&[&der[..], &[0]].concat()), Err(PeerError::Syntax));
        assert_eq!(Peer::from_der(&der[..der.len() - 1]), Err(PeerError::Syntax));
    }

    #[test]
    fn other_subjects_are_refused() {
        let unit = || (OrganizationalUnitName, "weft-worker");
        let long = "a".repeat(MAX_ID_LENGTH + 1);
        let cases: Vec<(Vec<(DnType, &str)>, PeerError)> = vec![
            (vec![unit(), (OrganizationName, "c")], PeerError::Field { field: "CN" }),
            (vec![(CommonName, "n"), unit()], PeerError::Field { field: "O" }),
            (vec![(CommonName, "n"), (OrganizationName, "c")], PeerError::Field { field: "OU" }),
            (
                vec![(CommonName, "n"), (OrganizationalUnitName, "root"), (OrganizationName, "c")],
                PeerError::Role { found: "root".into() },
            ),
            (
                vec![(CommonName, "N"), unit(), (OrganizationName, "c")],
                PeerError::Id { field: "CN" },
            ),
            (
                vec![(CommonName, "n"), unit(), (OrganizationName, "c/d")],
                PeerError::Id { field: "O" },
            ),
            (
                vec![(CommonName, &long), unit(), (OrganizationName, "c")],
                PeerError::Id { field: "CN" },
            ),
        ];
        for (subject, expected) in cases {
            assert_eq!(Peer::from_der(&certificate(&subject)), Err(expected));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            proptest::prop_assert!(Peer::from_der(&bytes).is_err());
        }
    }
}
