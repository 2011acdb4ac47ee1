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

/// An object of the first kind that has one of this name or whole ID; else the first one whose ID
/// begins so.
async fn find(client: &Client, name: &str, kind: Option<ObjectKind>) -> Result<Value, CliError> {
    let kinds = kind.as_ref().map_or(&KINDS[..], std::slice::from_ref);
    let (mut begins, mut other): (Option<Value>, Option<Status>) = (None, None);
    for kind in kinds {
        match get(client, name, *kind).await {
            Ok(value) if is_called(&value, name) => return Ok(value),
            Ok(value) => begins = begins.or(Some(value)),
            Err(status) if absent(&status) => {}
            // A node outside of a cluster has no such objects; it is no reason to stop looking.
            Err(status) => other = other.or(Some(status)),
        }
    }
    match (begins, other) {
        (Some(value), _) => Ok(value),
        (None, Some(status)) if kind.is_some() || status.code() == Code::Unavailable => {
            Err(client.refused(&what("inspect", name), &status))
        }
        (None, _) => Err(CliError::refused("inspect", format!("no such object: {}", shown(name)))),
    }
}

/// Whether the object was found by this name or whole ID, not by the beginning of its ID. What a kind
/// calls its objects besides (`self`, the names of tasks) is its own affair.
fn is_called(object: &Value, name: &str) -> bool {
    let text = |path: &&str| object.pointer(path)?.as_str();
    let ids = ["/Id", "/ID"];
    let names = ["/Name", "/Spec/Name", "/Description/Hostname"];
    let begins = |id: &str| id.starts_with(name) && id != name;
    // Docker writes the names of containers with a slash.
    let named = names.iter().filter_map(text).any(|known| known.trim_start_matches('/') == name);
    named || !ids.iter().filter_map(text).any(begins)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::is_called;

    #[test]
    fn names_and_whole_ids_are_told_from_beginnings() {
        let objects = [
            json!({"Id": "ab12", "Name": "/web"}),
            json!({"Id": "ab12", "Name": "web"}),
            json!({"ID": "ab12", "Spec": {"Name": "web"}}),
            json!({"ID": "ab12", "Description": {"Hostname": "web"}}),
        ];
        for object in &objects {
            for name in ["web", "ab12"] {
                assert!(is_called(object, name), "{name}: {object}");
            }
            for name in ["a", "ab1"] {
                assert!(!is_called(object, name), "{name}: {object}");
            }
        }
        assert!(is_called(&json!({"Id": "ab12", "Name": "/ab1"}), "ab1"));
        assert!(is_called(&json!({"Id": "ab12", "Name": "/web.1.ab12"}), "web.1"));
    }
}
