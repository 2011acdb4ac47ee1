//! The output of a service comes from the nodes its tasks are on, and a node that cannot be asked is
//! named without hiding the others.

use std::collections::BTreeSet;

use tonic::{Code, Status};
use weft_model::spec::Role;
use weft_proto::v1::{
    ContainerSpec, CreateServiceRequest, ServiceLogsRequest, ServiceLogsResponse, ServiceMode,
    ServiceSpec,
    service_mode::{Global, Mode},
    service_service_client::ServiceServiceClient,
};

use crate::support::{Node, refused, wait_for};

async fn lines(node: &Node, target: &str) -> (Vec<ServiceLogsResponse>, Option<Status>) {
    let mut client = ServiceServiceClient::new(node.local());
    let request = ServiceLogsRequest { target: target.to_owned(), ..Default::default() };
    let mut stream = client.logs(request).await.unwrap().into_inner();
    let mut lines = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(line)) => lines.push(line),
            Ok(None) => return (lines, None),
            Err(status) => return (lines, Some(status)),
        }
    }
}

#[tokio::test]
async fn lines_come_from_all_nodes_and_a_dead_one_is_named() {
    let node = Node::first().await;
    let (mut workers, mut sessions) = (Vec::new(), Vec::new());
    for name in ["w1", "w2", "w3"] {
        let worker = node.join(name, Role::Worker).await;
        sessions.push(worker.session(&node).await.unwrap());
        workers.push(worker);
    }
    let spec = ServiceSpec {
        name: "web".into(),
        container: Some(ContainerSpec {
            image: "rootfs:/x".into(),
            args: vec!["sh".into()],
            ..Default::default()
        }),
        mode: Some(ServiceMode { mode: Some(Mode::Global(Global {})) }),
        ..Default::default()
    };
    let mut client = ServiceServiceClient::new(node.local());
    let request = CreateServiceRequest { spec: Some(spec), ..Default::default() };
    client.create(request).await.unwrap();
    let manager = node.manager();
    wait_for("a task on each worker", || async {
        let state = manager.view();
        let nodes: BTreeSet<_> = state.tasks().filter_map(|task| task.node).collect();
        workers.iter().all(|worker| nodes.contains(&worker.id)).then_some(())
    })
    .await;
    // Before anybody has a connection to it: those that are open would go on.
    drop(workers.pop());
    let (all, end) = lines(&node, "web").await;
    let from: BTreeSet<_> = all.iter().map(|line| line.node_hostname.as_str()).collect();
    assert_eq!(from, ["w1", "w2"].into());
    for line in &all {
        let text = String::from_utf8(line.record.clone().unwrap().data).unwrap();
        assert!(text.ends_with(&format!(" of {}", line.task_id)), "{text}");
    }
    let end = end.expect("the dead node is named");
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
    assert!(end.message().contains("on node w3"), "{end:?}");

    let (of_task, end) = lines(&node, &all[0].task_id[..12]).await;
    assert!(end.is_none(), "{end:?}");
    assert_eq!(of_task.len(), 2);
    let request = ServiceLogsRequest { target: "nothing".into(), ..Default::default() };
    refused(client.logs(request).await, Code::NotFound);
}
