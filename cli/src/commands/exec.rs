//! `weft exec`: a command in a container, with the user's keyboard, screen and signals.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use weft_proto::v1::{
    ExecRequest, ExecResponse,
    exec_request::{Request, Start},
    exec_response::Response,
};

use super::{
    Context,
    input::{self, Event, Signalled, Signals},
    terminal::{self, Raw},
};
use crate::{
    args::container::ExecArgs,
    client::Client,
    error::{CliError, EXIT_DAEMON, what},
};

/// Messages to the daemon that may wait: a reader of the keyboard that is faster than the network
/// is held back.
const QUEUE: usize = 16;

/// Runs the command and takes over its exit code. Every failure of our own is 125.
pub async fn exec(
    client: &Client,
    args: ExecArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let result = run(client, &args, context).await;
    match result {
        Ok(0) => Ok(()),
        Ok(code) => Err(CliError::Exit(code)),
        Err(error @ CliError::Exit(_)) => Err(error),
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if error.is_closed_output() => Err(error),
        Err(error) => {
            error.report(context.err);
            Err(CliError::Exit(EXIT_DAEMON))
        }
    }
}

async fn run(client: &Client, args: &ExecArgs, context: &mut Context<'_>) -> Result<u8, CliError> {
    use std::io::IsTerminal;
    if args.tty && args.interactive && !args.detach && !std::io::stdin().is_terminal() {
        return Err(CliError::refused("exec", "the input device is not a terminal"));
    }
    let refused = |status: tonic::Status| client.refused(&what("exec", &args.container), &status);
    let (to_daemon, requests) = mpsc::channel::<ExecRequest>(QUEUE);
    let size = if args.tty { terminal::size() } else { None };
    let start = Start {
        container: args.container.clone(),
        args: args.command.clone(),
        env: args.env.clone(),
        tty: args.tty,
        stdin: args.interactive && !args.detach,
        workdir: args.workdir.clone().unwrap_or_default(),
        user: args.user.clone().unwrap_or_default(),
        size,
        detach: args.detach,
    };
    // The queue is empty and its other end is held here.
    let _ = to_daemon.send(message(Request::Start(start))).await;
    let answer = client.containers().exec(ReceiverStream::new(requests)).await;
    let mut stream = answer.map_err(refused)?.into_inner();
    if args.interactive && !args.detach {
        input::spawn_reader(to_daemon.clone(), None, |event| match event {
            Event::Bytes(bytes) => message(Request::Stdin(bytes)),
            Event::Closed => message(Request::StdinClosed(true)),
        });
    }
    let raw = if args.tty && args.interactive && !args.detach { Some(Raw::enter()?) } else { None };
    let mut signals = Signals::ending(args.tty)?;
    loop {
        tokio::select! {
            received = stream.message() => match received.map_err(refused)? {
                Some(answer) => if let Some(code) = show(answer, args.detach, context)? {
                    drop(raw);
                    return Ok(code);
                },
                None => {
                    drop(raw);
                    return Err(CliError::refused(
                        what("exec", &args.container), "the daemon ended the session"));
                }
            },
            event = signals.next() => {
                let request = match event {
                    Signalled::Resized(size) => Request::Resize(size),
                    Signalled::Signal(number) => Request::Signal(number),
                };
                // A session that has ended is noticed at the other branch.
                let _ = to_daemon.send(message(request)).await;
            }
        }
    }
}

fn message(request: Request) -> ExecRequest {
    ExecRequest { request: Some(request) }
}

/// Prints one message; gives the exit code if it was the last.
fn show(
    answer: ExecResponse,
    detach: bool,
    context: &mut Context<'_>,
) -> Result<Option<u8>, CliError> {
    match answer.response {
        Some(Response::Stdout(bytes)) => {
            context.out.write_all(&bytes)?;
            context.out.flush()?;
        }
        Some(Response::Stderr(bytes)) => {
            context.err.write_all(&bytes)?;
            context.err.flush()?;
        }
        // The code of a process is one byte.
        Some(Response::ExitCode(code)) => return Ok(Some(u8::try_from(code).unwrap_or(u8::MAX))),
        Some(Response::Started(_)) if detach => return Ok(Some(0)),
        Some(Response::Started(_)) | None => {}
    }
    Ok(None)
}
