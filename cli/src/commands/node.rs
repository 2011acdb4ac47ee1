//! `weft node ...`

use std::cell::RefCell;

use tonic::Status;
use weft_proto::v1;

use super::{Context, availability, filter::Filters, inspect, role, service, style};
use crate::{
    args::{
        ListArgs,
        node::{NodeCommand, NodeInspectArgs, NodePsArgs, NodeUpdateArgs},
    },
    client::{Client, request_id},
    docker::{self, Trunc, task::Resolve},
    error::{CliError, what},
    output::{escape::one_line, list},
};

/// Runs one of the commands on nodes.
pub async fn run(
    client: &Client,
    command: NodeCommand,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    match command {
        NodeCommand::Ls(args) => ls(client, &args, context).await,
        NodeCommand::Inspect(args) => inspect_nodes(client, &args, context).await,
        NodeCommand::Ps(args) => ps(client, &args, context).await,
        NodeCommand::Update(args) => {
            let (name, rotate) = (args.node.clone(), args.rotate_key);
            if has_words(&args) {
                update(client, "node update", request(args)).await?;
            }
            if rotate {
                rotate_key(client, &name).await?;
            }
            context.line(&name)
        }
        NodeCommand::Promote(args) => {
            let change = (v1::Role::Manager, "promoted to a manager in the cluster");
            change_role(client, "node promote", &args.nodes, change, context).await
        }
        NodeCommand::Demote(args) => {
            let change = (v1::Role::Worker, "demoted in the cluster");
            change_role(client, "node demote", &args.nodes, change, context).await
        }
        NodeCommand::Rm(args) => {
            let (force, warnings) = (args.force, RefCell::<Vec<String>>::default());
            let removed = context
                .each(&args.nodes, |name| {
                    let warnings = &warnings;
                    async move {
                        let warning = remove(client, name, force).await?;
                        warnings.borrow_mut().extend(warning);
                        Ok(name.to_owned())
                    }
                })
                .await;
            for warning in warnings.take() {
                writeln!(context.err, "{warning}")?;
            }
            removed
        }
    }
}

/// All nodes.
pub async fn list(client: &Client) -> Result<Vec<v1::Node>, CliError> {
    let answer = client
        .ask("node ls", || {
            let mut stub = client.nodes();
            async move { stub.list(v1::ListNodesRequest {}).await }
        })
        .await?;
    Ok(answer.nodes)
}

async fn ls(client: &Client, args: &ListArgs, context: &mut Context<'_>) -> Result<(), CliError> {
    let filters =
        Filters::new(&args.filters, &["id", "name", "role", "membership", "label", "node.label"])?;
    let mut nodes = list(client).await?;
    nodes.retain(|node| {
        let spec = node.spec.clone().unwrap_or_default();
        filters.prefix_of("id", &node.id)
            && filters.part_of("name", &node.hostname)
            && filters.word("role", docker::node::role(spec.role()))
            && filters.word("membership", "accepted")
            && filters.labels("label", &spec.labels)
            && filters.labels("node.label", &spec.labels)
    });
    nodes.sort_by(|a, b| (&a.hostname, a.number).cmp(&(&b.hostname, b.number)));
    let own = client.cluster().info(v1::InfoRequest {}).await;
    let own = own.map(|answer| answer.into_inner().node_id).unwrap_or_default();
    let trunc = Trunc::unless(args.no_trunc);
    let rows: Vec<_> = nodes.iter().map(|node| docker::node::row(node, &own, trunc)).collect();
    list::print(docker::node::COLUMNS, &rows, style(args), context.out)
}

async fn inspect_nodes(
    client: &Client,
    args: &NodeInspectArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    if args.pretty {
        return pretty(client, &args.nodes, context).await;
    }
    let notes = RefCell::default();
    let result = inspect::print(&args.nodes, args.format.as_deref(), context, async |name| {
        let (node, links) = with_links(client, name, &notes).await?;
        Ok(docker::node::inspect(&node, links.as_ref()))
    })
    .await;
    tell(notes, context)?;
    result
}

async fn pretty(
    client: &Client,
    nodes: &[String],
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    for name in nodes {
        let notes = RefCell::default();
        let (node, links) = with_links(client, name, &notes).await?;
        let text = docker::node::pretty(&node, links.as_ref(), (context.now)());
        context.out.write_all(text.as_bytes())?;
        tell(notes, context)?;
    }
    Ok(())
}

/// A node with its links; why there are none to show is noted.
async fn with_links(
    client: &Client,
    name: &str,
    notes: &RefCell<Vec<String>>,
) -> Result<(v1::Node, Option<v1::NodeLinksResponse>), CliError> {
    let node = inspect::get_node(client, name).await?;
    match links(client, &node).await {
        Ok(links) => Ok((node, links)),
        Err(status) => {
            let why = status.message();
            notes.borrow_mut().push(format!("links of {} are not shown: {why}", node.hostname));
            Ok((node, None))
        }
    }
}

fn tell(notes: RefCell<Vec<String>>, context: &mut Context<'_>) -> Result<(), CliError> {
    for note in notes.into_inner() {
        writeln!(context.err, "note: {}", one_line(&note))?;
    }
    Ok(())
}

/// The encrypted links of a node, of which only the node itself knows; none if it has no key yet.
/// Not repeated: a node that is away is worth no wait.
pub async fn links(
    client: &Client,
    node: &v1::Node,
) -> Result<Option<v1::NodeLinksResponse>, Status> {
    if node.tunnel.is_none() {
        return Ok(None);
    }
    let request = v1::NodeLinksRequest { node: node.id.clone() };
    client.nodes().links(request).await.map(|answer| Some(answer.into_inner()))
}

async fn ps(client: &Client, args: &NodePsArgs, context: &mut Context<'_>) -> Result<(), CliError> {
    let mut tasks = Vec::new();
    for name in &args.nodes {
        let node = inspect::get_node(client, name).await?;
        let request = v1::ListTasksRequest { service: String::new(), node: node.id };
        tasks.extend(service::tasks(client, &what("node ps", name), request).await?);
    }
    let resolve = Resolve::unless(args.no_resolve);
    service::print_tasks(tasks, &args.list, resolve, context)
}

/// Whether any of the operator's words on the node is to change.
fn has_words(args: &NodeUpdateArgs) -> bool {
    let labels = args.label_add.len() + args.label_rm.len();
    args.availability.is_some() || args.role.is_some() || labels > 0
}

async fn rotate_key(client: &Client, name: &str) -> Result<(), CliError> {
    let request = v1::RotateKeyRequest { node: name.to_owned(), request_id: request_id() };
    client
        .ask(&what("node update", name), || {
            let (mut stub, request) = (client.nodes(), request.clone());
            async move { stub.rotate_key(request).await }
        })
        .await?;
    Ok(())
}

fn request(args: NodeUpdateArgs) -> v1::UpdateNodeRequest {
    v1::UpdateNodeRequest {
        node: args.node,
        version: 0,
        availability: args.availability.map(|value| availability(value).into()),
        role: args.role.map(|value| role(value).into()),
        label_add: args.label_add.into_iter().collect(),
        label_rm: args.label_rm,
        request_id: request_id(),
    }
}

async fn update(
    client: &Client,
    command: &str,
    request: v1::UpdateNodeRequest,
) -> Result<(), CliError> {
    client
        .ask(&what(command, &request.node), || {
            let (mut stub, request) = (client.nodes(), request.clone());
            async move { stub.update(request).await }
        })
        .await?;
    Ok(())
}

async fn change_role(
    client: &Client,
    command: &str,
    nodes: &[String],
    (role, done): (v1::Role, &str),
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    context
        .each(nodes, |name| async move {
            let node = inspect::get_node(client, name).await?;
            let already = node.spec.as_ref().is_some_and(|spec| spec.role() == role);
            if already {
                return Ok(format!("Node {name} is already a {}.", docker::node::role(role)));
            }
            let request = v1::UpdateNodeRequest {
                node: name.to_owned(),
                role: Some(role.into()),
                request_id: request_id(),
                ..Default::default()
            };
            update(client, command, request).await?;
            Ok(match role {
                v1::Role::Manager => format!("Node {name} {done}."),
                v1::Role::Worker | v1::Role::Unspecified => {
                    format!("Manager {name} {done}.")
                }
            })
        })
        .await
}

/// Removes a node; gives what the user should know beside.
async fn remove(client: &Client, name: &str, force: bool) -> Result<Option<String>, CliError> {
    let request = v1::RemoveNodeRequest { node: name.to_owned(), force, request_id: request_id() };
    let answer = client
        .ask(&what("node rm", name), || {
            let (mut stub, request) = (client.nodes(), request.clone());
            async move { stub.remove(request).await }
        })
        .await?;
    let warning = format!(
        "warning: {} addresses stay held until node {name} has heard that it was removed\n\
         hint: if it is gone for good: weft node rm --force {}",
        answer.held, answer.node_id
    );
    Ok((answer.held > 0).then_some(warning))
}
