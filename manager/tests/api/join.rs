//! Joining: tokens, roles, retries, and what a certificate is worth afterwards.

use tonic::Code;
use weft_manager::ca::{join_token, new_secret, throttle::BURST};
use weft_model::{Command, Proposal, command::Force, object::NodeState, spec::Role};
use weft_proto::{
    convert::{node::description, status::is_not_member},
    tls::{Identity, JoinToken, LiveIdentity, NodeKey, anonymous_channel},
    v1::{
        ListNodesRequest, RenewExpiredCertificateRequest, Role as WireRole, UpdateNodeRequest,
        join_service_client::JoinServiceClient, node_service_client::NodeServiceClient,
    },
};

use crate::support::{Node, describe, host_port, refused, wait_for};

#[tokio::test]
async fn a_token_gives_its_role_and_a_retry_the_same_node() {
    let node = Node::first().await;
    let key = NodeKey::generate().unwrap();
    let about = describe("w", "127.0.0.1:9".parse().unwrap());
    let request = node.join_request(&key, Role::Worker, &about);
    let first = node.issue(request.clone()).await.unwrap();
    let again = node.issue(request.clone()).await.unwrap();
    assert_eq!((&first.node_id, first.number), (&again.node_id, 2));
    assert_eq!(first.role(), WireRole::Worker);
    assert_eq!(first.managers[0].addr, node.address.to_string());
    let identity = node.identity_of(&first, &key);
    assert_eq!(identity.subject().node_id, first.node_id);
    assert_eq!(node.manager().view().nodes().count(), 2);
    // Another key is another node, which may not have the same address.
    let other = NodeKey::generate().unwrap();
    let (what, _) = refused(
        node.issue(node.join_request(&other, Role::Worker, &about)).await,
        Code::FailedPrecondition,
    );
    assert!(what.contains("node w "), "{what}");
}

#[tokio::test]
async fn wrong_tokens_and_descriptions_are_refused_and_change_nothing() {
    let node = Node::first().await;
    let key = NodeKey::generate().unwrap();
    let about = describe("w", "127.0.0.1:9".parse().unwrap());
    let good = node.join_request(&key, Role::Worker, &about);
    let root = node.manager().view().cluster().unwrap().root_certificate.clone();
    let mut bad = good.clone();
    bad.token = "WFTKN-1-abc".into();
    let (what, _) = refused(node.issue(bad.clone()).await, Code::InvalidArgument);
    assert!(what.contains("parts"), "{what}");
    bad.token = JoinToken { ca_digest: [9; 32], secret: new_secret() }.to_string();
    let (what, _) = refused(node.issue(bad.clone()).await, Code::Unauthenticated);
    assert!(what.contains("another cluster"), "{what}");
    let mut odd = about.clone();
    odd.address = "0.0.0.0:2377".parse().unwrap();
    let mut unspecified = good.clone();
    unspecified.description = Some(description(&odd));
    let (what, _) = refused(node.issue(unspecified).await, Code::InvalidArgument);
    assert!(what.contains("--advertise-addr"), "{what}");
    let mut garbage = good.clone();
    garbage.csr = vec![0x30, 0];
    // The node was decided before its key could be signed; that must not be possible.
    let before = node.manager().view().nodes().count();
    refused(node.issue(garbage).await, Code::InvalidArgument);
    assert_eq!(node.manager().view().nodes().count(), before);

    bad.token = join_token(&root, new_secret()).to_string();
    for _ in 0..BURST {
        let (what, _) = refused(node.issue(bad.clone()).await, Code::Unauthenticated);
        assert_eq!(what, "the join token is not valid for this cluster");
    }
    // Now the source is held back, whatever it shows.
    let (_, hint) = refused(node.issue(good).await, Code::ResourceExhausted);
    assert!(hint.starts_with("retry in"), "{hint}");
}

#[tokio::test]
async fn a_certificate_counts_for_what_the_state_says() {
    let node = Node::first().await;
    let worker = node.join("w", Role::Worker).await;
    let list = async |from: &Node| {
        let mut client = NodeServiceClient::new(from.channel_to(&node));
        client.list(ListNodesRequest {}).await
    };
    refused(list(&worker).await, Code::PermissionDenied);
    let session = worker.session(&node).await.unwrap();
    assert_eq!(session.welcome.role(), WireRole::Worker);

    let set_role = async |role: WireRole| {
        let mut client = NodeServiceClient::new(node.local());
        let request =
            UpdateNodeRequest { node: "w".into(), role: Some(role.into()), ..Default::default() };
        client.update(request).await.unwrap();
    };
    set_role(WireRole::Manager).await;
    // The old certificate still says worker.
    refused(list(&worker).await, Code::PermissionDenied);
    assert_eq!(worker.renew(&node).await.unwrap(), Role::Manager);
    assert_eq!(list(&worker).await.unwrap().into_inner().nodes.len(), 2);
    set_role(WireRole::Worker).await;
    // Now the newer certificate says manager, and counts for a worker's.
    wait_for("the demotion to count", || async { list(&worker).await.is_err().then_some(()) })
        .await;
    refused(list(&worker).await, Code::PermissionDenied);
    assert_eq!(worker.renew(&node).await.unwrap(), Role::Worker);
}

#[tokio::test]
async fn a_removed_node_is_cut_off_at_once() {
    let node = Node::first().await;
    let worker = node.join("w", Role::Worker).await;
    let session = worker.session(&node).await.unwrap();
    let command = Command::RemoveNode { id: worker.id, force: Force::Yes };
    let proposal = Proposal { commands: vec![command], ..Default::default() };
    let (_, outcome) = node.manager().store().propose(proposal).await.unwrap();
    outcome.into_result().unwrap();
    let end = tokio::time::timeout(std::time::Duration::from_secs(2), session.end()).await;
    let end = end.expect("the session goes on after the node was removed");
    assert_eq!(end.code(), Code::PermissionDenied, "{end:?}");
    assert!(is_not_member(&end), "the node must know why: {end:?}");
    let refused_again = worker.session(&node).await.err().expect("a new session");
    assert!(is_not_member(&refused_again), "{refused_again:?}");
    refused(worker.renew(&node).await, Code::PermissionDenied);
}

#[tokio::test]
async fn a_newer_session_ends_the_older_and_silence_is_noticed() {
    let node = Node::first().await;
    let worker = node.join("w", Role::Worker).await;
    let older = worker.session_of(&node, "first").await.unwrap();
    let newer = worker.session_of(&node, "second").await.unwrap();
    let end = older.end().await;
    assert_eq!(end.code(), Code::Aborted);
    assert!(end.message().contains("second"), "{end:?}");
    let manager = node.manager();
    let state = || manager.view().node(worker.id).unwrap().state;
    assert_eq!(state(), NodeState::Ready);
    drop(newer);
    wait_for("the silence to be noticed", || async {
        (state() == NodeState::Silent).then_some(())
    })
    .await;
    let _back = worker.session_of(&node, "third").await.unwrap();
    assert_eq!(state(), NodeState::Ready, "back at once");
}

#[tokio::test]
async fn an_expired_certificate_and_its_key_are_enough_to_renew() {
    let node = Node::first().await;
    let key = NodeKey::generate().unwrap();
    let about = describe("w", "127.0.0.1:9".parse().unwrap());
    let answer = node.issue(node.join_request(&key, Role::Worker, &about)).await.unwrap();
    let identity = node.identity_of(&answer, &key);
    let channel = anonymous_channel(&LiveIdentity::new(identity.clone()), &host_port(node.address));
    let mut client = JoinServiceClient::new(channel);
    // That it has expired makes no difference here: it is not what the connection shows.
    let good = RenewExpiredCertificateRequest {
        csr: key.csr_der().unwrap(),
        certificate: identity.certificate_der().to_vec(),
    };
    let renewed = client.renew_expired_certificate(good.clone()).await.unwrap().into_inner();
    let renewed =
        Identity::from_pem(&renewed.certificate, &key.pem(), &renewed.root_certificate).unwrap();
    assert_eq!(renewed.subject().node_id, answer.node_id);

    let mut bad = good.clone();
    bad.csr = NodeKey::generate().unwrap().csr_der().unwrap();
    refused(client.renew_expired_certificate(bad).await, Code::Unauthenticated);
    let mut bad = good.clone();
    bad.certificate.clear();
    refused(client.renew_expired_certificate(bad).await, Code::Unauthenticated);
    let id = answer.node_id.parse().unwrap();
    let command = Command::RemoveNode { id, force: Force::Yes };
    let proposal = Proposal { commands: vec![command], ..Default::default() };
    let (_, outcome) = node.manager().store().propose(proposal).await.unwrap();
    outcome.into_result().unwrap();
    refused(client.renew_expired_certificate(good).await, Code::PermissionDenied);
}
