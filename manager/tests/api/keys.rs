//! Keys of the encrypted links: said in sessions, rotated when all who must know do, and the links of a
//! node, which that node is asked for.

use std::time::Duration;

use tonic::{Code, Status};
use weft_manager::clock::{Clock as _, SystemClock};
use weft_model::{
    AttachmentId, Command, Engine, NetworkId, Proposal, PublicKey, TunnelReport,
    assignments::{Item, Key},
    command::NewForeign,
    spec::Role,
};
use weft_proto::{
    convert::{session::tunnel_to_wire, value::duration},
    v1::{
        CreateNetworkRequest, GetNodeRequest, KeyRotation, Network, NetworkSpec, NodeLinksRequest,
        NodeTunnel, RemoveNodeRequest, RotateKeyRequest, SessionRequest, TunnelEngine,
        UpdateClusterRequest, network_service_client::NetworkServiceClient,
        node_service_client::NodeServiceClient, session_request::Request,
    },
};

use crate::support::{Node, Session, refused, wait_for};

fn key(name: u8, generation: u64) -> PublicKey {
    let mut key = [name; 32];
    key[0] = u8::try_from(generation).unwrap();
    PublicKey(key)
}

async fn say(session: &Session, name: u8, generations: &[u64]) {
    let keys = generations.iter().map(|generation| (*generation, key(name, *generation)));
    let report = TunnelReport {
        engine: Engine::Userspace,
        reason: "the kernel has no WireGuard".into(),
        lanes: 2,
        keys: keys.collect(),
    };
    let request = Some(Request::Tunnel(tunnel_to_wire(&report)));
    session.to_manager.send(SessionRequest { request }).await.unwrap();
}

async fn tunnel(node: &Node, of: &str) -> Option<NodeTunnel> {
    let mut client = NodeServiceClient::new(node.local());
    let request = GetNodeRequest { node: of.to_owned() };
    client.get(request).await.unwrap().into_inner().node.unwrap().tunnel
}

async fn create(node: &Node, name: &str, option: Option<&str>) -> Result<Network, Status> {
    let options = option.map(|value| ("encrypted".to_owned(), value.to_owned()));
    let spec = NetworkSpec {
        name: name.to_owned(),
        attachable: true,
        options: options.into_iter().collect(),
        ..Default::default()
    };
    let request = CreateNetworkRequest { spec: Some(spec), request_id: String::new() };
    let answer = NetworkServiceClient::new(node.local()).create(request).await?;
    Ok(answer.into_inner().network.unwrap())
}

async fn attach(manager: &Node, node: &Node, network: NetworkId) {
    let state = manager.manager().view();
    let foreign = NewForeign {
        id: AttachmentId::from_bytes([u8::try_from(node.number).unwrap(); 32]),
        network,
        node: node.id,
        name: format!("on-{}", node.description.hostname),
        aliases: Vec::new(),
        service: None,
        addresses: state.choose_addresses(network).unwrap(),
    };
    let commands = vec![Command::AttachForeign { foreign }];
    let proposal = Proposal { request: None, now: SystemClock.now(), commands };
    let (_, outcome) = manager.manager().store().propose(proposal).await.unwrap();
    outcome.into_result().unwrap();
}

/// Takes in assignments until the keys of the others are these, the one to send to first.
async fn until_known(session: &mut Session, wanted: &[PublicKey]) {
    loop {
        let items = session.assignments.items.values();
        let peers =
            items.filter_map(|item| if let Item::Peer(peer) = item { Some(peer) } else { None });
        let keys: Vec<_> = peers.flat_map(|peer| peer.keys.iter().map(|key| key.public)).collect();
        if keys == wanted {
            return;
        }
        session.next().await.unwrap();
    }
}

fn generations(session: &Session) -> Vec<u64> {
    let Some(Item::Node(node)) = session.assignments.items.get(&Key::Node) else { return vec![] };
    node.tunnel.clone().map(|tunnel| tunnel.generations).unwrap_or_default()
}

#[tokio::test]
async fn a_key_is_said_shown_and_rotated_when_all_who_must_know_do() {
    let node = Node::first().await;
    let (one, two) = (node.join("one", Role::Worker).await, node.join("two", Role::Worker).await);
    let mut first = one.session(&node).await.unwrap();
    let mut second = two.session(&node).await.unwrap();
    assert_eq!(tunnel(&node, "one").await, None);
    let mut client = NodeServiceClient::new(node.local());
    let rotate = RotateKeyRequest { node: "one".into(), request_id: String::new() };
    let (what, hint) = refused(client.rotate_key(rotate.clone()).await, Code::FailedPrecondition);
    assert!(what.contains("not said one yet") && hint.contains("node inspect one"), "{what}");

    let network: NetworkId = create(&node, "net", Some("")).await.unwrap().id.parse().unwrap();
    say(&first, 1, &[1]).await;
    say(&second, 2, &[1]).await;
    attach(&node, &one, network).await;
    attach(&node, &two, network).await;
    until_known(&mut first, &[key(2, 1)]).await;
    until_known(&mut second, &[key(1, 1)]).await;
    let shown = tunnel(&node, "one").await.unwrap();
    assert_eq!(shown.engine(), TunnelEngine::Userspace);
    assert_eq!((&shown.public_key[..], shown.generation), (&key(1, 1).0[..], 1));
    // Odd generations have odd addresses and ports.
    assert_eq!((shown.lanes, shown.port), (2, 51_821));
    let address = format!("100.64.0.{}", one.number * 2 + 1);
    assert_eq!((shown.address, shown.waiting_for), (address, Vec::<String>::new()));

    let began = client.rotate_key(rotate.clone()).await.unwrap().into_inner().node.unwrap();
    let began = began.tunnel.unwrap();
    assert_eq!(
        (began.rotation(), &began.waiting_for[..]),
        (KeyRotation::Wanted, &["one".into()][..])
    );
    while generations(&first) != [1, 2] {
        first.next().await.unwrap();
    }
    say(&first, 1, &[1, 2]).await;
    // The other one has taken nothing in since: it holds the rotation, and asking again does no harm.
    let waits = wait_for("the next key", || async {
        let shown = tunnel(&node, "one").await.unwrap();
        (shown.waiting_for == ["two"]).then_some(shown)
    });
    assert_eq!(waits.await.rotation(), KeyRotation::Distributed);
    let again = client.rotate_key(rotate).await.unwrap().into_inner().node.unwrap();
    assert_eq!(again.tunnel.unwrap().rotation(), KeyRotation::Distributed);
    until_known(&mut second, &[key(1, 1), key(1, 2)]).await;
    until_known(&mut second, &[key(1, 2), key(1, 1)]).await;
    while generations(&first) != [2, 1] {
        first.next().await.unwrap();
    }
    until_known(&mut second, &[key(1, 2)]).await;
    let shown = tunnel(&node, "one").await.unwrap();
    assert_eq!((shown.rotation(), shown.generation), (KeyRotation::Idle, 2));
    assert_eq!((shown.port, &shown.public_key[..]), (51_820, &key(1, 2).0[..]));

    let request = RemoveNodeRequest { node: "one".into(), force: true, request_id: String::new() };
    client.remove(request).await.unwrap();
    until_known(&mut second, &[]).await;
}

#[tokio::test]
async fn the_key_of_another_node_is_refused_and_the_session_ends_with_the_reason() {
    let node = Node::first().await;
    let (one, two) = (node.join("one", Role::Worker).await, node.join("two", Role::Worker).await);
    let first = one.session(&node).await.unwrap();
    say(&first, 1, &[1]).await;
    wait_for("the key", || tunnel(&node, "one")).await;
    let second = two.session(&node).await.unwrap();
    say(&second, 1, &[1]).await;
    let end = second.end().await;
    assert_eq!(end.code(), Code::FailedPrecondition, "{end:?}");
    assert!(end.message().contains("node one has it"), "{end:?}");
    assert_eq!(tunnel(&node, "two").await, None);
}

#[tokio::test]
async fn links_are_asked_of_the_node_and_one_that_is_away_is_named() {
    let node = Node::first().await;
    let worker = node.join("w1", Role::Worker).await;
    let mut client = NodeServiceClient::new(node.local());
    let links = || NodeLinksRequest { node: "w1".into() };
    let (what, hint) = refused(client.links(links()).await, Code::Unavailable);
    assert!(what.contains("node w1 cannot be asked: it is unknown"), "{what}");
    assert_eq!(hint, "see if it is there: weft node inspect w1");
    let _session = worker.session(&node).await.unwrap();
    let answer = client.links(links()).await.unwrap().into_inner();
    assert_eq!(answer.peers[0].hostname, "a peer of the agent");
    refused(client.links(NodeLinksRequest { node: "w2".into() }).await, Code::NotFound);
    // The leader is asked like any other.
    let _own = node.session(&node).await.unwrap();
    client.links(NodeLinksRequest { node: "self".into() }).await.unwrap();
    // Nobody has a connection to this one: those that are open would go on.
    let other = node.join("w3", Role::Worker).await;
    let _other = other.session(&node).await.unwrap();
    drop(other);
    let request = NodeLinksRequest { node: "w3".into() };
    let (what, _) = refused(client.links(request).await, Code::Unavailable);
    assert!(what.contains("node w3 cannot be asked"), "{what}");
}

#[tokio::test]
async fn networks_are_encrypted_as_they_or_the_cluster_say() {
    let node = Node::first().await;
    let manager = node.manager();
    let update = async |request| weft_manager::api::cluster::update(&manager, request).await;
    let change =
        |encrypt| UpdateClusterRequest { encrypt_overlays: Some(encrypt), ..Default::default() };
    assert!(!create(&node, "plain", None).await.unwrap().encrypted);
    assert!(create(&node, "secret", Some("true")).await.unwrap().encrypted);
    update(change(true)).await.unwrap();
    assert!(create(&node, "usual", None).await.unwrap().encrypted);
    assert!(!create(&node, "open", Some("false")).await.unwrap().encrypted);
    let (what, hint) = refused(create(&node, "plain", Some("")).await, Code::AlreadyExists);
    assert!(
        what.contains("network plain already exists") && what.contains("not encrypted"),
        "{what}"
    );
    assert!(hint.contains("--network-add NEW --network-rm plain"), "{hint}");

    let port = UpdateClusterRequest { wireguard_port: Some(4500), ..Default::default() };
    let (what, hint) = refused(update(port).await, Code::FailedPrecondition);
    assert!(what.contains("is encrypted") && hint.contains("remove"), "{what}; {hint}");
    let age = |seconds| UpdateClusterRequest {
        key_rotation: Some(duration(Duration::from_secs(seconds))),
        ..Default::default()
    };
    let (what, _) = refused(update(age(59)).await, Code::InvalidArgument);
    assert!(what.contains("--key-rotation"), "{what}");
    let spec = update(age(60)).await.unwrap().cluster.unwrap().spec.unwrap();
    assert_eq!(spec.key_rotation, Some(duration(Duration::from_secs(60))));
    let spec = update(age(0)).await.unwrap().cluster.unwrap().spec.unwrap();
    assert_eq!((spec.key_rotation, spec.encrypt_overlays), (None, true));
}
