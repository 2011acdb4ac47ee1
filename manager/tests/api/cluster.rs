//! Three managers: followers send calls on, and the death of a leader is survived.

use std::collections::BTreeSet;

use tonic::Code;
use weft_manager::api;
use weft_model::spec::Role;
use weft_proto::{
    tls::{self, Identity, LiveIdentity, NodeKey},
    v1::{
        ClientCertificateRequest, CreateNetworkRequest, GetNodeRequest, ListNodesRequest,
        NetworkSpec, RemoveNodeRequest, RevokeClientCertificateRequest, Role as WireRole,
        UpdateNodeRequest, WatchRequest, network_service_client::NetworkServiceClient,
        node_service_client::NodeServiceClient, watch_service_client::WatchServiceClient,
    },
};

use crate::support::{Node, PATIENCE, Session, host_port, refused, wait_for};

struct Cluster {
    nodes: Vec<Node>,
    _sessions: Vec<Session>,
}

/// Three managers with a vote each.
async fn three() -> Cluster {
    let first = Node::first().await;
    let mut sessions = vec![first.session(&first).await.unwrap()];
    let mut nodes = vec![first];
    for name in ["n2", "n3"] {
        let node = nodes[0].join(name, Role::Manager).await;
        sessions.push(node.session(&nodes[0]).await.unwrap());
        nodes.push(node);
    }
    let store = nodes[0].manager().store().clone();
    wait_for("three voters", || async { (store.voters().len() == 3).then_some(()) }).await;
    Cluster { nodes, _sessions: sessions }
}

async fn create(node: &Node, name: &str, request_id: &str) -> Result<String, tonic::Status> {
    let spec = NetworkSpec { name: name.to_owned(), ..Default::default() };
    let request = CreateNetworkRequest { spec: Some(spec), request_id: request_id.to_owned() };
    let answer = NetworkServiceClient::new(node.local()).create(request).await?;
    Ok(answer.into_inner().network.unwrap().id)
}

#[tokio::test]
async fn any_manager_takes_any_call() {
    let Cluster { nodes, _sessions } = three().await;
    let id = create(&nodes[1], "net", "0123456789abcdef").await.unwrap();
    // The same call by way of another manager is known for a retry.
    assert_eq!(create(&nodes[2], "net", "0123456789abcdef").await.unwrap(), id);
    let (what, hint) = refused(create(&nodes[2], "net", "").await, Code::AlreadyExists);
    assert!(what.contains("already exists") && !hint.is_empty(), "trailers come through: {what}");
    for node in &nodes {
        let mut client = NodeServiceClient::new(node.local());
        let own = client.get(GetNodeRequest { node: "self".into() }).await.unwrap();
        assert_eq!(own.into_inner().node.unwrap().id, node.id.to_string(), "of the node asked");
        let list = client.list(ListNodesRequest {}).await.unwrap().into_inner().nodes;
        let managers: Vec<_> = list.iter().filter_map(|node| node.manager.as_ref()).collect();
        assert_eq!(managers.iter().filter(|manager| manager.leader).count(), 1);
        assert_eq!(managers.iter().filter(|manager| manager.voter).count(), 3);
    }
    // A worker's session by way of a follower gets to the leader, and its caller stays who he is.
    let worker = nodes[1].join("w", Role::Worker).await;
    let session = worker.session(&nodes[2]).await.unwrap();
    assert_eq!(session.welcome.managers.len(), 3);
    let mut client = NodeServiceClient::new(worker.channel_to(&nodes[2]));
    refused(client.list(ListNodesRequest {}).await, Code::PermissionDenied);
    // He cannot pass for somebody else either.
    let mut request = tonic::Request::new(ListNodesRequest {});
    let note = r#"{"credential":"Local","source":null,"asked":null}"#;
    request.metadata_mut().insert("weft-origin", note.parse().unwrap());
    refused(client.list(request).await, Code::PermissionDenied);
}

#[tokio::test]
async fn a_dead_leader_is_replaced_and_a_retry_changes_nothing_twice() {
    let Cluster { nodes, _sessions } = three().await;
    let id = create(&nodes[1], "net", "0123456789abcdef").await.unwrap();
    let dead = nodes.iter().position(|node| node.manager().is_leader()).unwrap();
    nodes[dead].manager().shutdown().await;
    let alive = nodes.iter().enumerate().find(|(index, _)| *index != dead).unwrap().1;
    let again = wait_for("a new leader", || async {
        match create(alive, "net", "0123456789abcdef").await {
            Ok(id) => Some(id),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                None
            }
        }
    })
    .await;
    assert_eq!(again, id);
}

#[tokio::test]
async fn a_demoted_manager_loses_its_vote_and_a_promoted_worker_gets_one() {
    let Cluster { nodes, _sessions } = three().await;
    let set_role = async |node: &str, role: WireRole| {
        let request = UpdateNodeRequest {
            node: node.to_owned(),
            role: Some(role.into()),
            ..Default::default()
        };
        NodeServiceClient::new(nodes[0].local()).update(request).await.unwrap();
    };
    let voters = |node: &Node| {
        let voters = node.manager().store().voters();
        voters.iter().map(|voter| voter.number).collect::<BTreeSet<_>>()
    };
    set_role("n3", WireRole::Worker).await;
    wait_for("two voters", || async { (voters(&nodes[0]) == [1, 2].into()).then_some(()) }).await;
    let worker = nodes[0].join("w", Role::Worker).await;
    set_role("w", WireRole::Manager).await;
    assert_eq!(worker.renew(&nodes[0]).await.unwrap(), Role::Manager);
    worker.become_manager().await;
    let _session = worker.session(&nodes[0]).await.unwrap();
    wait_for("its vote", || async {
        (voters(&nodes[0]) == [1, 2, worker.number].into()).then_some(())
    })
    .await;
    wait_for("its copy of the state", || async {
        (voters(&worker).len() == 3 && worker.manager().view().cluster().is_some()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_leader_that_is_demoted_hands_over_first() {
    let Cluster { nodes, mut _sessions } = three().await;
    let leader = nodes.iter().position(|node| node.manager().is_leader()).unwrap();
    let other = &nodes[(leader + 1) % 3];
    let request = UpdateNodeRequest {
        node: nodes[leader].id.to_string(),
        role: Some(WireRole::Worker.into()),
        ..Default::default()
    };
    NodeServiceClient::new(other.local()).update(request).await.unwrap();
    wait_for("another leader and two voters", || async {
        let store = other.manager().store().clone();
        let voters: Vec<_> = store.voters().iter().map(|voter| voter.number).collect();
        let leads = store.leadership().borrow().leader.as_ref().map(|leader| leader.number);
        let gone = nodes[leader].number;
        (voters.len() == 2 && !voters.contains(&gone) && leads != Some(gone)).then_some(())
    })
    .await;
    create(other, "after", "").await.unwrap();
    // The sessions that the old leader had have ended, and say that another one leads.
    let end = _sessions.remove(0).end().await;
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
}

#[tokio::test]
async fn a_removed_node_is_cut_off_by_way_of_a_follower_too() {
    let Cluster { nodes, _sessions } = three().await;
    let follower = nodes.iter().find(|node| !node.manager().is_leader()).unwrap();
    let worker = follower.join("w", Role::Worker).await;
    let session = worker.session(follower).await.unwrap();
    let request = RemoveNodeRequest { node: "w".into(), force: true, request_id: String::new() };
    NodeServiceClient::new(follower.local()).remove(request).await.unwrap();
    let end = tokio::time::timeout(std::time::Duration::from_secs(2), session.end()).await;
    let end = end.expect("the session goes on after the node was removed");
    assert_eq!(end.code(), Code::PermissionDenied, "{end:?}");
}

/// A new certificate of the client `name`.
async fn client(leader: &Node, name: &str) -> LiveIdentity {
    let key = NodeKey::generate().unwrap();
    let csr = key.csr_der().unwrap();
    let request = ClientCertificateRequest { name: name.to_owned(), ttl: None, csr };
    let answer = api::cluster::client_certificate(&leader.manager(), request).await.unwrap();
    let identity = Identity::from_pem(&answer.certificate, &key.pem(), &answer.root_certificate);
    LiveIdentity::new(identity.unwrap())
}

#[tokio::test]
async fn a_revoked_client_is_let_in_by_no_manager_and_its_streams_end() {
    let Cluster { nodes, _sessions } = three().await;
    let leader = nodes.iter().find(|node| node.manager().is_leader()).unwrap();
    let (mallory, alice) = (client(leader, "mallory").await, client(leader, "alice").await);
    let serial = alice.subject().serial;
    let channel = |who: &LiveIdentity, node: &Node| tls::channel(who, &host_port(node.address));
    let list = async |who: &LiveIdentity, node: &Node| {
        NodeServiceClient::new(channel(who, node)).list(ListNodesRequest {}).await
    };
    let mut watches = Vec::new();
    for node in &nodes {
        let mut client = WatchServiceClient::new(channel(&mallory, node));
        watches.push(client.watch(WatchRequest::default()).await.unwrap().into_inner());
    }
    let revoke = async |certificate: &str| {
        let certificate = certificate.to_owned();
        let request = RevokeClientCertificateRequest { certificate, request_id: String::new() };
        api::cluster::revoke_client(&leader.manager(), request).await
    };
    assert_eq!(revoke("mallory").await.unwrap().serials, [mallory.subject().serial.clone()]);
    for watch in &mut watches {
        let end = tokio::time::timeout(PATIENCE, async {
            loop {
                match watch.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("it ends without a reason"),
                    Err(status) => return status,
                }
            }
        });
        let end = end.await.expect("the stream goes on after the certificate was revoked");
        assert_eq!(end.code(), Code::PermissionDenied, "{end:?}");
    }
    for node in &nodes {
        let (what, hint) = refused(list(&mallory, node).await, Code::PermissionDenied);
        assert!(what.contains("mallory was revoked"), "{what}");
        assert!(hint.contains("client-cert"), "{hint}");
        list(&alice, node).await.expect("others are not meant");
    }
    refused(revoke("mallory").await, Code::FailedPrecondition);
    refused(revoke("nobody").await, Code::NotFound);
    // A new one of the same name is another one; and one can be named by its number.
    let again = client(leader, "mallory").await;
    list(&again, &nodes[0]).await.expect("it is in force");
    assert_eq!(revoke(&serial).await.unwrap().serials, [serial]);
    refused(list(&alice, &nodes[0]).await, Code::PermissionDenied);
    let found = api::cluster::list_clients(&leader.manager()).await.unwrap().certificates;
    let found: Vec<_> =
        found.iter().map(|one| (one.name.as_str(), one.revoked_at.is_some())).collect();
    assert_eq!(found, [("alice", true), ("mallory", true), ("mallory", false)]);
}
