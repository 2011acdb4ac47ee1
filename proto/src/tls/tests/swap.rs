//! Changing the identity while connections are open.

use super::*;
use crate::tls::connect::{channel, channel_to_node};
use crate::tls::peer::Role;
use crate::tls::testing::TestCa;

#[tokio::test]
async fn a_new_certificate_reaches_the_next_connection_and_old_ones_go_on() {
    let ca = TestCa::new("c1");
    let (manager, worker) =
        (LiveIdentity::new(ca.manager("m1")), LiveIdentity::new(ca.worker("w1")));
    let mut server = TestServer::start(&manager, AcceptLimits::default()).await;
    let old = worker.subject();
    let mut changes = worker.changes();
    let first = channel(&worker, &server.host_port());
    call(&first).await.unwrap();
    assert_eq!(server.next_peer().await, Some(old.clone()));

    worker.replace(ca.worker("w1")).unwrap();
    manager.replace(ca.manager("m1")).unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let new = worker.subject();
    assert_ne!(new.serial, old.serial);
    call(&channel(&worker, &server.host_port())).await.unwrap();
    assert_eq!(server.next_peer().await, Some(new));
    call(&first).await.unwrap();
    assert_eq!(server.next_peer().await, Some(old), "the open connection keeps its identity");
}

#[tokio::test]
async fn a_new_root_is_believed_from_the_next_connection_on() {
    let (old_ca, new_ca) = (TestCa::new("c1"), TestCa::new("c1"));
    let both = [old_ca.root_pem.as_str(), &new_ca.root_pem].concat();
    let manager = LiveIdentity::new(old_ca.manager("m1"));
    let mut server = TestServer::start(&manager, AcceptLimits::default()).await;
    let worker = LiveIdentity::new(new_ca.issue(Role::Worker, "w1", "c1", &both));
    assert!(call(&channel(&worker, &server.host_port())).await.is_err());
    manager.replace(old_ca.issue(Role::Manager, "m1", "c1", &both)).unwrap();
    call(&channel(&worker, &server.host_port())).await.unwrap();
    assert_eq!(server.next_peer().await, Some(worker.subject()));
}

#[tokio::test]
async fn a_promoted_node_calls_in_its_new_role() {
    let ca = TestCa::new("c1");
    let manager = LiveIdentity::new(ca.manager("m1"));
    let mut server = TestServer::start(&manager, AcceptLimits::default()).await;
    let node = LiveIdentity::new(ca.worker("w1"));
    node.replace(ca.manager("w1")).unwrap();
    call(&channel_to_node(&node, &server.host_port(), "m1")).await.unwrap();
    assert_eq!(server.next_peer().await.map(|peer| peer.role), Some(Role::Manager));
}

#[test]
fn the_identity_of_another_node_or_cluster_is_not_taken() {
    let ca = TestCa::new("c1");
    let live = LiveIdentity::new(ca.worker("w1"));
    let before = live.subject();
    assert!(live.replace(ca.worker("w2")).is_err());
    assert!(live.replace(TestCa::new("c2").worker("w1")).is_err());
    assert_eq!(live.subject(), before);
}
