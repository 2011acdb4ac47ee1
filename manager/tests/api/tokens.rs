//! Join tokens and client certificates, as the daemon's cluster service hands them on.

use std::time::Duration;

use tonic::Code;
use weft_manager::api::cluster;
use weft_model::spec::Role;
use weft_proto::{
    convert::value::duration,
    tls::{self, Identity, LiveIdentity, NodeKey},
    v1::{
        ClientCertificateRequest, InfoResponse, JoinTokenRequest, ListNodesRequest,
        Role as WireRole, UpdateClusterRequest, node_service_client::NodeServiceClient,
    },
};

use crate::support::{Node, describe, host_port, refused};

#[tokio::test]
async fn tokens_are_shown_rotated_minted_and_used_up() {
    let node = Node::first().await;
    let manager = node.manager();
    let ask = async |request: JoinTokenRequest| cluster::token(&manager, request).await;
    let worker = JoinTokenRequest { role: WireRole::Worker.into(), ..Default::default() };
    let standing = ask(worker.clone()).await.unwrap();
    assert_eq!(standing.token, ask(worker.clone()).await.unwrap().token);
    assert_eq!(standing.addr, node.address.to_string());
    assert!(standing.expires_at.is_none());
    let rotated = ask(JoinTokenRequest { rotate: true, ..worker.clone() }).await.unwrap();
    assert_ne!(rotated.token, standing.token);
    assert_eq!(ask(worker.clone()).await.unwrap().token, rotated.token);

    let once = JoinTokenRequest {
        uses: 1,
        ttl: Some(duration(Duration::from_secs(60))),
        request_id: "0123456789abcdef".into(),
        ..worker.clone()
    };
    let minted = ask(once.clone()).await.unwrap();
    assert!(minted.expires_at.is_some());
    assert_eq!(ask(once).await.unwrap(), minted, "a retry gets the first token");
    let mut answers = Vec::new();
    for port in [1, 2] {
        let about = describe("w", ([127, 0, 0, 1], port).into());
        let mut request = node.join_request(&NodeKey::generate().unwrap(), Role::Worker, &about);
        request.token.clone_from(&minted.token);
        answers.push(node.issue(request.clone()).await);
        if port == 1 {
            // Its own retry is not a second use.
            let first = answers[0].as_ref().unwrap();
            assert_eq!(node.issue(request).await.unwrap().node_id, first.node_id);
        }
    }
    refused(answers.remove(1), Code::Unauthenticated);
    let both = JoinTokenRequest { rotate: true, uses: 1, ..worker };
    refused(ask(both).await, Code::InvalidArgument);
    refused(ask(JoinTokenRequest::default()).await, Code::InvalidArgument);
}

#[tokio::test]
async fn a_client_certificate_opens_the_api_and_no_more() {
    let node = Node::first().await;
    let manager = node.manager();
    let key = NodeKey::generate().unwrap();
    let request = ClientCertificateRequest {
        name: "alice".into(),
        ttl: Some(duration(Duration::from_secs(3600))),
        csr: key.csr_der().unwrap(),
    };
    let answer = cluster::client_certificate(&manager, request.clone()).await.unwrap();
    let identity =
        Identity::from_pem(&answer.certificate, &key.pem(), &answer.root_certificate).unwrap();
    assert_eq!(identity.subject().role, tls::Role::Client);
    let live = LiveIdentity::new(identity);
    let channel = tls::channel(&live, &host_port(node.address));
    let nodes = NodeServiceClient::new(channel).list(ListNodesRequest {}).await.unwrap();
    assert_eq!(nodes.into_inner().nodes.len(), 1);
    for spoil in [
        |request: &mut ClientCertificateRequest| request.name = "Alice!".into(),
        |request: &mut ClientCertificateRequest| request.csr.truncate(20),
        |request: &mut ClientCertificateRequest| {
            request.ttl = Some(duration(Duration::from_secs(1)));
        },
        |request: &mut ClientCertificateRequest| {
            request.ttl = Some(duration(Duration::from_secs(500 * 86_400)));
        },
    ] {
        let mut bad = request.clone();
        spoil(&mut bad);
        refused(cluster::client_certificate(&manager, bad).await, Code::InvalidArgument);
    }
}

#[tokio::test]
async fn settings_are_shown_and_changed() {
    let node = Node::first().await;
    let manager = node.manager();
    let before = cluster::inspect(&manager).await.unwrap().cluster.unwrap();
    assert_eq!(before.id, node.cluster.to_string());
    let version = before.meta.unwrap().version;
    let update =
        UpdateClusterRequest { task_history_limit: Some(2), version, ..Default::default() };
    let after = cluster::update(&manager, update.clone()).await.unwrap().cluster.unwrap();
    assert_eq!(after.spec.unwrap().task_history_limit, 2);
    refused(cluster::update(&manager, update).await, Code::Aborted);
    let short = UpdateClusterRequest {
        cert_expiry: Some(duration(Duration::from_secs(60))),
        ..Default::default()
    };
    let (what, _) = refused(cluster::update(&manager, short).await, Code::InvalidArgument);
    assert!(what.contains("--cert-expiry"), "{what}");
    let mut info = InfoResponse::default();
    cluster::describe(&manager, &mut info);
    assert_eq!((info.manager_count, info.node_count), (1, 1));
    assert_eq!(info.raft.unwrap().leader, node.address.to_string());
}
