//! Single handshakes, in memory: which pairs agree, and what the other pairs fail of.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::whole;
use crate::tls::bootstrap::{bootstrap_client_config, bootstrap_client_config_with_clock};
use crate::tls::config::{
    anonymous_client_config, client_config, client_config_to_node, server_config,
};
use crate::tls::identity::Identity;
use crate::tls::live::LiveIdentity;
use crate::tls::peer::{Peer, Role};
use crate::tls::testing::{LIFE, Stopped, TestCa};

/// Bytes that the in-memory pipe holds: more than a whole handshake.
const PIPE: usize = 1 << 16;

/// What the two sides make of each other: the peer that the server sees, or why it refuses; and
/// why the client does.
struct Outcome {
    server: Result<Option<Peer>, String>,
    client: Result<(), String>,
}

async fn meet(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Outcome {
    let (near, far) = tokio::io::duplex(PIPE);
    let serving = async {
        let mut stream = TlsAcceptor::from(server).accept(near).await?;
        let leaf = stream.get_ref().1.peer_certificates().map(|chain| chain[0].clone());
        stream.write_all(b"!").await?;
        stream.shutdown().await?;
        Ok::<_, io::Error>(leaf.map(|leaf| Peer::from_der(&leaf).unwrap()))
    };
    let calling = async {
        let name = ServerName::try_from("weft-manager").unwrap();
        let mut stream = TlsConnector::from(client).connect(name, far).await?;
        // In TLS 1.3 the client has finished before the server has looked at its certificate.
        stream.read_u8().await?;
        Ok::<_, io::Error>(())
    };
    let (server, client) = tokio::join!(serving, calling);
    let text = |error: io::Error| whole(&error);
    Outcome { server: server.map_err(text), client: client.map_err(text) }
}

fn live(identity: Identity) -> LiveIdentity {
    LiveIdentity::new(identity)
}

fn live_at(identity: Identity, now: SystemTime) -> LiveIdentity {
    LiveIdentity::with_clock(identity, Arc::new(Stopped(now)))
}

#[track_caller]
fn refused_by_server(outcome: &Outcome, reason: &str) {
    let error = outcome.server.as_ref().expect_err("the server must refuse");
    assert!(error.contains(reason), "{error}");
    assert!(outcome.client.is_err(), "the client must notice");
}

#[track_caller]
fn refused_by_client(outcome: &Outcome, reason: &str) {
    let error = outcome.client.as_ref().expect_err("the client must refuse");
    assert!(error.contains(reason), "{error}");
    assert!(outcome.server.is_err(), "the server must notice");
}

#[tokio::test]
async fn members_know_each_other() {
    let ca = TestCa::new("c1");
    let (manager, worker) = (live(ca.manager("m1")), ca.worker("w1"));
    let expected = worker.subject().clone();
    let outcome = meet(server_config(&manager), client_config(&live(worker))).await;
    assert_eq!(outcome.client, Ok(()));
    assert_eq!(outcome.server, Ok(Some(expected)));
}

#[tokio::test]
async fn a_node_without_a_certificate_is_let_in_as_nobody() {
    let ca = TestCa::new("c1");
    let manager = server_config(&live(ca.manager("m1")));
    let joining = bootstrap_client_config(ca.token().ca_digest);
    for client in [joining, anonymous_client_config(&live(ca.worker("w1")))] {
        let outcome = meet(manager.clone(), client).await;
        assert_eq!((outcome.server, outcome.client), (Ok(None), Ok(())));
    }
}

#[tokio::test]
async fn strangers_with_a_certificate_are_refused() {
    let (ca, foreign) = (TestCa::new("c1"), TestCa::new("c1"));
    let manager = server_config(&live(ca.manager("m1")));
    // A stranger would believe our manager, to get as far as it can.
    let by_other_root = foreign.issue(Role::Manager, "m1", "c1", &ca_and(&foreign, &ca));
    let outcome = meet(manager.clone(), client_config(&live(by_other_root))).await;
    refused_by_server(&outcome, "BadSignature");
    // The same root may serve two clusters if somebody restored a backup twice.
    let other_cluster = live(ca.issue(Role::Worker, "w1", "c2", &ca.root_pem));
    let outcome = meet(server_config(&live(ca.manager("m1"))), trusting(&other_cluster)).await;
    refused_by_server(&outcome, "OtherCluster { ours: \"c1\", found: \"c2\" }");
    let outcome = meet(manager, client_config(&other_cluster)).await;
    refused_by_client(&outcome, "OtherCluster { ours: \"c2\", found: \"c1\" }");
}

/// A client that shows its certificate and believes any server under its roots.
fn trusting(live: &LiveIdentity) -> Arc<ClientConfig> {
    let roots = crate::tls::pem::certificates(&live.current().roots_pem()).unwrap();
    let mut store = rustls::RootCertStore::empty();
    roots.into_iter().for_each(|root| store.add(root).unwrap());
    let mut config = ClientConfig::builder_with_provider(crate::tls::identity::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(store)
        .with_client_cert_resolver(Arc::new(live.clone()));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

fn ca_and(one: &TestCa, other: &TestCa) -> String {
    [one.root_pem.as_str(), &other.root_pem].concat()
}

#[tokio::test]
async fn the_server_must_be_a_manager_and_the_right_one() {
    let ca = TestCa::new("c1");
    let client = live(ca.worker("w2"));
    let worker = server_config(&live(ca.worker("w1")));
    let outcome = meet(worker.clone(), client_config(&client)).await;
    refused_by_client(&outcome, "not valid for name");
    let outcome = meet(worker, bootstrap_client_config(ca.token().ca_digest)).await;
    refused_by_client(&outcome, "not valid for name");
    let manager = server_config(&live(ca.manager("m1")));
    let outcome = meet(manager.clone(), client_config_to_node(&client, "m2")).await;
    refused_by_client(&outcome, "OtherNode { wanted: \"m2\", found: \"m1\" }");
    assert_eq!(meet(manager, client_config_to_node(&client, "m1")).await.client, Ok(()));
}

#[tokio::test]
async fn certificates_are_judged_by_the_given_clock() {
    let ca = TestCa::new("c1");
    let (now, later) = (SystemTime::now(), SystemTime::now() + LIFE);
    let before = now - Duration::from_secs(2 * 3600);
    for (server_time, client_time, good) in
        [(now, now, true), (later, now, false), (before, now, false)]
    {
        let manager = server_config(&live_at(ca.manager("m1"), server_time));
        let outcome = meet(manager, client_config(&live_at(ca.worker("w1"), client_time))).await;
        if good {
            assert_eq!(outcome.client, Ok(()));
        } else {
            let reason = if server_time == later { "certificate expired" } else { "not valid yet" };
            refused_by_server(&outcome, reason);
        }
    }
    let manager = server_config(&live(ca.manager("m1")));
    let digest = ca.token().ca_digest;
    for client in [
        client_config(&live_at(ca.worker("w1"), later)),
        anonymous_client_config(&live_at(ca.worker("w1"), later)),
        bootstrap_client_config_with_clock(digest, Arc::new(Stopped(later))),
    ] {
        refused_by_client(&meet(manager.clone(), client).await, "certificate expired");
    }
}

#[tokio::test]
async fn the_man_in_the_middle_is_refused_before_anything_is_sent() {
    let (ca, evil) = (TestCa::new("c1"), TestCa::new("c1"));
    let digest = ca.token().ca_digest;
    let own_root = evil.manager("m1");
    let outcome = meet(server_config(&live(own_root)), bootstrap_client_config(digest)).await;
    refused_by_client(&outcome, "OtherRoot");
    // Replaying the genuine root, which is public, does not help.
    let identity = evil.manager("m1");
    let leaf = crate::tls::pem::certificate_pem(identity.certificate_der());
    let replayed =
        Identity::from_pem(&(leaf + &ca.root_pem), &identity.key_pem(), &evil.root_pem).unwrap();
    let outcome = meet(server_config(&live(replayed)), bootstrap_client_config(digest)).await;
    refused_by_client(&outcome, "BadSignature");
}

#[tokio::test]
async fn other_protocols_are_refused() {
    let ca = TestCa::new("c1");
    let manager = server_config(&live(ca.manager("m1")));
    let client = live(ca.worker("w1"));
    let mut http1 = ClientConfig::clone(&client_config(&client));
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    refused_by_server(&meet(manager.clone(), Arc::new(http1)).await, "known protocol");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(crate::tls::pem::certificates(&ca.root_pem).unwrap()[0].clone()).unwrap();
    let tls12 = ClientConfig::builder_with_provider(crate::tls::identity::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    refused_by_server(&meet(manager, Arc::new(tls12)).await, "Tls");
}

#[test]
fn a_token_knows_its_root_among_others() {
    let (ca, other) = (TestCa::new("c1"), TestCa::new("c1"));
    assert!(ca.token().pins(&ca_and(&other, &ca)));
    assert!(!ca.token().pins(&other.root_pem));
    assert!(!ca.token().pins(""));
}
