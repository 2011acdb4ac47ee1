//! `weft attach` and `detach`: namespaces that somebody else owns, on the node asked.

use std::net::IpAddr;

use weft_proto::v1;

use super::Context;
use crate::{
    args::attachment::{DetachArgs, NamespaceFlags},
    client::{Client, request_id},
    docker,
    error::{CliError, what},
};

/// `weft attach --netns`
pub async fn attach(
    client: &Client,
    args: &NamespaceFlags,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let request = request(args)?;
    let attachment = client
        .ask(&what("attach", &request.netns_path), || {
            let mut stub = client.attachments();
            let request = request.clone();
            async move { stub.attach(request).await }
        })
        .await?
        .attachment
        .unwrap_or_default();
    let shown = docker::attachment::inspect(&attachment);
    context.line(&format!("{shown:#}"))
}

fn request(args: &NamespaceFlags) -> Result<v1::AttachRequest, CliError> {
    let (Some(netns), Some(network)) = (&args.netns, &args.network) else {
        return Err(CliError::usage("attach", "needs CONTAINER, or --netns and --network"));
    };
    // The daemon is in another directory.
    let netns = std::path::absolute(netns)
        .map_err(|source| CliError::Io { what: format!("--netns {}", netns.display()), source })?;
    let netns_path = netns.into_os_string().into_string();
    let netns_path =
        netns_path.map_err(|_| CliError::usage("--netns", "the path must be UTF-8"))?;
    if args.ip.is_some_and(|ip| ip.is_ipv6()) {
        return Err(CliError::usage("--ip", "must be an IPv4 address; for IPv6 there is --ip6"));
    }
    if args.ip6.is_some_and(|ip| ip.is_ipv4()) {
        return Err(CliError::usage("--ip6", "must be an IPv6 address; for IPv4 there is --ip"));
    }
    Ok(v1::AttachRequest {
        netns_path,
        network: network.clone(),
        name: args.name.clone().unwrap_or_default(),
        aliases: args.aliases.clone(),
        service: args.service.clone().unwrap_or_default(),
        addresses: args.ip.iter().chain(&args.ip6).map(IpAddr::to_string).collect(),
        interface: args.ifname.clone(),
        request_id: request_id(),
    })
}

/// `weft detach`
pub async fn detach(
    client: &Client,
    args: &DetachArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    context
        .each(&args.attachments, |name| async move {
            let request =
                v1::DetachRequest { attachment: name.to_owned(), request_id: request_id() };
            let result = client.attachments().detach(request).await;
            result.map_err(|status| client.refused(&what("detach", name), &status))?;
            Ok(name.to_owned())
        })
        .await
}
