//! `weft ps` and what is done to containers of the node asked that are there already.

use weft_proto::v1;

use super::{Context, filter::Filters, style};
use crate::{
    args::{
        container::{KillArgs, PsArgs, StopArgs},
        run::{P2pArgs, PortArgs, RmArgs, WaitArgs},
    },
    client::{Client, request_id},
    docker::{self, Trunc},
    error::{CliError, what},
    output::{escape::shown, list},
    wire::duration,
};

/// What a container can be, in Docker's words.
const STATES: [&str; 7] =
    ["created", "restarting", "running", "removing", "paused", "exited", "dead"];

/// `weft ps`
pub async fn ps(client: &Client, args: &PsArgs, context: &mut Context<'_>) -> Result<(), CliError> {
    let filters = Filters::new(
        &args.list.filters,
        &["id", "name", "status", "label", "network", "service", "exited", "ancestor", "health"],
    )?;
    known_states(&args.list.filters)?;
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

/// A misspelt state would look like "there is none".
fn known_states(filters: &[(String, String)]) -> Result<(), CliError> {
    let mut states = filters.iter().filter(|(key, _)| key == "status").map(|(_, state)| state);
    match states.find(|state| !STATES.iter().any(|known| known.eq_ignore_ascii_case(state))) {
        None => Ok(()),
        Some(state) => {
            let why = format!("no state {:?}: use {}", shown(state), STATES.join(", "));
            Err(CliError::usage("--filter", why))
        }
    }
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
        && filters.word("health", health(container))
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

/// A container without a check has the health `none`.
fn health(container: &v1::Container) -> &str {
    container.health.as_ref().map_or("none", |health| &health.status)
}

/// The time that the flags give a container to end; none is its own.
fn grace(args: &StopArgs) -> Option<crate::wire::WireDuration> {
    args.timeout.map(|seconds| duration(std::time::Duration::from_secs(seconds.into())))
}

/// `weft stop`
pub async fn stop(
    client: &Client,
    args: &StopArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let grace = grace(args);
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

/// `weft restart`
pub async fn restart(
    client: &Client,
    args: &StopArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let grace = grace(args);
    context
        .each(&args.containers, |name| async move {
            let container = name.to_owned();
            let request =
                v1::RestartContainerRequest { container, grace, request_id: request_id() };
            let result = client
                .try_ask(|| {
                    let (mut stub, request) = (client.containers(), request.clone());
                    async move { stub.restart(request).await }
                })
                .await;
            result.map_err(|status| client.refused(&what("restart", name), &status))?;
            Ok(name.to_owned())
        })
        .await
}

/// `weft rm`
pub async fn rm(client: &Client, args: &RmArgs, context: &mut Context<'_>) -> Result<(), CliError> {
    let force = args.force;
    context
        .each(&args.containers, |name| async move {
            let container = name.to_owned();
            let request = v1::RemoveContainerRequest { container, force, request_id: request_id() };
            let result = client
                .try_ask(|| {
                    let (mut stub, request) = (client.containers(), request.clone());
                    async move { stub.remove(request).await }
                })
                .await;
            result.map_err(|status| client.refused(&what("rm", name), &status))?;
            Ok(name.to_owned())
        })
        .await
}

/// `weft wait`
pub async fn wait(
    client: &Client,
    args: &WaitArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    context
        .each(&args.containers, |name| async move {
            let request = v1::WaitContainerRequest { container: name.to_owned() };
            let result = client.containers().wait(request).await;
            let answer = result.map_err(|status| client.refused(&what("wait", name), &status))?;
            Ok(answer.into_inner().exit_code.to_string())
        })
        .await
}

/// `weft port`
pub async fn port(
    client: &Client,
    args: &PortArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let request = v1::GetContainerRequest { container: args.container.clone() };
    let answer = client.containers().get(request).await;
    let what = what("port", &args.container);
    let answer = answer.map_err(|status| client.refused(&what, &status))?.into_inner();
    let mut ports = answer.container.unwrap_or_default().ports;
    ports.sort_by(|a, b| {
        let key = |p: &v1::PortBinding| {
            (p.container_port, p.protocol.clone(), p.host_ip.contains(':'), p.host_port)
        };
        key(a).cmp(&key(b))
    });
    let Some(asked) = &args.port else {
        for port in &ports {
            let to = docker::container::host_end(port);
            context.line(&format!("{}/{} -> {to}", port.container_port, port.protocol))?;
        }
        return Ok(());
    };
    let (number, protocol) = asked.split_once('/').unwrap_or((asked, "tcp"));
    let fits = |port: &&v1::PortBinding| {
        port.container_port.to_string() == number && port.protocol.eq_ignore_ascii_case(protocol)
    };
    let found: Vec<_> = ports.iter().filter(fits).collect();
    if found.is_empty() {
        let why = format!("no public port {number}/{protocol} published");
        return Err(CliError::refused(what, crate::output::escape::one_line(&why)));
    }
    for port in found {
        context.line(&docker::container::host_end(port))?;
    }
    Ok(())
}

/// `weft p2p`
pub async fn p2p(
    client: &Client,
    args: &P2pArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let request = v1::ConnectPairRequest {
        containers: vec![args.first.clone(), args.second.clone()],
        subnet: args.subnet.map(|subnet| subnet.to_string()).unwrap_or_default(),
        request_id: request_id(),
    };
    let answer = client
        .ask("p2p", || {
            let (mut stub, request) = (client.containers(), request.clone());
            async move { stub.connect_pair(request).await }
        })
        .await?;
    for end in &answer.ends {
        context.line(&format!("{} {} {}", end.container_name, end.interface, end.address))?;
    }
    Ok(())
}
