//! The certificate authority against nodes that tell the truth and nodes that do not.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateSigningRequestDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use weft_manager::ca::authority::{AuthorityError, BACKDATE, IssueError, MAX_VALIDITY};
use weft_manager::ca::csr::{CsrError, MAX_CSR_BYTES};
use weft_manager::ca::{Authority, ProofError, Subject, join_token, prove_member};
use weft_proto::tls::{
    Identity, LiveIdentity, NodeKey, Peer, Role, bootstrap_client_config, client_config, pem,
    server_config,
};

const DAY: Duration = Duration::from_secs(24 * 3600);
const CLUSTER: &str = "c0ffee";

/// Whole seconds, as certificates have no others.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_900_000_000)
}

fn authority() -> Authority {
    Authority::create(CLUSTER, now()).unwrap()
}

fn subject(role: Role, node_id: &str) -> Subject {
    Subject { role, node_id: node_id.to_owned() }
}

fn worker() -> Subject {
    subject(Role::Worker, &"5".repeat(64))
}

fn leaf_der(chain_pem: &str) -> Vec<u8> {
    pem::certificates(chain_pem).unwrap()[0].to_vec()
}

/// Everything a greedy node could write into a request.
fn greedy_csr(key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::new(["weft-manager".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "m1");
    params.distinguished_name.push(DnType::OrganizationalUnitName, "weft-manager");
    params.distinguished_name.push(DnType::OrganizationName, "other");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.serialize_request(key).unwrap().der().to_vec()
}

#[test]
fn the_subject_is_what_the_authority_says() {
    let authority = authority();
    let key = KeyPair::generate().unwrap();
    let csr = greedy_csr(&key);
    let issued = authority.sign_csr(&csr, &worker(), DAY, now()).unwrap();
    assert_eq!(issued.peer.role, Role::Worker);
    assert_eq!(issued.peer.node_id, "5".repeat(64));
    assert_eq!(issued.peer.cluster_id, CLUSTER);
    assert_eq!(issued.peer.not_before, now() - BACKDATE);
    assert_eq!(issued.peer.not_after, now() + DAY);

    let der = leaf_der(&issued.chain_pem);
    assert_eq!(Peer::from_der(&der).unwrap(), issued.peer);
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(!certificate.is_ca());
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign());
    let names = certificate.subject_alternative_name().unwrap().unwrap().value;
    let names: Vec<String> = names.general_names.iter().map(ToString::to_string).collect();
    assert_eq!(names.len(), 2);
    assert!(names[0].contains("weft-worker") && names[1].contains(&"5".repeat(64)), "{names:?}");
    let identity =
        Identity::from_pem(&issued.chain_pem, &key.serialize_pem(), authority.root_pem());
    assert_eq!(*identity.unwrap().subject(), issued.peer);
}

#[test]
fn nodes_may_serve_and_clients_may_not() {
    let authority = authority();
    for (role, serves) in [(Role::Manager, true), (Role::Worker, true), (Role::Client, false)] {
        let csr = NodeKey::generate().unwrap().csr_der().unwrap();
        let issued = authority.sign_csr(&csr, &subject(role, "x"), DAY, now()).unwrap();
        let der = leaf_der(&issued.chain_pem);
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth, "{role}");
        assert_eq!(usage.server_auth, serves, "{role}");
    }
}

#[test]
fn two_certificates_for_one_key_differ_by_serial() {
    let authority = authority();
    let csr = NodeKey::generate().unwrap().csr_der().unwrap();
    let serial = || authority.sign_csr(&csr, &worker(), DAY, now()).unwrap().peer.serial;
    let (one, other) = (serial(), serial());
    assert_ne!(one, other);
    assert!(one.len() >= 30, "{one} has too little chance in it");
}

#[test]
fn bad_requests_are_not_signed() {
    let authority = authority();
    let sign = |csr: &[u8]| match authority.sign_csr(csr, &worker(), DAY, now()) {
        Err(IssueError::Csr(error)) => error,
        other => panic!("{other:?}"),
    };
    let good = NodeKey::generate().unwrap().csr_der().unwrap();
    let mut forged = good.clone();
    // The signature stands at the end.
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let malformed = [forged, good[..good.len() - 1].to_vec(), Vec::new(), vec![0x30; 64]];
    for csr in malformed {
        assert!(matches!(sign(&csr), CsrError::Malformed(_)), "{} bytes", csr.len());
    }
    let long = vec![0x30; MAX_CSR_BYTES + 1];
    assert!(matches!(sign(&long), CsrError::TooLong { found } if found == MAX_CSR_BYTES + 1));
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap();
        assert!(matches!(sign(csr.der()), CsrError::Algorithm));
    }
}

/// Made by `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-384 -sha256`: the signature's
/// algorithm is the one of our keys, the curve is not.
const P384_WITH_SHA256: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIIBBDCBiwIBADAMMQowCAYDVQQDDAF4MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE
zUXGtpW5ichIgmzqAjsXROsK12EvlnOfCikpQv4YpP1FwHQzd8q4OnIXtZ0wcc/t
HsUXvFJ5RjNSJEFtWtEkA8WQUQdH2zwhYqdzKYkFzfuT72lDy+SYNSgv1oAI3lAb
oAAwCgYIKoZIzj0EAwIDaAAwZQIxAI3yypLZr88f/Bd8H9hCfa3o1EIxSnVojVko
L2AO+lwr1IH80ZlxZ/WHYk7qwMXDtgIwP91RlLKfNOM+hja2qGJpVCgjdmwaEo0x
ir3MsOcaE5u7Pmrm/NtOZoZIlTaHkmkX
-----END CERTIFICATE REQUEST-----
";

#[test]
fn another_curve_under_the_same_algorithm_is_not_signed() {
    let csr = CertificateSigningRequestDer::from_pem_slice(P384_WITH_SHA256.as_bytes()).unwrap();
    let result = authority().sign_csr(&csr, &worker(), DAY, now());
    assert!(matches!(result, Err(IssueError::Csr(CsrError::Algorithm))), "{result:?}");
}

#[test]
fn a_request_with_the_key_of_another_is_not_signed() {
    let (mine, theirs) = (NodeKey::generate().unwrap(), NodeKey::generate().unwrap());
    let (mut forged, theirs) = (mine.csr_der().unwrap(), theirs.csr_der().unwrap());
    let point = |csr: &[u8]| {
        let mark = csr.windows(3).position(|bytes| bytes == [0x42, 0, 4]).unwrap() + 2;
        mark..mark + 65
    };
    forged[point(&mine.csr_der().unwrap())].copy_from_slice(&theirs[point(&theirs)]);
    let result = authority().sign_csr(&forged, &worker(), DAY, now());
    assert!(matches!(result, Err(IssueError::Csr(CsrError::Malformed(_)))), "{result:?}");
}

#[test]
fn no_single_flipped_bit_changes_whose_key_is_signed() {
    let authority = authority();
    let csr = NodeKey::generate().unwrap().csr_der().unwrap();
    let key = weft_manager::ca::csr::proven_key(&csr).unwrap();
    for bit in 0..csr.len() * 8 {
        let mut flipped = csr.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(found) = weft_manager::ca::csr::proven_key(&flipped) {
            assert_eq!(found, key, "bit {bit}");
        }
        // The subject is the authority's whatever the request has become.
        if let Ok(issued) = authority.sign_csr(&flipped, &worker(), DAY, now()) {
            assert_eq!(issued.peer.role, Role::Worker, "bit {bit}");
        }
    }
}

#[test]
fn lives_and_names_have_limits() {
    let authority = authority();
    let csr = NodeKey::generate().unwrap().csr_der().unwrap();
    let too_long = MAX_VALIDITY + Duration::from_secs(1);
    for wanted in [Duration::ZERO, Duration::from_secs(59), too_long, Duration::MAX] {
        let result = authority.sign_csr(&csr, &worker(), wanted, now());
        assert!(matches!(result, Err(IssueError::Validity { wanted: w }) if w == wanted));
    }
    for id in ["", "A", "a b", "a\n", "../x", &"a".repeat(65)] {
        let result = authority.sign_csr(&csr, &subject(Role::Client, id), DAY, now());
        assert!(matches!(result, Err(IssueError::Id)), "{id:?}");
        assert!(matches!(Authority::create(id, now()), Err(AuthorityError::ClusterId)), "{id:?}");
    }
    let late = now() + Duration::from_secs(20 * 365 * 24 * 3600) - DAY / 2;
    let root_end = authority.sign_csr(&csr, &worker(), DAY, late).unwrap().peer.not_after;
    assert_eq!(root_end, late + DAY / 2, "a certificate does not outlive its root");
    let result = authority.sign_csr(&csr, &worker(), DAY, late + DAY);
    assert!(matches!(result, Err(IssueError::RootEnds)));
}

#[test]
fn an_authority_comes_back_from_its_two_texts() {
    let one = authority();
    let two = Authority::from_pem(one.root_pem(), &one.key_pem()).unwrap();
    assert_eq!((two.cluster_id(), two.digest()), (CLUSTER, one.digest()));
    let csr = NodeKey::generate().unwrap().csr_der().unwrap();
    let issued = two.sign_csr(&csr, &worker(), DAY, now()).unwrap();
    let peer = weft_proto::tls::issued_by(one.root_pem(), &leaf_der(&issued.chain_pem)).unwrap();
    assert_eq!(peer, issued.peer);
}

#[test]
fn damaged_authorities_are_refused() {
    let (one, other) = (authority(), authority());
    let form = |root: &str| Authority::from_pem(root, &one.key_pem());
    let two_roots = [one.root_pem(), other.root_pem()].concat();
    let with_comment = format!("# root\n{}", one.root_pem());
    for root in ["", &two_roots, &with_comment, &one.root_pem()[..200]] {
        assert!(matches!(form(root), Err(AuthorityError::Form)), "{root}");
    }
    assert!(matches!(form(other.root_pem()), Err(AuthorityError::OtherKey)));
    assert!(Authority::from_pem(one.root_pem(), "").is_err());
}

#[test]
fn an_expired_node_is_known_by_its_key() {
    let (authority, other) = (authority(), authority());
    let key = NodeKey::generate().unwrap();
    let csr = key.csr_der().unwrap();
    let issued = authority.sign_csr(&csr, &worker(), DAY, now()).unwrap();
    let certificate = leaf_der(&issued.chain_pem);
    let prove = |root: &str, csr: &[u8]| prove_member(root, &certificate, csr);
    // A later request with the same key, as the node makes it when it wakes up.
    let fresh = NodeKey::from_pem(&key.pem()).unwrap().csr_der().unwrap();
    assert_eq!(prove(authority.root_pem(), &fresh).unwrap(), issued.peer);
    let thief = NodeKey::generate().unwrap().csr_der().unwrap();
    assert!(matches!(prove(authority.root_pem(), &thief), Err(ProofError::OtherKey)));
    assert!(matches!(prove(authority.root_pem(), b""), Err(ProofError::Csr(_))));
    assert!(matches!(prove(other.root_pem(), &fresh), Err(ProofError::Certificate(_))));
    let root = pem::certificates(authority.root_pem()).unwrap();
    assert!(prove_member(authority.root_pem(), &root[0], &fresh).is_err(), "the root is no node");
    assert!(prove_member(authority.root_pem(), b"", &fresh).is_err());
}

#[derive(Debug)]
struct Stopped;

impl TimeProvider for Stopped {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(now().duration_since(UNIX_EPOCH).unwrap()))
    }
}

/// Runs both sides of a handshake in memory and returns whether both are content.
fn agree(server: Arc<rustls::ServerConfig>, client: Arc<rustls::ClientConfig>) -> bool {
    let name = ServerName::try_from("weft-manager").unwrap();
    let mut client = rustls::ClientConnection::new(client, name).unwrap();
    let mut server = rustls::ServerConnection::new(server).unwrap();
    let mut wire = Vec::new();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() {
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        feed(&mut wire, |bytes| server.read_tls(bytes));
        if server.process_new_packets().is_err() {
            return false;
        }
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        feed(&mut wire, |bytes| client.read_tls(bytes));
        if client.process_new_packets().is_err() {
            return false;
        }
    }
    true
}

fn feed(wire: &mut Vec<u8>, mut read: impl FnMut(&mut &[u8]) -> std::io::Result<usize>) {
    let mut rest = wire.as_slice();
    while !rest.is_empty() {
        read(&mut rest).unwrap();
    }
    wire.clear();
}

#[test]
fn what_it_issues_works_between_nodes_and_for_a_joining_one() {
    let (authority, other) = (authority(), authority());
    let clock: Arc<dyn TimeProvider> = Arc::new(Stopped);
    let live = |authority: &Authority, role, id: &str| {
        let identity = authority.issue_identity(&subject(role, id), DAY, now()).unwrap();
        LiveIdentity::with_clock(identity, clock.clone())
    };
    let manager = server_config(&live(&authority, Role::Manager, "m1"));
    for (role, id) in [(Role::Worker, "w1"), (Role::Manager, "m2"), (Role::Client, "ann")] {
        assert!(agree(manager.clone(), client_config(&live(&authority, role, id))), "{role}");
        assert!(!agree(manager.clone(), client_config(&live(&other, role, id))), "{role}");
    }
    // A joining node has the system's clock, so its certificates are of today.
    let today = Authority::create(CLUSTER, SystemTime::now()).unwrap();
    let identity =
        today.issue_identity(&subject(Role::Manager, "m1"), DAY, SystemTime::now()).unwrap();
    let manager = server_config(&LiveIdentity::new(identity));
    let token = |authority: &Authority| join_token(authority.root_pem(), [7; 16]).to_string();
    let joins = |token: &str| {
        let token: weft_proto::tls::JoinToken = token.parse().unwrap();
        agree(manager.clone(), bootstrap_client_config(token.ca_digest))
    };
    assert!(joins(&token(&today)));
    assert!(!joins(&token(&other)));
}
