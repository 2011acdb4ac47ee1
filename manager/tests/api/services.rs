//! Services: what is found, chosen, versioned and rolled back, and the tasks that come of it.

use std::time::Duration;

use tonic::{Code, Status, transport::Channel};
use weft_model::{TaskState, command::TaskReport, spec::Role};
use weft_proto::{
    convert::session::Reports,
    v1::{
        ContainerSpec, CreateNetworkRequest, CreateServiceRequest, GetServiceRequest,
        ListTasksRequest, NetworkAttachmentSpec, NetworkSpec, RemoveNetworkRequest,
        RemoveServiceRequest, RollbackServiceRequest, Service, ServiceMode, ServiceSpec,
        UpdateServiceRequest,
        network_service_client::NetworkServiceClient,
        service_mode::{Mode, Replicated},
        service_service_client::ServiceServiceClient,
        task_service_client::TaskServiceClient,
    },
};

use crate::support::{Node, PATIENCE, refused, wait_for};

fn web(replicas: u32, argument: &str) -> ServiceSpec {
    ServiceSpec {
        name: "web".into(),
        container: Some(ContainerSpec {
            image: "rootfs:/srv/web".into(),
            args: vec!["serve".into(), argument.into()],
            ..Default::default()
        }),
        mode: Some(ServiceMode { mode: Some(Mode::Replicated(Replicated { replicas })) }),
        networks: vec![NetworkAttachmentSpec {
            network: "NET".into(),
            aliases: vec!["www".into()],
        }],
        ..Default::default()
    }
}

async fn network(node: &Node) -> NetworkServiceClient<Channel> {
    let mut client = NetworkServiceClient::new(node.local());
    let spec = NetworkSpec { name: "net".into(), ..Default::default() };
    client.create(CreateNetworkRequest { spec: Some(spec), ..Default::default() }).await.unwrap();
    client
}

async fn create(
    client: &mut ServiceServiceClient<Channel>,
    spec: ServiceSpec,
) -> Result<Service, Status> {
    let request = CreateServiceRequest { spec: Some(spec), request_id: String::new() };
    Ok(client.create(request).await?.into_inner().service.unwrap())
}

#[tokio::test]
async fn a_service_is_made_changed_rolled_back_and_removed() {
    let node = Node::first().await;
    let mut networks = network(&node).await;
    let mut client = ServiceServiceClient::new(node.local());
    let made = create(&mut client, web(1, "a")).await.unwrap();
    let vip = &made.virtual_ips[0].addresses;
    assert_eq!(vip.len(), 1);
    assert!(vip[0].starts_with("10.0.0.") && vip[0].ends_with("/24"), "{vip:?}");
    let version = made.meta.unwrap().version;
    let update = |version: u64, argument: &str| UpdateServiceRequest {
        service: "web".into(),
        version,
        spec: Some(web(2, argument)),
        ..Default::default()
    };
    let changed = client.update(update(version, "b")).await.unwrap().into_inner().service.unwrap();
    assert_eq!(changed.virtual_ips, made.virtual_ips, "a VIP lives as long as its service");
    let (what, _) = refused(client.update(update(version, "c")).await, Code::Aborted);
    assert!(what.contains("service web has changed"), "{what}");
    let back = RollbackServiceRequest { service: made.id[..12].into(), ..Default::default() };
    let back = client.rollback(back).await.unwrap().into_inner().service.unwrap();
    assert_eq!(back.spec.unwrap().container.unwrap().args, ["serve", "a"]);

    let in_use = RemoveNetworkRequest { network: "net".into(), ..Default::default() };
    let (what, _) = refused(networks.remove(in_use.clone()).await, Code::FailedPrecondition);
    assert!(what.contains("network net is in use by service web"), "{what}");
    let gone = RemoveServiceRequest { service: "web".into(), ..Default::default() };
    assert_eq!(client.remove(gone.clone()).await.unwrap().into_inner().service_id, made.id);
    refused(client.remove(gone).await, Code::NotFound);
    // Its tasks never had a node, so they hold nothing.
    wait_for("the network to be free", || {
        let (mut networks, request) = (networks.clone(), in_use.clone());
        async move { networks.remove(request).await.ok() }
    })
    .await;
}

#[tokio::test]
async fn what_does_not_exist_or_is_not_allowed_is_refused() {
    let node = Node::first().await;
    network(&node).await;
    let mut client = ServiceServiceClient::new(node.local());
    let mut spec = web(1, "a");
    spec.networks[0].network = "other".into();
    let (what, hint) = refused(create(&mut client, spec).await, Code::NotFound);
    assert_eq!((what.as_str(), hint.as_str()), ("no such network: other", "weft network ls"));
    let (what, _) = refused(create(&mut client, web(10_001, "a")).await, Code::InvalidArgument);
    assert!(what.contains("--replicas"), "{what}");
    let mut spec = web(1, "a");
    spec.container = None;
    refused(create(&mut client, spec).await, Code::InvalidArgument);
    create(&mut client, web(1, "a")).await.unwrap();
    let (what, _) = refused(create(&mut client, web(1, "a")).await, Code::AlreadyExists);
    assert!(what.contains("service web already exists"), "{what}");
    let back = RollbackServiceRequest { service: "web".into(), ..Default::default() };
    let (what, _) = refused(client.rollback(back).await, Code::FailedPrecondition);
    assert!(what.contains("no previous spec"), "{what}");
}

#[tokio::test]
async fn tasks_reach_a_worker_and_its_reports_come_back() {
    let node = Node::first().await;
    network(&node).await;
    let worker = node.join("w1", Role::Worker).await;
    let mut session = worker.session(&node).await.unwrap();
    let mut client = ServiceServiceClient::new(node.local());
    create(&mut client, web(3, "a")).await.unwrap();
    let own = |session: &crate::support::Session| {
        let keys = session.assignments.items.keys();
        let tasks = keys.filter_map(|key| match key {
            weft_model::assignments::Key::Task(task) => Some(*task),
            _ => None,
        });
        tasks.collect::<Vec<_>>()
    };
    while own(&session).len() < 3 {
        session.next().await.unwrap();
    }
    let reports = own(&session).into_iter().map(|task| TaskReport {
        task,
        state: TaskState::Running,
        message: "started".into(),
        error: String::new(),
        exit_code: None,
        pid: 42,
        released: false,
        unhealthy: false,
    });
    session.report(&Reports { number: 7, reports: reports.collect() }).await;
    while session.next().await.unwrap() != Some(7) {}
    let get = GetServiceRequest { service: "web".into() };
    let service = client.get(get).await.unwrap().into_inner().service.unwrap();
    assert_eq!((service.running_tasks, service.desired_tasks), (3, 3));
    let mut tasks = TaskServiceClient::new(node.local());
    let request = ListTasksRequest { service: "web".into(), node: "w1".into() };
    let tasks = tasks.list(request).await.unwrap().into_inner().tasks;
    assert_eq!(tasks.len(), 3);
    for task in tasks {
        let status = task.status.unwrap();
        assert_eq!((status.message.as_str(), status.pid), ("started", 42));
        assert_eq!(task.node_hostname, "w1");
        assert_eq!(task.attachments[0].network_name, "net");
        assert_eq!(task.attachments[0].aliases, ["www"]);
    }
    // The acknowledgements of a worker that is level count up to the present revision.
    let manager = node.manager();
    let end = tokio::time::Instant::now() + PATIENCE;
    while manager.applied(worker.id).is_none_or(|applied| applied < manager.view().revision()) {
        assert!(tokio::time::Instant::now() < end, "the worker does not get level");
        let _ = tokio::time::timeout(Duration::from_millis(20), session.next()).await;
    }
}

#[tokio::test]
async fn a_network_that_is_given_twice_is_named_as_the_user_does() {
    let node = Node::first().await;
    let _networks = network(&node).await;
    let mut client = ServiceServiceClient::new(node.local());
    let mut spec = web(1, "a");
    spec.networks.extend(spec.networks.clone());
    let (message, _) = refused(create(&mut client, spec).await, Code::InvalidArgument);
    assert!(message.contains("net") && message.contains("given twice"), "{message}");
}
