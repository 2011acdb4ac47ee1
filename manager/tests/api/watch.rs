//! Watching: a listing, then every change once, and going on where one was.

use tonic::{Code, Streaming};
use weft_proto::v1::{
    CreateNetworkRequest, NetworkSpec, RemoveNetworkRequest, WatchKind, WatchRequest,
    WatchResponse, network_service_client::NetworkServiceClient, watch_response::Object,
    watch_service_client::WatchServiceClient,
};

use crate::support::{Node, PATIENCE, refused};

async fn next(stream: &mut Streaming<WatchResponse>) -> WatchResponse {
    let message = tokio::time::timeout(PATIENCE, stream.message()).await.expect("a change");
    message.unwrap().expect("the watch goes on")
}

fn shown(message: &WatchResponse) -> (WatchKind, String) {
    let name = match &message.object {
        Some(Object::Network(network)) => network.spec.as_ref().unwrap().name.clone(),
        Some(Object::Node(node)) => node.hostname.clone(),
        Some(Object::Service(_) | Object::Task(_)) | None => String::new(),
    };
    (message.kind(), name)
}

async fn make(node: &Node, name: &str) {
    let spec = NetworkSpec { name: name.to_owned(), ..Default::default() };
    let request = CreateNetworkRequest { spec: Some(spec), ..Default::default() };
    NetworkServiceClient::new(node.local()).create(request).await.unwrap();
}

async fn remove(node: &Node, name: &str) {
    let request = RemoveNetworkRequest { network: name.to_owned(), ..Default::default() };
    NetworkServiceClient::new(node.local()).remove(request).await.unwrap();
}

fn networks_from(from_revision: u64) -> WatchRequest {
    WatchRequest { from_revision, objects: vec!["network".into()], service: String::new() }
}

#[tokio::test]
async fn a_watch_lists_then_follows_and_resumes_without_loss_or_repetition() {
    let node = Node::first().await;
    make(&node, "before").await;
    let mut client = WatchServiceClient::new(node.local());
    let mut stream = client.watch(networks_from(0)).await.unwrap().into_inner();
    assert_eq!(shown(&next(&mut stream).await), (WatchKind::Created, "before".into()));
    let bookmark = next(&mut stream).await;
    assert_eq!(bookmark.kind(), WatchKind::Bookmark);
    assert!(bookmark.revision > 0);

    make(&node, "one").await;
    let one = next(&mut stream).await;
    assert_eq!(shown(&one), (WatchKind::Created, "one".into()));
    drop(stream);
    make(&node, "two").await;
    remove(&node, "one").await;
    for (from, expected) in [
        (
            bookmark.revision,
            vec![
                (WatchKind::Created, "one"),
                (WatchKind::Created, "two"),
                (WatchKind::Removed, "one"),
            ],
        ),
        (one.revision, vec![(WatchKind::Created, "two"), (WatchKind::Removed, "one")]),
    ] {
        let mut stream = client.watch(networks_from(from)).await.unwrap().into_inner();
        for (kind, name) in expected {
            assert_eq!(shown(&next(&mut stream).await), (kind, name.to_owned()));
        }
    }
}

#[tokio::test]
async fn what_is_not_kept_or_not_known_is_refused() {
    let node = Node::first().await;
    let mut client = WatchServiceClient::new(node.local());
    // Before the cluster was made, when Raft's own first entries were written.
    let (what, hint) = refused(client.watch(networks_from(1)).await, Code::OutOfRange);
    assert!(what.contains("no longer kept"), "{what}");
    assert!(hint.contains("revision 0"), "{hint}");
    let odd = WatchRequest { objects: vec!["pod".into()], ..Default::default() };
    refused(client.watch(odd).await, Code::InvalidArgument);
    let missing = WatchRequest { service: "nothing".into(), ..Default::default() };
    refused(client.watch(missing).await, Code::NotFound);
}
