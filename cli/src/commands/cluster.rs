//! `weft cluster ...`

use std::{io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use weft_proto::{tls::NodeKey, v1};

use super::{Context, availability, inspect, role, style};
use crate::{
    args::{
        ListArgs,
        cluster::{
            ClientCertArgs, ClusterCommand, InitArgs, JoinArgs, JoinTokenArgs, RoleArg, UpdateArgs,
        },
    },
    client::{Client, request_id},
    docker,
    error::CliError,
    output::list,
    wire::duration,
};

/// Runs one of the commands on the cluster.
pub async fn run(
    client: &Client,
    command: ClusterCommand,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    match command {
        ClusterCommand::Init(args) => init(client, args, context).await,
        ClusterCommand::Join(args) => join(client, args, context).await,
        ClusterCommand::JoinToken(args) => join_token(client, &args, context).await,
        ClusterCommand::ClientCert(args) => client_cert(client, &args, context).await,
        ClusterCommand::Leave(args) => {
            // Leaving is not repeated: the daemon that has left is no longer asked the same way.
            let request = v1::LeaveRequest { force: args.force };
            let result = client.cluster().leave(request).await;
            result.map_err(|status| client.refused("cluster leave", &status))?;
            context.line("Node left the cluster.")
        }
        ClusterCommand::Inspect(args) => {
            let name = ["cluster".to_owned()];
            inspect::print(&name, args.format.as_deref(), context, async |_| {
                Ok(docker::cluster::inspect(&get(client).await?))
            })
            .await
        }
        ClusterCommand::Update(args) => update(client, &args, context).await,
        ClusterCommand::Unlock(_)
        | ClusterCommand::UnlockKey(_)
        | ClusterCommand::Ca(_)
        | ClusterCommand::Backup(_)
        | ClusterCommand::Restore(_)
        | ClusterCommand::Recover(_) => Err(CliError::unsupported("weft cluster", "this command")),
    }
}

async fn init(client: &Client, args: InitArgs, context: &mut Context<'_>) -> Result<(), CliError> {
    let request = v1::InitRequest {
        advertise_addr: args.advertise_addr.unwrap_or_default(),
        data_path_addr: args.data_path_addr.unwrap_or_default(),
        data_path_port: args.data_path_port.into(),
        default_addr_pools: args.default_addr_pool.iter().map(ToString::to_string).collect(),
        default_addr_pool_mask_length: args.default_addr_pool_mask_length.unwrap_or(0).into(),
        cert_expiry: args.cert_expiry.map(duration),
        task_history_limit: args.task_history_limit,
        encrypt_overlays: args.encrypt_overlays,
        wireguard_port: args.wireguard_port.into(),
        key_rotation: args.key_rotation.map(duration),
        availability: availability(args.availability).into(),
    };
    let result = client.cluster().init(request).await;
    let answer = result.map_err(|status| client.refused("cluster init", &status))?.into_inner();
    let text = format!(
        "Cluster initialized: current node ({}) is now a manager.\n\n\
         To add a worker to this cluster, run the following command:\n\n    {}\n\n\
         To add a manager to this cluster, run 'weft cluster join-token manager' and follow the \
         instructions.\n",
        answer.node_id,
        join_command(&answer.worker_token, &answer.addr)
    );
    context.line(&text)
}

fn join_command(token: &str, addr: &str) -> String {
    format!("weft cluster join --token {token} {addr}")
}

async fn join(client: &Client, args: JoinArgs, context: &mut Context<'_>) -> Result<(), CliError> {
    let request = v1::JoinRequest {
        token: args.token,
        remote_addr: args.remote,
        advertise_addr: args.advertise_addr.unwrap_or_default(),
        data_path_addr: args.data_path_addr.unwrap_or_default(),
        availability: availability(args.availability).into(),
    };
    let result = client.cluster().join(request).await;
    let answer = result.map_err(|status| client.refused("cluster join", &status))?.into_inner();
    let role = docker::node::role(answer.role());
    context.line(&format!("This node joined a cluster as a {role}."))
}

async fn join_token(
    client: &Client,
    args: &JoinTokenArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let request = v1::JoinTokenRequest {
        role: role(args.role).into(),
        rotate: args.rotate,
        ttl: args.ttl.map(duration),
        uses: args.uses.unwrap_or(0),
        request_id: request_id(),
    };
    let answer = client
        .ask("cluster join-token", || {
            let (mut stub, request) = (client.cluster(), request.clone());
            async move { stub.join_token(request).await }
        })
        .await?;
    if args.quiet {
        return context.line(&answer.token);
    }
    let name = match args.role {
        RoleArg::Worker => "worker",
        RoleArg::Manager => "manager",
    };
    if args.rotate {
        context.line(&format!("Successfully rotated {name} join token.\n"))?;
    }
    context.line(&format!(
        "To add a {name} to this cluster, run the following command:\n\n    {}\n",
        join_command(&answer.token, &answer.addr)
    ))
}

async fn get(client: &Client) -> Result<v1::Cluster, CliError> {
    let answer = client
        .ask("cluster inspect", || {
            let mut stub = client.cluster();
            async move { stub.inspect(v1::InspectClusterRequest {}).await }
        })
        .await?;
    Ok(answer.cluster.unwrap_or_default())
}

async fn update(
    client: &Client,
    args: &UpdateArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let request = v1::UpdateClusterRequest {
        task_history_limit: args.task_history_limit,
        cert_expiry: args.cert_expiry.map(duration),
        encrypt_overlays: args.encrypt_overlays,
        wireguard_port: args.wireguard_port.map(u32::from),
        key_rotation: args.key_rotation.map(duration),
        version: 0,
        request_id: request_id(),
    };
    client
        .ask("cluster update", || {
            let (mut stub, request) = (client.cluster(), request.clone());
            async move { stub.update(request).await }
        })
        .await?;
    context.line("Cluster updated.")
}

/// Draws a key here, has it certified, and writes the three files that `--tls-*` read. The key
/// never leaves this machine.
async fn client_cert(
    client: &Client,
    args: &ClientCertArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    if args.ls {
        return client_certs(client, args, context).await;
    }
    if let Some(certificate) = &args.revoke {
        return revoke(client, certificate, context).await;
    }
    // The other two forms are the only ones without.
    let name = args.name.clone().unwrap_or_default();
    let failed = |error| CliError::refused("cluster client-cert", error);
    let key = NodeKey::generate().map_err(failed)?;
    let request = v1::ClientCertificateRequest {
        name: name.clone(),
        ttl: Some(duration(args.ttl)),
        csr: key.csr_der().map_err(failed)?,
    };
    let answer = client
        .ask("cluster client-cert", || {
            let (mut stub, request) = (client.cluster(), request.clone());
            async move { stub.client_certificate(request).await }
        })
        .await?;
    let (cert, secret, ca) = (
        args.dir.join(format!("{name}.crt")),
        args.dir.join(format!("{name}.key")),
        args.dir.join("ca.crt"),
    );
    write_file(&secret, &key.pem(), 0o600)?;
    write_file(&cert, &answer.certificate, 0o644)?;
    write_file(&ca, &answer.root_certificate, 0o644)?;
    for path in [&cert, &secret, &ca] {
        context.line(&path.display().to_string())?;
    }
    Ok(())
}

async fn client_certs(
    client: &Client,
    args: &ClientCertArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let answer = client
        .ask("cluster client-cert", || {
            let mut stub = client.cluster();
            async move { stub.list_client_certificates(v1::ListClientCertificatesRequest {}).await }
        })
        .await?;
    let row = |certificate| docker::cluster::client_row(certificate, (context.now)());
    let rows: Vec<_> = answer.certificates.iter().map(row).collect();
    let list = ListArgs { format: args.format.clone(), ..ListArgs::default() };
    list::print(docker::cluster::CLIENT_COLUMNS, &rows, style(&list), context.out)
}

async fn revoke(
    client: &Client,
    certificate: &str,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let request = v1::RevokeClientCertificateRequest {
        certificate: certificate.to_owned(),
        request_id: request_id(),
    };
    let answer = client
        .ask("cluster client-cert --revoke", || {
            let (mut stub, request) = (client.cluster(), request.clone());
            async move { stub.revoke_client_certificate(request).await }
        })
        .await?;
    for serial in &answer.serials {
        context.line(serial)?;
    }
    Ok(())
}

fn write_file(path: &Path, text: &str, mode: u32) -> Result<(), CliError> {
    let failed = |source| CliError::Io { what: path.display().to_string(), source };
    // A file that is there already keeps its mode, so it is replaced and not written over.
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}
