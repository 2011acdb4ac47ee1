//! From the caller to the command: input, window sizes, signals.

use std::{future::pending, io};

use tokio::{io::AsyncWriteExt as _, net::unix::pipe, sync::mpsc};
use tonic::{Status, Streaming};
use weft_proto::v1::{ExecRequest, exec_request::Request};

use super::window;
use crate::{api::containers::signal, container::Pty};

/// Pieces of input that wait for a command that does not read; only when there are more, signals and
/// window sizes wait behind them.
const INPUT_QUEUE: usize = 16;
/// What ends the input at a terminal (VEOF, Ctrl-D).
const END_OF_INPUT: &[u8] = &[4];

/// Where input goes.
pub(super) enum Sink {
    Pipe(pipe::Sender),
    Terminal(Pty),
    /// The caller has none.
    None,
}

impl Sink {
    async fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.write_all(data).await,
            Self::Terminal(pty) => pty.write_all(data).await,
            Self::None => Ok(()),
        }
    }

    /// Writes all that comes, and ends the command's input at its end.
    async fn take(mut self, mut chunks: mpsc::Receiver<Vec<u8>>) {
        while let Some(chunk) = chunks.recv().await {
            if self.write(&chunk).await.is_err() {
                // The command has closed its input; what still comes is for nobody.
                return;
            }
        }
        if let Self::Terminal(pty) = self {
            // A terminal that is gone needs no end.
            let _ = pty.write_all(END_OF_INPUT).await;
        }
    }
}

/// One caller's side of a session.
pub(super) struct Input {
    pub requests: Streaming<ExecRequest>,
    pub sink: Sink,
    pub pty: Option<Pty>,
    pub signals: mpsc::Sender<i32>,
}

impl Input {
    /// Does what the caller says until it makes a mistake or goes away, which is the session's end.
    pub(super) async fn feed(self) -> Status {
        let Self { requests, sink, pty, signals } = self;
        let open = !matches!(sink, Sink::None);
        let (chunks, taken) = mpsc::channel(INPUT_QUEUE);
        let reader = Reader { pty, signals, chunks: open.then_some(chunks) };
        let writer = async {
            sink.take(taken).await;
            pending::<Status>().await
        };
        tokio::select! {
            status = reader.read(requests) => status,
            status = writer => status,
        }
    }
}

struct Reader {
    pty: Option<Pty>,
    signals: mpsc::Sender<i32>,
    /// Nothing if there is no input or it has ended.
    chunks: Option<mpsc::Sender<Vec<u8>>>,
}

impl Reader {
    async fn read(mut self, mut requests: Streaming<ExecRequest>) -> Status {
        loop {
            match requests.message().await {
                Ok(Some(ExecRequest { request: Some(request) })) => {
                    if let Err(status) = self.take(request).await {
                        return status;
                    }
                }
                // Of a version that knows more than this one.
                Ok(Some(ExecRequest { request: None })) => {}
                Ok(None) => {
                    // The caller has said all and still listens.
                    self.chunks = None;
                    return pending().await;
                }
                Err(status) => return status,
            }
        }
    }

    async fn take(&mut self, request: Request) -> Result<(), Status> {
        match request {
            Request::Start(_) => return Err(Status::invalid_argument("the command runs already")),
            Request::Stdin(data) => {
                let Some(chunks) = &self.chunks else {
                    return Err(Status::invalid_argument("the command has no standard input"));
                };
                // A command that has closed its input is no reason to end it.
                let _ = chunks.send(data).await;
            }
            Request::StdinClosed(true) => self.chunks = None,
            Request::StdinClosed(false) => {}
            Request::Resize(size) => {
                if let Some(pty) = &self.pty {
                    pty.resize(window(&size))
                        .map_err(|error| Status::internal(format!("window size: {error}")))?;
                }
            }
            // One that has ended takes none.
            Request::Signal(number) => drop(self.signals.send(signal(number)?).await),
        }
        Ok(())
    }
}
