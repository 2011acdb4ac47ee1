//! Live input and output of a container's own command.

use std::{pin::Pin, sync::Arc};

use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Status, Streaming};
use weft_model::ContainerId;
use weft_proto::v1::{
    AttachContainerRequest, AttachContainerResponse,
    attach_container_request::{Request, Start},
    attach_container_response::Response,
};

use super::{exec::window, refusal};
use crate::{
    container::{
        AttachConfig, AttachInput, AttachOutput, AttachRecord, AttachSession, AttachTerminal,
        OutputStream,
    },
    local::{Attachment, Local},
};

/// Answers that wait for a caller who does not read; then the container's log keeps the rest.
const ANSWER_QUEUE: usize = 16;

pub(super) type Attached =
    Pin<Box<dyn Stream<Item = Result<AttachContainerResponse, Status>> + Send>>;

type Answers = mpsc::Sender<Result<AttachContainerResponse, Status>>;

/// The first message of a session.
pub(super) async fn first(
    requests: &mut Streaming<AttachContainerRequest>,
) -> Result<Start, Status> {
    match requests.message().await?.and_then(|message| message.request) {
        Some(Request::Start(start)) => Ok(start),
        Some(_) | None => Err(Status::invalid_argument("the first message must name a container")),
    }
}

/// What the caller wants of the container.
pub(super) fn config(start: &Start) -> AttachConfig {
    AttachConfig {
        stdin: start.stdin,
        stdout: start.stdout,
        stderr: start.stderr,
        size: start.size.as_ref().map(window),
    }
}

/// Serves one caller, from now to the end of the run or of his patience.
pub(super) fn serve(
    local: Arc<Local>,
    id: ContainerId,
    place: Attachment,
    requests: Streaming<AttachContainerRequest>,
) -> Attached {
    let (answers, queue) = mpsc::channel(ANSWER_QUEUE);
    tokio::spawn(async move {
        let work = run(&local, id, place, requests, &answers);
        tokio::select! {
            end = work => {
                // The caller may have gone.
                let _ = answers.send(end).await;
            }
            () = answers.closed() => {}
        }
    });
    Box::pin(ReceiverStream::new(queue))
}

/// The last answer.
async fn run(
    local: &Local,
    id: ContainerId,
    mut place: Attachment,
    requests: Streaming<AttachContainerRequest>,
    answers: &Answers,
) -> Result<AttachContainerResponse, Status> {
    // The caller has gone if this fails, which ends the work.
    let _ = answers.send(answer(Response::Attached(true))).await;
    let started = place.session().await;
    let started = started.ok_or_else(|| Status::aborted("the container was not started"))?;
    let (session, run) = started.map_err(refusal::status)?;
    let AttachSession { output, stdin, terminal } = session;
    let feeding = feed(local, id, stdin, terminal, requests);
    tokio::select! {
        status = feeding => return Err(status),
        told = tell(output, answers) => told?,
    }
    let end = place.ended(run).await;
    answer(Response::ExitCode(end.exit_code))
}

fn answer(response: Response) -> Result<AttachContainerResponse, Status> {
    Ok(AttachContainerResponse { response: Some(response) })
}

async fn tell(mut output: AttachOutput, answers: &Answers) -> Result<(), Status> {
    while let Some(record) = output.next().await {
        let record = record.map_err(|error| Status::internal(error.to_string()))?;
        let said = match record {
            AttachRecord::Data { stream: OutputStream::Stdout, data } => {
                Response::Stdout(data.into())
            }
            AttachRecord::Data { stream: OutputStream::Stderr, data } => {
                Response::Stderr(data.into())
            }
            AttachRecord::Lost(bytes) => {
                Response::Stderr(format!("weft: {bytes} bytes of output were lost\n").into_bytes())
            }
        };
        if answers.send(answer(said)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Does what the caller says until he makes a mistake; one who says no more still listens.
async fn feed(
    local: &Local,
    id: ContainerId,
    mut stdin: Option<AttachInput>,
    terminal: Option<AttachTerminal>,
    mut requests: Streaming<AttachContainerRequest>,
) -> Status {
    loop {
        let request = match requests.message().await {
            Ok(Some(message)) => message.request,
            Ok(None) => {
                drop(stdin);
                return std::future::pending().await;
            }
            Err(status) => return status,
        };
        match request {
            Some(Request::Stdin(data)) => {
                if let Some(input) = &mut stdin
                    && input.write_all(&data).await.is_err()
                {
                    // The command has closed its input; what still comes is for nobody.
                    stdin = None;
                }
            }
            Some(Request::StdinClosed(_)) => stdin = None,
            Some(Request::Resize(size)) => {
                if let Some(terminal) = &terminal {
                    // One whose holder is gone has no window.
                    let _ = terminal.resize(window(&size)).await;
                }
            }
            Some(Request::Signal(number)) => match super::containers::signal(number) {
                Ok(signal) => {
                    // One that has ended takes none.
                    let _ = local.kill(id, signal).await;
                }
                Err(status) => return status,
            },
            Some(Request::Start(_)) | None => {
                return Status::invalid_argument("a session has one start, and no empty messages");
            }
        }
    }
}
