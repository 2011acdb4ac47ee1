//! The user's keyboard, screen and signals at the command of a container, for `run`, `start -a` and
//! `attach`.

use std::io::IsTerminal as _;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use weft_proto::v1::{
    self, AttachContainerRequest, AttachContainerResponse, attach_container_request::Request,
    attach_container_response::Response,
};

use super::{
    Context,
    escape::{Escape, Keys},
    input::{self, Event, Leaving, Signals},
    terminal::{self, Raw},
};
use crate::{
    client::Client,
    error::{CliError, what},
};

/// Messages to the daemon that may wait: a reader of the keyboard that is faster than the network
/// is held back.
const QUEUE: usize = 16;

/// What is carried between the user and the command.
#[derive(Debug, Clone)]
pub struct Streams {
    /// Standard input.
    pub stdin: bool,
    /// The command has a terminal: there is one stream of output, and keys are not signals.
    pub tty: bool,
    /// Signals that come here are sent on.
    pub signals: bool,
    /// What leaves a terminal without ending the command.
    pub keys: Keys,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With the command, which had this exit code.
    Exit(u8),
    /// The user has left; the command goes on.
    Left,
}

impl Ended {
    /// What the command line ends with.
    pub fn code(self) -> u8 {
        match self {
            Self::Exit(code) => code,
            Self::Left => 0,
        }
    }
}

/// A terminal for the command and standard input as its keyboard need a terminal here.
pub fn needs_terminal(command: &str) -> Result<(), CliError> {
    if std::io::stdin().is_terminal() {
        Ok(())
    } else {
        Err(CliError::refused(command, "the input device is not a terminal"))
    }
}

/// A container by name or ID, and what its command is given.
pub async fn find(
    client: &Client,
    command: &str,
    name: &str,
) -> Result<(v1::Container, v1::ContainerSpec), CliError> {
    let request = v1::GetContainerRequest { container: name.to_owned() };
    let answer = client.containers().get(request).await;
    let answer = answer.map_err(|status| client.refused(&what(command, name), &status))?;
    let container = answer.into_inner().container.unwrap_or_default();
    let spec = container.run.clone().and_then(|run| run.container).unwrap_or_default();
    Ok((container, spec))
}

/// A session that carries; from its opening on no output is missed.
pub struct Session<'a> {
    client: &'a Client,
    container: String,
    streams: Streams,
    to_daemon: mpsc::Sender<AttachContainerRequest>,
    answers: Streaming<AttachContainerResponse>,
}

/// Opens a session; comes back when the daemon has said that it carries.
pub async fn open<'a>(
    client: &'a Client,
    container: &str,
    streams: Streams,
) -> Result<Session<'a>, CliError> {
    let refused = |status: tonic::Status| client.refused(&what("attach", container), &status);
    let (to_daemon, requests) = mpsc::channel::<AttachContainerRequest>(QUEUE);
    let start = v1::attach_container_request::Start {
        container: container.to_owned(),
        stdin: streams.stdin,
        stdout: true,
        stderr: true,
        size: if streams.tty { terminal::size() } else { None },
    };
    // The queue is empty and its other end is held here.
    let _ = to_daemon.send(message(Request::Start(start))).await;
    let answer = client.containers().attach(ReceiverStream::new(requests)).await;
    let mut answers = answer.map_err(refused)?.into_inner();
    match answers.message().await.map_err(refused)?.and_then(|answer| answer.response) {
        Some(Response::Attached(_)) => {}
        _ => {
            let why = "the daemon did not open the session";
            return Err(CliError::refused(what("attach", container), why));
        }
    }
    let container = container.to_owned();
    Ok(Session { client, container, streams, to_daemon, answers })
}

impl Session<'_> {
    /// Carries until the command has ended, or the user leaves it.
    pub async fn carry(
        mut self,
        command: &str,
        context: &mut Context<'_>,
    ) -> Result<Ended, CliError> {
        let what = what(command, &self.container);
        let keys = self.streams.tty && self.streams.stdin && std::io::stdin().is_terminal();
        let (tell, mut left) = mpsc::channel(1);
        let escape = Escape::new(self.streams.keys.clone());
        // Without a keyboard nobody leaves by keys.
        let leaving = keys.then_some(Leaving { escape, tell });
        if self.streams.stdin {
            input::spawn_reader(self.to_daemon.clone(), leaving, |event| match event {
                Event::Bytes(bytes) => message(Request::Stdin(bytes)),
                Event::Closed => message(Request::StdinClosed(true)),
            });
        }
        let raw = if keys { Some(Raw::enter()?) } else { None };
        let mut signals = Signals::all(self.streams.tty, self.streams.signals)?;
        loop {
            tokio::select! {
                received = self.answers.message() => {
                    let refused = |status| self.client.refused(&what, &status);
                    match received.map_err(refused)?.and_then(|answer| answer.response) {
                        Some(Response::Stdout(bytes)) => {
                            context.out.write_all(&bytes)?;
                            context.out.flush()?;
                        }
                        Some(Response::Stderr(bytes)) => {
                            context.err.write_all(&bytes)?;
                            context.err.flush()?;
                        }
                        // The code of a process is one byte.
                        Some(Response::ExitCode(code)) => {
                            return Ok(Ended::Exit(u8::try_from(code).unwrap_or(u8::MAX)));
                        }
                        Some(Response::Attached(_)) => {}
                        None => return Err(CliError::refused(what, "the daemon ended the session")),
                    }
                }
                Some(()) = left.recv() => {
                    drop(raw);
                    // Nothing can be done about a closed standard error.
                    let _ = writeln!(context.err, "\nread escape sequence");
                    return Ok(Ended::Left);
                }
                event = signals.next() => {
                    let request = match event {
                        input::Signalled::Resized(size) => Request::Resize(size),
                        input::Signalled::Signal(number) => Request::Signal(number),
                    };
                    // A session that has ended is noticed at the other branch.
                    let _ = self.to_daemon.send(message(request)).await;
                }
            }
        }
    }
}

fn message(request: Request) -> AttachContainerRequest {
    AttachContainerRequest { request: Some(request) }
}
