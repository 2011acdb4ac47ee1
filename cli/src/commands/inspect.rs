//! `inspect`, of one kind or of any: a JSON array, or one line through a template for each object.

use serde_json::Value;
use tonic::{Code, Status};
use weft_proto::v1;

use super::Context;
use crate::{
    args::container::{ContainerInspectArgs, InspectArgs, ObjectKind},
    client::Client,
    docker,
    error::{CliError, what},
    output::{escape::shown, list},
};

/// The order in which an object of any kind is looked for.
const KINDS: [ObjectKind; 5] = [
    ObjectKind::Container,
    ObjectKind::Network,
    ObjectKind::Service,
    ObjectKind::Node,
    ObjectKind::Task,
];

/// `weft inspect NAME...`
pub async fn any(
    client: &Client,
    args: &InspectArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    print(&args.objects, args.format.as_deref(), context, async |name| {
        find(client, name, args.kind).await
    })
    .await
}

/// `weft container inspect NAME...`
pub async fn containers(
    client: &Client,
    args: &ContainerInspectArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    print(&args.containers, args.format.as_deref(), context, async |name| {
        find(client, name, Some(ObjectKind::Container)).await
    })
    .await
}

/// Prints what `get` finds for each name. What was found is printed also when another name was not.
pub async fn print(
    names: &[String],
    format: Option<&str>,
    context: &mut Context<'_>,
    get: impl AsyncFn(&str) -> Result<Value, CliError>,
) -> Result<(), CliError> {
    let template = match format.map(str::trim).filter(|format| !format.is_empty()) {
        None => None,
        Some("json") => Some(None),
        Some(format) => Some(Some(list::compile(format)?)),
    };
    let (mut found, mut failed) = (Vec::new(), None);
    for name in names {
        match get(name).await {
            Ok(value) => found.push(value),
            Err(error) => {
                if let Some(earlier) = failed.replace(error) {
                    CliError::report(&earlier, context.err);
                }
            }
        }
    }
    match template {
        None => context.line(&pretty(&Value::Array(found))?)?,
        Some(None) => {
            for value in found {
                context.line(&value.to_string())?;
            }
        }
        Some(Some(template)) => {
            for value in found {
                let text = list::apply(&template, &value)?;
                context.line(&text)?;
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// JSON over several lines, with four blanks of indent as in Docker.
fn pretty(value: &Value) -> Result<String, CliError> {
    use serde::Serialize;
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    value.serialize(&mut serializer).map_err(|error| CliError::refused("inspect", error))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

async fn find(client: &Client, name: &str, kind: Option<ObjectKind>) -> Result<Value, CliError> {
    let kinds = kind.as_ref().map_or(&KINDS[..], std::slice::from_ref);
    let mut other: Option<Status> = None;
    for kind in kinds {
        match get(client, name, *kind).await {
            Ok(value) => return Ok(value),
            Err(status) if absent(&status) => {}
            // A node outside of a cluster has no such objects; it is no reason to stop looking.
            Err(status) => other = other.or(Some(status)),
        }
    }
    match other {
        Some(status) if kind.is_some() || status.code() == Code::Unavailable => {
            Err(client.refused(&what("inspect", name), &status))
        }
        Some(_) | None => {
            Err(CliError::refused("inspect", format!("no such object: {}", shown(name))))
        }
    }
}

fn absent(status: &Status) -> bool {
    matches!(status.code(), Code::NotFound | Code::Unimplemented)
}

async fn get(client: &Client, name: &str, kind: ObjectKind) -> Result<Value, Status> {
    let name = name.to_owned();
    match kind {
        ObjectKind::Container => {
            let request = v1::GetContainerRequest { container: name };
            let answer = client.containers().get(request).await?.into_inner();
            Ok(docker::container::inspect(&answer.container.unwrap_or_default()))
        }
        ObjectKind::Network => network_value(client, &name, false).await,
        ObjectKind::Service => {
            let request = v1::GetServiceRequest { service: name };
            let answer = client.services().get(request).await?.into_inner();
            Ok(docker::service::inspect(&answer.service.unwrap_or_default()))
        }
        ObjectKind::Node => {
            let request = v1::GetNodeRequest { node: name };
            let answer = client.nodes().get(request).await?.into_inner();
            let node = answer.node.unwrap_or_default();
            // Without its links it is still an answer.
            let links = super::node::links(client, &node).await.unwrap_or_default();
            Ok(docker::node::inspect(&node, links.as_ref()))
        }
        ObjectKind::Task => {
            let request = v1::GetTaskRequest { task: name };
            let answer = client.tasks().get(request).await?.into_inner();
            Ok(docker::task::inspect(&answer.task.unwrap_or_default()))
        }
    }
}

async fn network_value(client: &Client, name: &str, verbose: bool) -> Result<Value, Status> {
    let (_, network) = super::network::find(client, name).await?;
    // Names of nodes make the answer better; without them it is still an answer.
    let nodes = if network.endpoints.is_empty() {
        Vec::new()
    } else {
        let answer = client.nodes().list(v1::ListNodesRequest {}).await;
        answer.map(|answer| answer.into_inner().nodes).unwrap_or_default()
    };
    Ok(docker::network::inspect(&network, &nodes, verbose))
}

/// Everything about one network.
pub async fn network(client: &Client, name: &str, verbose: bool) -> Result<Value, CliError> {
    network_value(client, name, verbose)
        .await
        .map_err(|status| client.refused(&what("network inspect", name), &status))
}

/// One node.
pub async fn get_node(client: &Client, name: &str) -> Result<v1::Node, CliError> {
    let answer = client
        .ask(&what("node inspect", name), || {
            let request = v1::GetNodeRequest { node: name.to_owned() };
            let mut stub = client.nodes();
            async move { stub.get(request).await }
        })
        .await?;
    Ok(answer.node.unwrap_or_default())
}
