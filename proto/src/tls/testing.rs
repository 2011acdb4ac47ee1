//! A throwaway authority for this crate's tests; the real one lives with the managers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use super::identity::Identity;
use super::peer::Role;
use super::token::{JoinToken, ca_digest};

/// A clock that stands.
#[derive(Debug)]
pub(crate) struct Stopped(pub(crate) SystemTime);

impl TimeProvider for Stopped {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.duration_since(UNIX_EPOCH).unwrap()))
    }
}

/// Signs whatever a test asks for, good or bad.
pub(crate) struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) root_pem: String,
    cluster_id: String,
}

/// How long the certificates of a [`TestCa`] live, from an hour ago.
pub(crate) const LIFE: Duration = Duration::from_secs(24 * 3600);

impl TestCa {
    pub(crate) fn new(cluster_id: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "weft-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let root_pem = params.self_signed(&key).unwrap().pem();
        let cluster_id = cluster_id.to_owned();
        Self { issuer: Issuer::new(params, key), root_pem, cluster_id }
    }

    pub(crate) fn manager(&self, node_id: &str) -> Identity {
        self.issue(Role::Manager, node_id, &self.cluster_id, &self.root_pem)
    }

    pub(crate) fn worker(&self, node_id: &str) -> Identity {
        self.issue(Role::Worker, node_id, &self.cluster_id, &self.root_pem)
    }

    pub(crate) fn token(&self) -> JoinToken {
        JoinToken { ca_digest: ca_digest(&self.root_pem), secret: [7; 16] }
    }

    /// Any subject, trusting any roots.
    pub(crate) fn issue(
        &self,
        role: Role,
        node_id: &str,
        cluster_id: &str,
        roots_pem: &str,
    ) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([role.name().to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, node_id);
        params.distinguished_name.push(DnType::OrganizationalUnitName, role.name());
        params.distinguished_name.push(DnType::OrganizationName, cluster_id);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let start = SystemTime::now() - Duration::from_secs(3600);
        params.not_before = start.into();
        params.not_after = (start + LIFE).into();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain = certificate.pem() + &self.root_pem;
        Identity::from_pem(&chain, &key.serialize_pem(), roots_pem).unwrap()
    }
}
