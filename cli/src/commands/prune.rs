//! `weft system prune` and `container prune`: what nobody uses goes.

use weft_proto::v1;

use super::{Context, terminal};
use crate::{
    args::{container::ContainerPruneArgs, run::SystemPruneArgs},
    client::{Client, request_id},
    error::CliError,
    output::escape::one_line,
};

/// What is told before it is asked.
const WARNING: &str = "WARNING! This will remove:\n  - all stopped containers\n  - all networks \
                       not used by at least one container\n";

const WARNING_CONTAINERS: &str = "WARNING! This will remove all stopped containers.";

/// `weft container prune`
pub async fn containers(
    client: &Client,
    args: &ContainerPruneArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    if !args.force && !terminal::confirm(context, WARNING_CONTAINERS)? {
        return Ok(());
    }
    prune_containers(client, "container prune", context).await
}

/// `weft system prune`
pub async fn system(
    client: &Client,
    args: &SystemPruneArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    if !args.force && !terminal::confirm(context, WARNING)? {
        return Ok(());
    }
    prune_containers(client, "system prune", context).await?;
    let networks = super::network::prune_all(client, "system prune", context).await?;
    tell("Deleted Networks:", &networks, context)
}

async fn prune_containers(
    client: &Client,
    what: &str,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let request = v1::PruneContainersRequest { request_id: request_id() };
    let containers = client
        .ask(what, || {
            let (mut stub, request) = (client.containers(), request.clone());
            async move { stub.prune(request).await }
        })
        .await?;
    tell("Deleted Containers:", &containers.removed, context)
}

/// A heading and the names below it; nothing if there is none.
pub fn tell(heading: &str, names: &[String], context: &mut Context<'_>) -> Result<(), CliError> {
    if names.is_empty() {
        return Ok(());
    }
    context.line(heading)?;
    for name in names {
        context.line(&one_line(name))?;
    }
    context.line("")
}
