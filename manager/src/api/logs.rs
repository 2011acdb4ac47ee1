//! The output of a service: asked of the nodes its tasks are on, and merged.

use std::{pin::Pin, sync::Arc};

use futures::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use tonic::{Request, Status, transport::Channel};
use weft_model::{Node, State, Task};
use weft_proto::v1::{
    AgentLogsRequest, ServiceLogsRequest, ServiceLogsResponse,
    agent_service_client::AgentServiceClient,
};

use super::resolve;
use crate::manager::Manager;

/// Most tasks whose output is asked for at once.
const TASKS_MAX: usize = 1_000;

pub(super) type Lines = Pin<Box<dyn Stream<Item = Result<ServiceLogsResponse, Status>> + Send>>;

/// The lines of all tasks as they come, and at the end, if a node could not be asked, an error that
/// names it: the others' lines are worth having.
pub(super) fn gather(
    manager: &Manager,
    state: &State,
    request: &ServiceLogsRequest,
) -> Result<Lines, Status> {
    let tasks = wanted(state, &request.target)?;
    let mut lines = Vec::new();
    let mut silent = Vec::new();
    for task in tasks {
        let Some(node) = task.node.and_then(|node| state.node(node)) else { continue };
        let name = &node.description.hostname;
        match manager.core.channels.node(&node.description.address.to_string(), node.id) {
            Ok(channel) => lines.push(ask(channel, Arc::clone(node), task, request)),
            Err(error) => silent.push(format!("{name}: {error}")),
        }
    }
    let end = if silent.is_empty() {
        stream::empty().boxed()
    } else {
        let message = format!("no output from {}", silent.join("; "));
        stream::iter([Err(Status::unavailable(message))]).boxed()
    };
    let (good, failed) = (lines, end);
    Ok(Box::pin(last_errors(stream::select_all(good).chain(failed).boxed())))
}

/// A task, or all tasks of a service.
fn wanted(state: &State, target: &str) -> Result<Vec<Arc<Task>>, Status> {
    let tasks: Vec<_> = match resolve::service(state, target) {
        Ok(service) => state.tasks_of(service.id).cloned().collect(),
        Err(no_service) => match resolve::task(state, target) {
            Ok(task) => vec![task],
            Err(_) => return Err(no_service),
        },
    };
    if tasks.len() > TASKS_MAX {
        let message = format!("{} tasks, and at most {TASKS_MAX} can be followed", tasks.len());
        return Err(Status::resource_exhausted(message));
    }
    Ok(tasks)
}

/// The lines of one task.
fn ask(
    channel: Channel,
    node: Arc<Node>,
    task: Arc<Task>,
    request: &ServiceLogsRequest,
) -> BoxStream<'static, Result<ServiceLogsResponse, Status>> {
    let question = AgentLogsRequest {
        task_id: task.id.to_string(),
        follow: request.follow,
        tail: request.tail,
        since: request.since,
    };
    let hostname = node.description.hostname.clone();
    let opened = async move {
        let mut client = AgentServiceClient::new(channel);
        client.logs(Request::new(question)).await.map(tonic::Response::into_inner)
    };
    let lines = stream::once(opened).flat_map(|opened| match opened {
        Ok(lines) => lines.boxed(),
        Err(status) => stream::iter([Err(status)]).boxed(),
    });
    lines
        .map(move |record| match record {
            Ok(record) => Ok(ServiceLogsResponse {
                task_id: task.id.to_string(),
                task_name: task.name(),
                node_id: node.id.to_string(),
                node_hostname: node.description.hostname.clone(),
                record: Some(record),
            }),
            Err(status) => Err(Status::new(
                status.code(),
                format!("{} on node {hostname}: {}", task.name(), status.message()),
            )),
        })
        .boxed()
}

/// Holds errors back until all lines have come, and then gives them as one.
fn last_errors(
    lines: BoxStream<'static, Result<ServiceLogsResponse, Status>>,
) -> impl Stream<Item = Result<ServiceLogsResponse, Status>> + Send {
    stream::unfold((lines, Vec::new()), |(mut lines, mut errors)| async move {
        while let Some(line) = lines.next().await {
            match line {
                Ok(line) => return Some((Ok(line), (lines, errors))),
                Err(status) => errors.push(status),
            }
        }
        let first = errors.first()?.code();
        let words: Vec<_> = errors.iter().map(Status::message).collect();
        let status = Status::new(first, words.join("; "));
        Some((Err(status), (stream::empty().boxed(), Vec::new())))
    })
}
