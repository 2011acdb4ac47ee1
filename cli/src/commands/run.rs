//! `weft run`, `create`, `start`, `attach`: a container of this node, and the user's keyboard,
//! screen and signals at its command.

use std::{fs::OpenOptions, io::Write as _, path::Path};

use tonic::Status;
use weft_proto::v1;

use super::{
    Context,
    attached::{self, Ended, Streams},
    run_spec,
};
use crate::{
    args::{
        container::AttachFlags,
        run::{CreateArgs, RunArgs, SpecArgs, StartArgs},
    },
    client::{Client, request_id},
    error::{CliError, EXIT_DAEMON, what},
    output::escape::shown,
};

/// Metadata entry with the exit code that a command that could not be started counts as.
const EXIT_KEY: &str = "weft-exit-code";

/// What Docker says, too.
const PUBLISHED_IN_VAIN: &str = "published ports are discarded when using host network mode";

/// `weft run`: every failure of our own is 125, and 126 or 127 a command that cannot be executed
/// or found, as in Docker.
pub async fn run(
    client: &Client,
    args: RunArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    match try_run(client, &args, context).await {
        Ok(0) => Ok(()),
        Ok(code) => Err(CliError::Exit(code)),
        Err(error) => failed(error, context),
    }
}

/// What stands for a failure before the command ran: told, and with Docker's code.
fn failed(error: Failure, context: &mut Context<'_>) -> Result<(), CliError> {
    match error {
        Failure::Ours(error @ (CliError::Unreachable { .. } | CliError::Unsupported { .. })) => {
            Err(error)
        }
        // A reader that has seen enough, such as `head`, is no failure.
        Failure::Ours(error) if error.is_closed_output() => Err(error),
        Failure::Ours(error) => {
            error.report(context.err);
            Err(CliError::Exit(EXIT_DAEMON))
        }
        Failure::NotStarted(error, code) => {
            error.report(context.err);
            Err(CliError::Exit(code))
        }
    }
}

/// Why a container does not run.
enum Failure {
    Ours(CliError),
    /// The daemon said with which code it counts.
    NotStarted(CliError, u8),
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Self {
        Self::Ours(error)
    }
}

async fn try_run(
    client: &Client,
    args: &RunArgs,
    context: &mut Context<'_>,
) -> Result<u8, Failure> {
    let spec = run_spec::spec(&args.spec)?;
    if run_spec::publishes_in_vain(&args.spec) {
        // Nothing can be done about a closed standard error.
        let _ = writeln!(context.err, "warning: {PUBLISHED_IN_VAIN}");
    }
    if args.detach && args.spec.rm && args.spec.restart != "no" {
        return Err(CliError::usage("--rm", "not with --restart").into());
    }
    if !args.detach && args.spec.tty && args.spec.interactive {
        attached::needs_terminal("run")?;
    }
    let id = make(client, &args.spec, spec, "run", context).await?;
    if args.detach {
        start_new(client, &id, &args.spec).await?;
        context.line(&id)?;
        return Ok(0);
    }
    let streams = Streams {
        stdin: args.spec.interactive,
        tty: args.spec.tty,
        signals: args.sig_proxy,
        keys: args.detach_keys.clone(),
    };
    let session = attached::open(client, &id, streams).await?;
    start_new(client, &id, &args.spec).await?;
    let ended = session.carry("run", context).await?;
    if args.spec.rm && ended != Ended::Left {
        gone(client, &id).await;
    }
    Ok(ended.code())
}

/// Makes the container and tells what this machine cannot give; gives its ID.
async fn make(
    client: &Client,
    args: &SpecArgs,
    spec: v1::RunSpec,
    command: &str,
    context: &mut Context<'_>,
) -> Result<String, CliError> {
    // Before anything is made: the file must be new.
    let file = args.cidfile.as_deref().map(new_file).transpose()?;
    let request = v1::CreateContainerRequest { spec: Some(spec), request_id: request_id() };
    let made = client
        .ask(command, || {
            let (mut stub, request) = (client.containers(), request.clone());
            async move { stub.create(request).await }
        })
        .await;
    let made = match (made, &args.cidfile) {
        (Ok(made), _) => made,
        (Err(error), None) => return Err(error),
        (Err(error), Some(path)) => {
            // It is ours and empty; a leftover would stop the next try.
            let _ = std::fs::remove_file(path);
            return Err(error);
        }
    };
    if let Some(mut file) = file {
        file.write_all(made.container_id.as_bytes())?;
    }
    for warning in &made.warnings {
        let warning = crate::output::escape::one_line(warning);
        // Nothing can be done about a closed standard error.
        let _ = writeln!(context.err, "warning: {warning}");
    }
    Ok(made.container_id)
}

fn new_file(path: &Path) -> Result<std::fs::File, CliError> {
    OpenOptions::new().write(true).create_new(true).open(path).map_err(|source| {
        let what = format!("--cidfile {}", path.display());
        if source.kind() == std::io::ErrorKind::AlreadyExists {
            return CliError::usage(what, "the file exists; another container may be using it");
        }
        CliError::Io { what, source }
    })
}

/// Starts what was just made. With `--rm` nothing is left of what could not be started.
async fn start_new(client: &Client, id: &str, args: &SpecArgs) -> Result<(), Failure> {
    let started = start_one(client, id, id).await;
    if started.is_err() && args.rm {
        let container = id.to_owned();
        let request =
            v1::RemoveContainerRequest { container, force: true, request_id: request_id() };
        // One that the daemon has removed already is not found.
        let _ = client.containers().remove(request).await;
    }
    started
}

async fn start_one(client: &Client, id: &str, name: &str) -> Result<(), Failure> {
    let request = v1::StartContainerRequest { container: id.to_owned(), request_id: request_id() };
    let started = client
        .try_ask(|| {
            let (mut stub, request) = (client.containers(), request.clone());
            async move { stub.start(request).await }
        })
        .await;
    match started {
        Ok(_) => Ok(()),
        Err(status) => {
            let short: String = name.chars().take(crate::docker::SHORT_ID).collect();
            let error = client.refused(&what("start", &short), &status);
            Err(match exit_code(&status) {
                Some(code) => Failure::NotStarted(error, code),
                None => Failure::Ours(error),
            })
        }
    }
}

fn exit_code(status: &Status) -> Option<u8> {
    status.metadata().get(EXIT_KEY)?.to_str().ok()?.parse().ok()
}

/// Waits until a container that removes itself is gone: who runs the next command by the same name
/// must find the name free.
async fn gone(client: &Client, id: &str) {
    let request = v1::WaitContainerRequest { container: id.to_owned() };
    // One that is gone already is not found.
    let _ = client.containers().wait(request).await;
}

/// `weft create`
pub async fn create(
    client: &Client,
    args: &CreateArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let spec = run_spec::spec(&args.spec)?;
    if run_spec::publishes_in_vain(&args.spec) {
        // Nothing can be done about a closed standard error.
        let _ = writeln!(context.err, "warning: {PUBLISHED_IN_VAIN}");
    }
    let id = make(client, &args.spec, spec, "create", context).await?;
    context.line(&id)
}

/// `weft attach CONTAINER`
pub async fn attach(
    client: &Client,
    name: &str,
    flags: AttachFlags,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let (container, spec) = attached::find(client, "attach", name).await?;
    if container.status != "running" {
        let why = format!("the container is {}, not running", container.status);
        return Err(CliError::refused(what("attach", name), why)
            .or_hint(format!("weft start -a {}", shown(name))));
    }
    let stdin = spec.open_stdin && !flags.no_stdin;
    if stdin && spec.tty {
        attached::needs_terminal("attach")?;
    }
    let keys = flags.detach_keys;
    let streams = Streams { stdin, tty: spec.tty, signals: flags.sig_proxy, keys };
    let session = attached::open(client, name, streams).await?;
    match session.carry("attach", context).await?.code() {
        0 => Ok(()),
        code => Err(CliError::Exit(code)),
    }
}

/// `weft start`
pub async fn start(
    client: &Client,
    args: &StartArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    if !args.attach && !args.interactive {
        return context
            .each(&args.containers, |name| async move {
                match start_one(client, name, name).await {
                    Ok(()) => Ok(name.to_owned()),
                    Err(Failure::Ours(error) | Failure::NotStarted(error, _)) => Err(error),
                }
            })
            .await;
    }
    let [name] = &args.containers[..] else {
        return Err(CliError::usage("start", "--attach is for one container at a time"));
    };
    let tty = attached::find(client, "start", name).await?.1.tty;
    let keys = args.detach_keys.clone();
    let streams = Streams { stdin: args.interactive, tty, signals: true, keys };
    let session = attached::open(client, name, streams).await?;
    let ended = match start_one(client, name, name).await {
        Ok(()) => session.carry("start", context).await,
        Err(Failure::Ours(error) | Failure::NotStarted(error, _)) => Err(error),
    };
    match ended?.code() {
        0 => Ok(()),
        code => Err(CliError::Exit(code)),
    }
}
