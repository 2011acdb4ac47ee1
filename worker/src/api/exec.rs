//! A command in a running container, over one stream in each direction.
//!
//! The stream of answers owns the session: when the caller goes away, it is dropped, and the command
//! dies with it. Both directions hold each other back: a caller that does not read stops the reading
//! of the command's output, and a command that does not read stops the reading of the caller's input.

mod input;
mod output;

use std::{path::PathBuf, pin::Pin, time::Duration};

use futures::{Stream, StreamExt as _};
use tokio::{
    net::unix::pipe,
    sync::{OwnedSemaphorePermit, mpsc},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use weft_proto::v1::{
    ExecRequest, ExecResponse,
    exec_request::{self, Start},
    exec_response::Response,
};

use self::{
    input::{Input, Sink},
    output::Source,
};
use super::refusal;
use crate::container::{
    EXIT_NOT_STARTED, Error, ExecConfig, ExecIo, ExecSession, Terminal, WindowSize,
};

/// Answers on their way to one caller.
const ANSWER_QUEUE: usize = 8;
/// Signals on their way to one command.
const SIGNAL_QUEUE: usize = 8;
/// How long a caller may take to say what is to be run.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// The size of a terminal whose size nobody told (the VT100's).
const DEFAULT_SIZE: WindowSize = WindowSize { rows: 24, columns: 80 };

/// What the caller gets.
pub(super) type Answers = Pin<Box<dyn Stream<Item = Answer> + Send>>;
type Answer = Result<ExecResponse, Status>;

fn answer(response: Response) -> Answer {
    Ok(ExecResponse { response: Some(response) })
}

/// The first message of a session.
pub(super) async fn first(requests: &mut Streaming<ExecRequest>) -> Result<Start, Status> {
    let message =
        tokio::time::timeout(START_DEADLINE, requests.message()).await.map_err(|_| {
            let seconds = START_DEADLINE.as_secs();
            Status::deadline_exceeded(format!("nothing was started within {seconds} s"))
        })??;
    match message.and_then(|message| message.request) {
        Some(exec_request::Request::Start(start)) => Ok(start),
        Some(_) | None => Err(Status::invalid_argument("the first message must start a command")),
    }
}

/// What the runtime is to run.
pub(super) fn config(start: &Start) -> Result<ExecConfig, Status> {
    let refuse = |why: String| Err(Status::invalid_argument(why));
    if start.args.first().is_none_or(String::is_empty) {
        return refuse("no command was given".to_owned());
    }
    if !start.workdir.is_empty() && !start.workdir.starts_with('/') {
        return refuse(format!("working directory {:?} is not absolute", start.workdir));
    }
    let mut words = start.args.iter().chain(&start.env).chain([&start.workdir, &start.user]);
    if let Some(word) = words.find(|word| word.contains('\0')) {
        return refuse(format!("{word:?} contains a NUL"));
    }
    if let Some(entry) = start.env.iter().find(|entry| entry.find('=').is_none_or(|at| at == 0)) {
        return refuse(format!("environment entry {entry:?} is not KEY=VALUE"));
    }
    let terminal = match start.tty {
        true => Terminal::Yes(start.size.as_ref().map_or(DEFAULT_SIZE, window)),
        false => Terminal::No,
    };
    let cwd = Some(&start.workdir).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    Ok(ExecConfig {
        args: start.args.clone(),
        env: start.env.clone(),
        cwd,
        terminal,
        user: start.user.clone(),
        privileged: false,
    })
}

pub(super) fn window(size: &exec_request::WindowSize) -> WindowSize {
    // A window that is larger than the kernel can say is as large as it can say.
    let cut = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    WindowSize { rows: cut(size.rows), columns: cut(size.columns) }
}

/// A command that could not be run ends at once, as a shell would say it; all else is our failure.
pub(super) fn not_started(error: Error) -> Result<Answers, Status> {
    match error.exit_code() {
        EXIT_NOT_STARTED => Err(refusal::status(error)),
        code => {
            let why = format!("{error}\n").into_bytes();
            let last = [answer(Response::Stderr(why)), answer(Response::ExitCode(code))];
            Ok(futures::stream::iter(last).boxed())
        }
    }
}

/// All that the caller of a detached command gets.
pub(super) fn only_started() -> Answers {
    futures::stream::iter([answer(Response::Started(true))]).boxed()
}

/// The life of a command that nobody listens to; its output is read and thrown away.
pub(super) fn detached(
    mut session: ExecSession,
    permit: OwnedSemaphorePermit,
) -> Result<impl Future<Output = ()> + Send + use<>, Status> {
    let (sources, sink) = Sides::of(&mut session)?.apart();
    drop(sink);
    Ok(async move {
        let _permit = permit;
        let mut reading = JoinSet::new();
        for (source, _) in sources {
            reading.spawn(source.discard());
        }
        if let Err(error) = session.wait().await {
            tracing::warn!(%error, "a detached command was lost");
        }
    })
}

/// A session whose caller listens.
pub(super) fn attached(
    mut session: ExecSession,
    requests: Streaming<ExecRequest>,
    start: &Start,
    permit: OwnedSemaphorePermit,
) -> Result<Answers, Status> {
    let sides = Sides::of(&mut session)?;
    let pty = sides.pty();
    let (sources, sink) = sides.apart();
    let (answers, receiver) = mpsc::channel(ANSWER_QUEUE);
    let (signals, wanted) = mpsc::channel(SIGNAL_QUEUE);
    let sink = if start.stdin { sink } else { Sink::None };
    let input = Input { requests, sink, pty, signals };
    let mut running = JoinSet::new();
    running.spawn(async move {
        let _permit = permit;
        drive(session, sources, input, wanted, answers).await;
    });
    let answers = ReceiverStream::new(receiver);
    // The set lives as long as the stream, and no longer.
    Ok(answers
        .map(move |answer| {
            let _session = &running;
            answer
        })
        .boxed())
}

/// From the start to the exit code, or to the caller's mistake.
async fn drive(
    mut session: ExecSession,
    sources: Vec<(Source, output::Kind)>,
    input: Input,
    mut signals: mpsc::Receiver<i32>,
    answers: mpsc::Sender<Answer>,
) {
    if answers.send(answer(Response::Started(true))).await.is_err() {
        return;
    }
    let ended = CancellationToken::new();
    let output = futures::future::join_all(
        sources.into_iter().map(|(source, kind)| source.pump(kind, &ended, &answers)),
    );
    let life = async {
        let code = loop {
            tokio::select! {
                code = session.wait() => break code,
                Some(signal) = signals.recv() => session.kill(signal).await,
            }
        };
        ended.cancel();
        code
    };
    let whole = async { tokio::join!(life, output).0 };
    let last = tokio::select! {
        code = whole => match code {
            Ok(code) => answer(Response::ExitCode(code)),
            Err(error) => Err(refusal::status(error)),
        },
        refused = input.feed() => Err(refused),
    };
    // After a mistake of the caller's the command dies before the caller is told, who may be slow.
    drop(session);
    // The caller may be gone.
    let _ = answers.send(last).await;
}

/// A session's input and output, taken out of it.
struct Sides(ExecIo);

impl Sides {
    /// Leaves pipes that lead nowhere in their place: the session itself is needed for the end.
    fn of(session: &mut ExecSession) -> Result<Self, Status> {
        let none = || -> std::io::Result<ExecIo> {
            let (stdin, stdout) = pipe::pipe()?;
            let (_, stderr) = pipe::pipe()?;
            Ok(ExecIo::Pipes { stdin, stdout, stderr })
        };
        let none =
            none().map_err(|error| Status::internal(format!("cannot make a pipe: {error}")))?;
        Ok(Self(std::mem::replace(&mut session.io, none)))
    }

    fn pty(&self) -> Option<crate::container::Pty> {
        match &self.0 {
            ExecIo::Terminal(pty) => Some(pty.clone()),
            ExecIo::Pipes { .. } => None,
        }
    }

    fn apart(self) -> (Vec<(Source, output::Kind)>, Sink) {
        match self.0 {
            ExecIo::Terminal(pty) => {
                (vec![(Source::Terminal(pty.clone()), output::Kind::Stdout)], Sink::Terminal(pty))
            }
            ExecIo::Pipes { stdin, stdout, stderr } => {
                let sources = vec![
                    (Source::Pipe(stdout), output::Kind::Stdout),
                    (Source::Pipe(stderr), output::Kind::Stderr),
                ];
                (sources, Sink::Pipe(stdin))
            }
        }
    }
}

#[cfg(test)]
mod tests;
