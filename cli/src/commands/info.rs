//! `weft info` and `weft version`.

use serde_json::{Value, json};
use weft_proto::v1;

use super::Context;
use crate::{
    args::{Command, FormatArgs},
    client::Client,
    docker,
    error::CliError,
    output::{escape::one_line, list},
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

async fn get(client: &Client, what: &str) -> Result<v1::InfoResponse, CliError> {
    // Not repeated: the node answers for itself, also when the cluster has no leader.
    let answer = client.cluster().info(v1::InfoRequest {}).await;
    answer.map(tonic::Response::into_inner).map_err(|status| client.refused(what, &status))
}

/// What the daemon knows of its node and the cluster.
pub async fn info(
    client: &Client,
    args: &FormatArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let info = get(client, "info").await?;
    match args.format.as_deref() {
        None => {
            context.out.write_all(docker::cluster::info_text(&info).as_bytes())?;
            Ok(())
        }
        Some(format) => formatted(&docker::cluster::info(&info), format, context),
    }
}

/// Prints a value as JSON in one line, or through a template.
fn formatted(value: &Value, format: &str, context: &mut Context<'_>) -> Result<(), CliError> {
    if format.trim() == "json" {
        return context.line(&value.to_string());
    }
    let text = list::apply(&list::compile(format)?, value)?;
    context.line(&text)
}

fn client_part() -> Value {
    json!({"Version": VERSION, "Os": std::env::consts::OS, "Arch": std::env::consts::ARCH})
}

/// The versions of both sides.
pub async fn version(
    client: &Client,
    args: &FormatArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let info = get(client, "version").await?;
    print_version(args, Some(&info), context)
}

/// The version of the client, when there is no daemon; fails as Docker does, because one half is
/// missing. The reason has been printed.
pub fn client_version(command: Command, context: &mut Context<'_>) -> Result<(), CliError> {
    if let Command::Version(args) = command {
        print_version(&args, None, context)?;
    }
    Err(CliError::Exit(crate::error::EXIT_DAEMON))
}

fn print_version(
    args: &FormatArgs,
    server: Option<&v1::InfoResponse>,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    if let Some(format) = args.format.as_deref() {
        let server = server
            .map(|info| json!({"Version": info.version, "KernelVersion": info.kernel_version}));
        let value = json!({"Client": client_part(), "Server": server});
        return formatted(&value, format, context);
    }
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    context.line(&format!("Client:\n Version: {VERSION}\n OS/Arch: {os}/{arch}"))?;
    if let Some(info) = server {
        let (version, kernel) = (one_line(&info.version), one_line(&info.kernel_version));
        context.line(&format!("\nServer:\n Version: {version}\n Kernel Version: {kernel}"))?;
    }
    Ok(())
}
