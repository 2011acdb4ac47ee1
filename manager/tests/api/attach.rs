//! Namespaces of others, as nodes ask for them with their certificates.

use tonic::{Code, transport::Channel};
use weft_model::spec::Role;
use weft_proto::v1::{
    AttachForeignRequest, ContainerSpec, CreateNetworkRequest, CreateServiceRequest,
    DetachForeignRequest, Endpoint, ForeignReadyRequest, GetNetworkRequest, NetworkAttachmentSpec,
    NetworkSpec, ServiceSpec, dispatcher_service_client::DispatcherServiceClient,
    network_service_client::NetworkServiceClient, service_service_client::ServiceServiceClient,
};

use crate::support::{Node, refused};

/// A manager, a worker, and the networks "shop" and "closed".
async fn cluster() -> (Node, Node) {
    let manager = Node::first().await;
    let mut networks = NetworkServiceClient::new(manager.local());
    for (name, attachable) in [("shop", true), ("closed", false)] {
        let spec = NetworkSpec { name: name.into(), attachable, ..Default::default() };
        let request = CreateNetworkRequest { spec: Some(spec), request_id: String::new() };
        networks.create(request).await.unwrap();
    }
    let worker = manager.join("n2", Role::Worker).await;
    (manager, worker)
}

fn as_node(node: &Node, via: &Node) -> DispatcherServiceClient<Channel> {
    DispatcherServiceClient::new(node.channel_to(via))
}

fn id(number: u8) -> String {
    format!("{number:064x}")
}

fn request(number: u8, name: &str) -> AttachForeignRequest {
    AttachForeignRequest {
        id: id(number),
        network: "shop".into(),
        name: name.into(),
        ..AttachForeignRequest::default()
    }
}

async fn members(manager: &Node) -> Vec<Endpoint> {
    let request = GetNetworkRequest { network: "shop".into() };
    let mut networks = NetworkServiceClient::new(manager.local());
    networks.get(request).await.unwrap().into_inner().network.unwrap().endpoints
}

#[tokio::test]
async fn a_retry_attaches_once_and_only_the_own_node_speaks_of_it() {
    let (manager, worker) = cluster().await;
    let mut own = as_node(&worker, &manager);
    let mut other = as_node(&manager, &manager);
    for _ in 0..2 {
        own.attach_foreign(request(1, "probe")).await.unwrap();
    }
    let [member] = &members(&manager).await[..] else { panic!() };
    assert_eq!((member.name.as_str(), member.visible), ("probe", false));
    assert_eq!(member.addresses, ["10.0.0.2/24"]);
    assert_eq!(member.node_id, worker.id.to_string());

    refused(other.foreign_ready(ForeignReadyRequest { id: id(1) }).await, Code::NotFound);
    refused(other.detach_foreign(DetachForeignRequest { id: id(1) }).await, Code::NotFound);
    refused(own.foreign_ready(ForeignReadyRequest { id: id(9) }).await, Code::NotFound);
    assert_eq!(members(&manager).await.len(), 1);
    own.foreign_ready(ForeignReadyRequest { id: id(1) }).await.unwrap();
    for _ in 0..2 {
        own.detach_foreign(DetachForeignRequest { id: id(1) }).await.unwrap();
    }
    assert_eq!(members(&manager).await, []);
}

#[tokio::test]
async fn what_may_not_be_is_refused_with_its_reason() {
    let (manager, worker) = cluster().await;
    let mut own = as_node(&worker, &manager);
    own.attach_foreign(request(1, "probe")).await.unwrap();
    let cases: [(Code, &str, fn(&mut AttachForeignRequest)); 8] = [
        (Code::FailedPrecondition, "not attachable", |r| r.network = "closed".into()),
        (Code::NotFound, "no such network: x", |r| r.network = "x".into()),
        (Code::AlreadyExists, "attachment probe", |r| r.name = "probe".into()),
        (Code::InvalidArgument, "--name", |r| r.name = "a b".into()),
        (Code::InvalidArgument, "--alias", |r| r.aliases = vec!["a.b".into()]),
        (Code::InvalidArgument, "--ip", |r| r.addresses = vec!["010.0.0.9".into()]),
        (Code::FailedPrecondition, "is taken", |r| r.addresses = vec!["10.0.0.2".into()]),
        (Code::InvalidArgument, "not an ID", |r| r.id = "1".into()),
    ];
    for (code, words, spoil) in cases {
        let mut bad = request(2, "other");
        spoil(&mut bad);
        let (message, _) = refused(own.attach_foreign(bad).await, code);
        assert!(message.contains(words), "{message} lacks {words}");
    }
    assert_eq!(members(&manager).await.len(), 1, "a refusal changes nothing");
}

#[tokio::test]
async fn a_manager_may_answer_for_a_service_and_a_worker_may_not() {
    let (manager, worker) = cluster().await;
    let network = NetworkAttachmentSpec { network: "shop".into(), ..Default::default() };
    let container = ContainerSpec {
        image: "rootfs:/srv".into(),
        args: vec!["sh".into()],
        ..Default::default()
    };
    let spec = ServiceSpec {
        name: "web".into(),
        container: Some(container),
        networks: vec![network],
        ..Default::default()
    };
    let create = CreateServiceRequest { spec: Some(spec), request_id: String::new() };
    ServiceServiceClient::new(manager.local()).create(create).await.unwrap();
    let wish = AttachForeignRequest { service: "web".into(), ..request(1, "helper") };
    let mut of_worker = as_node(&worker, &manager);
    let (message, hint) =
        refused(of_worker.attach_foreign(wish.clone()).await, Code::PermissionDenied);
    assert!(message.contains("worker") && hint.contains("on a manager"), "{message} {hint}");
    as_node(&manager, &manager).attach_foreign(wish).await.unwrap();
    let found = members(&manager).await;
    let member = found.iter().find(|member| member.name == "helper").unwrap();
    assert!(!member.service_id.is_empty());
}
