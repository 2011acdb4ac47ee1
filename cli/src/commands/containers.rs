//! `weft ps`, `stop` and `kill`: the containers of the node asked.

use weft_proto::v1;

use super::{Context, filter::Filters, style};
use crate::{
    args::container::{KillArgs, PsArgs, StopArgs},
    client::Client,
    docker::{self, Trunc},
    error::{CliError, what},
    output::list,
    wire::duration,
};

/// `weft ps`
pub async fn ps(client: &Client, args: &PsArgs, context: &mut Context<'_>) -> Result<(), CliError> {
    let filters = Filters::new(
        &args.list.filters,
        &["id", "name", "status", "label", "network", "service", "exited", "ancestor"],
    )?;
    let most = if args.latest { Some(1) } else { args.last };
    // A filter by state asks for containers that do not run, as in Docker.
    let by_state = args.list.filters.iter().any(|(key, _)| key == "status" || key == "exited");
    let all = args.all || most.is_some() || by_state;
    let mut containers = client
        .ask("ps", || {
            let mut stub = client.containers();
            async move { stub.list(v1::ListContainersRequest { all }).await }
        })
        .await?
        .containers;
    containers.retain(|container| fits(&filters, container));
    // Newest first.
    containers.sort_by_key(|container| {
        let created = container.created_at.as_ref().map(|time| (time.seconds, time.nanos));
        (std::cmp::Reverse(created), container.name.clone())
    });
    containers.truncate(most.unwrap_or(usize::MAX));
    let (now, trunc) = ((context.now)(), Trunc::unless(args.list.no_trunc));
    let rows: Vec<_> =
        containers.iter().map(|container| docker::container::row(container, now, trunc)).collect();
    list::print(docker::container::COLUMNS, &rows, style(&args.list), context.out)
}

fn fits(filters: &Filters, container: &v1::Container) -> bool {
    let code = container.exit_code.map(|code| code.to_string());
    filters.part_of("name", &container.name)
        && filters.prefix_of("id", &container.id)
        && filters.word("status", &container.status)
        && filters.labels("label", &container.labels)
        && filters.any("ancestor", |image| container.image == image)
        && filters
            .any("exited", |value| container.status == "exited" && code.as_deref() == Some(value))
        && filters.any("network", |value| {
            container.networks.iter().any(|network| {
                network.network_name == value || network.network_id.starts_with(value)
            })
        })
        && filters.any("service", |value| {
            !container.service_id.is_empty()
                && (container.service_name == value || container.service_id.starts_with(value))
        })
}

/// `weft stop`
pub async fn stop(
    client: &Client,
    args: &StopArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let grace =
        args.timeout.map(|seconds| duration(std::time::Duration::from_secs(seconds.into())));
    context
        .each(&args.containers, |name| async move {
            let request = v1::StopContainerRequest { container: name.to_owned(), grace };
            let result = client.containers().stop(request).await;
            result.map_err(|status| client.refused(&what("stop", name), &status))?;
            Ok(name.to_owned())
        })
        .await
}

/// `weft kill`
pub async fn kill(
    client: &Client,
    args: &KillArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let signal = args.signal;
    context
        .each(&args.containers, |name| async move {
            let request = v1::KillContainerRequest { container: name.to_owned(), signal };
            let result = client.containers().kill(request).await;
            result.map_err(|status| client.refused(&what("kill", name), &status))?;
            Ok(name.to_owned())
        })
        .await
}
