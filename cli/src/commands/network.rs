//! `weft network ...`

mod find;

use std::collections::HashMap;

use ipnet::IpNet;
use tonic::{Code, Status};
use weft_proto::v1;

pub use find::find;

use super::{Context, filter::Filters, inspect, style};
use crate::{
    args::{
        ListArgs,
        network::{
            NetworkCommand, NetworkConnectArgs, NetworkCreateArgs, NetworkDisconnectArgs,
            NetworkInspectArgs, NetworkPruneArgs, NetworkRmArgs, ScopeArg,
        },
    },
    client::{Client, request_id},
    docker::{self, Trunc},
    error::{CliError, what},
    output::list,
};

/// Runs one of the commands on networks.
pub async fn run(
    client: &Client,
    command: NetworkCommand,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    match command {
        NetworkCommand::Create(args) => create(client, &args, context).await,
        NetworkCommand::Ls(args) => ls(client, &args, context).await,
        NetworkCommand::Inspect(args) => inspect_networks(client, &args, context).await,
        NetworkCommand::Rm(args) => rm(client, &args, context).await,
        NetworkCommand::Prune(args) => prune(client, &args, context).await,
        NetworkCommand::Connect(args) => connect(client, &args, context).await,
        NetworkCommand::Disconnect(args) => disconnect(client, &args).await,
    }
}

async fn create(
    client: &Client,
    args: &NetworkCreateArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let spec = spec(args)?;
    let place = Place::of(&spec);
    let request = v1::CreateNetworkRequest { spec: Some(spec), request_id: request_id() };
    let what = what("network create", &args.name);
    let answer = match place {
        Place::Cluster => {
            client
                .ask(&what, || {
                    let (mut stub, request) = (client.networks(), request.clone());
                    async move { stub.create(request).await }
                })
                .await?
        }
        Place::Node => {
            client
                .ask(&what, || {
                    let (mut stub, request) = (client.local_networks(), request.clone());
                    async move { stub.create(request).await }
                })
                .await?
        }
    };
    context.line(&answer.network.unwrap_or_default().id)
}

/// Who keeps a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The node asked.
    Node,
    /// The managers.
    Cluster,
}

impl Place {
    fn of(spec: &v1::NetworkSpec) -> Self {
        if docker::network::scope(spec) == "cluster" { Self::Cluster } else { Self::Node }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Node => "this node",
            Self::Cluster => "the cluster",
        }
    }
}

/// The spec that the flags ask for.
pub fn spec(args: &NetworkCreateArgs) -> Result<v1::NetworkSpec, CliError> {
    let scope = match (args.scope, args.driver.as_str()) {
        (Some(ScopeArg::Local), "overlay") => {
            return Err(CliError::usage("--scope", "an overlay network is always scope cluster"));
        }
        (Some(ScopeArg::Local), _) => "local",
        (Some(ScopeArg::Cluster), _) => "cluster",
        (None, _) => "",
    };
    Ok(v1::NetworkSpec {
        name: args.name.clone(),
        driver: args.driver.clone(),
        labels: args.label.iter().cloned().collect(),
        options: args.opt.iter().cloned().collect(),
        internal: args.internal,
        attachable: args.attachable,
        ipv6: args.ipv6,
        ipam: ipam(args)?,
        scope: scope.to_owned(),
        ingress: args.ingress,
    })
}

/// Gives each range, gateway and auxiliary address to the subnet that it lies in.
fn ipam(args: &NetworkCreateArgs) -> Result<Vec<v1::IpamConfig>, CliError> {
    let mut configs: Vec<(IpNet, v1::IpamConfig)> = Vec::new();
    for subnet in &args.subnet {
        if let Some((other, _)) =
            configs.iter().find(|(other, _)| other.contains(subnet) || subnet.contains(other))
        {
            return Err(CliError::usage("--subnet", format!("{subnet} overlaps {other}")));
        }
        let config = v1::IpamConfig { subnet: subnet.to_string(), ..Default::default() };
        configs.push((*subnet, config));
    }
    let none = |flag: &str, value: &dyn std::fmt::Display| {
        let why =
            if args.subnet.is_empty() { "no --subnet is given" } else { "it is in no --subnet" };
        CliError::usage(flag, format!("{value}: {why}"))
    };
    for range in &args.ip_range {
        let found = configs.iter_mut().find(|(subnet, _)| subnet.contains(range));
        let (subnet, config) = found.ok_or_else(|| none("--ip-range", range))?;
        if !config.ip_range.is_empty() {
            return Err(CliError::usage("--ip-range", format!("more than one for {subnet}")));
        }
        config.ip_range = range.to_string();
    }
    for gateway in &args.gateway {
        let found = configs.iter_mut().find(|(subnet, _)| subnet.contains(gateway));
        let (subnet, config) = found.ok_or_else(|| none("--gateway", gateway))?;
        if !config.gateway.is_empty() {
            return Err(CliError::usage("--gateway", format!("more than one for {subnet}")));
        }
        config.gateway = gateway.to_string();
    }
    for (name, address) in &args.aux_address {
        let found = configs.iter_mut().find(|(subnet, _)| subnet.contains(address));
        let (_, config) = found.ok_or_else(|| none("--aux-address", address))?;
        config.aux_addresses.insert(name.clone(), address.to_string());
    }
    Ok(configs.into_iter().map(|(_, config)| config).collect())
}

async fn ls(client: &Client, args: &ListArgs, context: &mut Context<'_>) -> Result<(), CliError> {
    let filters = Filters::new(&args.filters, &["name", "id", "driver", "scope", "label", "type"])?;
    let mut networks = all(client, "network ls", context).await?;
    networks.retain(|network| {
        let spec = network.spec.clone().unwrap_or_default();
        filters.part_of("name", &spec.name)
            && filters.prefix_of("id", &network.id)
            && filters.word("driver", &spec.driver)
            && filters.any("scope", |value| scope_fits(value, docker::network::scope(&spec)))
            && filters.labels("label", &spec.labels)
            && filters.word("type", if predefined(&spec) { "builtin" } else { "custom" })
    });
    networks.sort_by_key(|network| network.spec.as_ref().map(|spec| spec.name.clone()));
    let trunc = Trunc::unless(args.no_trunc);
    let rows: Vec<_> =
        networks.iter().map(|network| docker::network::row(network, trunc)).collect();
    list::print(docker::network::COLUMNS, &rows, style(args), context.out)
}

/// Docker's scripts say `swarm` for what reaches all nodes.
fn scope_fits(asked: &str, scope: &str) -> bool {
    asked == scope || (scope == "cluster" && matches!(asked, "swarm" | "global"))
}

fn predefined(spec: &v1::NetworkSpec) -> bool {
    matches!(spec.name.as_str(), "bridge" | "host" | "none" | "ingress")
}

async fn inspect_networks(
    client: &Client,
    args: &NetworkInspectArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let verbose = args.verbose;
    inspect::print(&args.networks, args.format.as_deref(), context, async |name| {
        inspect::network(client, name, verbose).await
    })
    .await
}

/// The networks of the node and, as far as they can be had, the cluster's. A node that is in no
/// cluster has only its own; over TCP there are only the cluster's.
async fn all(
    client: &Client,
    what: &str,
    context: &mut Context<'_>,
) -> Result<Vec<v1::Network>, CliError> {
    let own = client.local_networks().list(v1::ListNetworksRequest {}).await;
    let shared = client
        .try_ask(|| {
            let mut stub = client.networks();
            async move { stub.list(v1::ListNetworksRequest {}).await }
        })
        .await;
    match (own, shared) {
        (Ok(own), Ok(shared)) => {
            Ok(own.into_inner().networks.into_iter().chain(shared.networks).collect())
        }
        (Ok(own), Err(status)) => {
            if !in_no_cluster(&status) {
                let error = client.refused(&format!("{what}: the cluster's networks"), &status);
                CliError::report(&error, context.err);
            }
            Ok(own.into_inner().networks)
        }
        (Err(status), Ok(shared)) if is_closed(&status) => Ok(shared.networks),
        (Err(status), _) => Err(client.refused(what, &status)),
    }
}

/// Whether a refusal of the managers' half means that there is no cluster.
pub fn in_no_cluster(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition && status.message().contains("not part of a cluster")
}

/// Whether the node's own half is not for this caller.
fn is_closed(status: &Status) -> bool {
    matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented)
}

async fn connect(
    client: &Client,
    args: &NetworkConnectArgs,
    _: &mut Context<'_>,
) -> Result<(), CliError> {
    let endpoint = v1::EndpointSpec {
        network: args.network.clone(),
        aliases: args.aliases.clone(),
        addresses: args.ip.into_iter().chain(args.ip6).map(|ip| ip.to_string()).collect(),
        mac_address: args.mac_address.clone().unwrap_or_default(),
        links: args.link.clone(),
    };
    let request = v1::ConnectNetworkRequest {
        container: args.container.clone(),
        endpoint: Some(endpoint),
        request_id: request_id(),
    };
    let what = what("network connect", &args.network);
    client
        .ask(&what, || {
            let (mut stub, request) = (client.local_networks(), request.clone());
            async move { stub.connect_container(request).await }
        })
        .await
        .map(drop)
}

async fn disconnect(client: &Client, args: &NetworkDisconnectArgs) -> Result<(), CliError> {
    let request = v1::DisconnectNetworkRequest {
        container: args.container.clone(),
        network: args.network.clone(),
        force: args.force,
        request_id: request_id(),
    };
    let what = what("network disconnect", &args.network);
    client
        .ask(&what, || {
            let (mut stub, request) = (client.local_networks(), request.clone());
            async move { stub.disconnect_container(request).await }
        })
        .await
        .map(drop)
}

async fn rm(
    client: &Client,
    args: &NetworkRmArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let mut failed = None;
    for name in &args.networks {
        match remove(client, name).await {
            Ok(()) => context.line(name)?,
            Err(status) if args.force && status.code() == Code::NotFound => {}
            Err(status) => {
                let error = client.refused(&what("network rm", name), &status);
                if let Some(earlier) = failed.replace(error) {
                    CliError::report(&earlier, context.err);
                }
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn remove(client: &Client, name: &str) -> Result<(), Status> {
    let (place, network) = find(client, name).await?;
    let request = v1::RemoveNetworkRequest { network: network.id, request_id: request_id() };
    match place {
        Place::Node => client
            .try_ask(|| {
                let (mut stub, request) = (client.local_networks(), request.clone());
                async move { stub.remove(request).await }
            })
            .await
            .map(drop),
        Place::Cluster => client
            .try_ask(|| {
                let (mut stub, request) = (client.networks(), request.clone());
                async move { stub.remove(request).await }
            })
            .await
            .map(drop),
    }
}

async fn prune(
    client: &Client,
    args: &NetworkPruneArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    if !args.force
        && !super::terminal::confirm(
            context,
            "WARNING! This will remove all custom networks not used by at least one container.",
        )?
    {
        return Ok(());
    }
    let removed = prune_all(client, "network prune", context).await?;
    super::prune::tell("Deleted Networks:", &removed, context)
}

/// Removes what nobody uses, on the node and in the cluster; gives the names.
pub async fn prune_all(
    client: &Client,
    what: &str,
    context: &mut Context<'_>,
) -> Result<Vec<String>, CliError> {
    let request = v1::PruneNetworksRequest { request_id: request_id() };
    let own = client
        .try_ask(|| {
            let (mut stub, request) = (client.local_networks(), request.clone());
            async move { stub.prune(request).await }
        })
        .await;
    let mut removed = match own {
        Ok(own) => own.removed,
        Err(status) if is_closed(&status) => Vec::new(),
        Err(status) => return Err(client.refused(what, &status)),
    };
    let request = v1::PruneNetworksRequest { request_id: request_id() };
    let shared = client
        .try_ask(|| {
            let (mut stub, request) = (client.networks(), request.clone());
            async move { stub.prune(request).await }
        })
        .await;
    match shared {
        Ok(shared) => removed.extend(shared.removed),
        Err(status) if in_no_cluster(&status) => {}
        Err(status) => {
            let error = client.refused(&format!("{what}: the cluster's networks"), &status);
            CliError::report(&error, context.err);
        }
    }
    Ok(removed)
}

/// The names of networks by ID, for texts.
pub async fn names(client: &Client) -> HashMap<String, String> {
    let mut networks = Vec::new();
    for answer in [
        client.local_networks().list(v1::ListNetworksRequest {}).await,
        client.networks().list(v1::ListNetworksRequest {}).await,
    ] {
        networks.extend(answer.map(|answer| answer.into_inner().networks).unwrap_or_default());
    }
    networks
        .into_iter()
        .map(|network| (network.id, network.spec.unwrap_or_default().name))
        .collect()
}
