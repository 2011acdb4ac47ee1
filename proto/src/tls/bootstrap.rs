//! The first connection of a node that has only a join token.
//!
//! Every manager sends the root certificate along in its chain. The joining node takes the root
//! whose digest the token carries as the only one it trusts, and then checks the manager's
//! certificate against it as usual. Somebody in the middle can replay the root, which is public,
//! but has no certificate signed by it; so the handshake fails before a single byte of ours, the
//! secret above all, is sent. (The other way, to fetch the root first over a connection that proves
//! nothing, needs a second connection and a moment in which an unproven server is listened to.)

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConfig, Error};

use super::checked::{Checked, ServerCheck};
use super::config::{RING_SPEAKS_TLS13, finish};
use super::identity::provider;
use super::token::ca_digest_of_der;
use super::verify::{Refused, Trust, refuse};

/// Calls a manager with no certificate of our own, believing only the root that has this digest.
pub fn bootstrap_client_config(ca_digest: [u8; 32]) -> Arc<ClientConfig> {
    bootstrap_client_config_with_clock(ca_digest, Arc::new(DefaultTimeProvider))
}

/// The same, judging certificates by `clock`.
pub fn bootstrap_client_config_with_clock(
    ca_digest: [u8; 32],
    clock: Arc<dyn TimeProvider>,
) -> Arc<ClientConfig> {
    finish(
        ClientConfig::builder_with_details(provider(), clock)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect(RING_SPEAKS_TLS13)
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Checked::new(PinnedRoot { ca_digest })))
            .with_no_client_auth(),
    )
}

/// Believes a manager whose chain ends in the one root that is known by its digest.
#[derive(Debug)]
struct PinnedRoot {
    ca_digest: [u8; 32],
}

impl ServerCheck for PinnedRoot {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let root = rest
            .iter()
            .find(|certificate| ca_digest_of_der(certificate) == self.ca_digest)
            .ok_or_else(|| refuse(Refused::OtherRoot))?;
        let trust = Trust::new(std::slice::from_ref(root)).map_err(refuse)?;
        trust.check_manager(leaf, rest, name, now).map(drop)
    }
}
