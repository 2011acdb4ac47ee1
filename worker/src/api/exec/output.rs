//! From a command's output to the caller.

use std::{io, os::fd::AsFd, time::Duration};

use tokio::{io::AsyncReadExt as _, net::unix::pipe, sync::mpsc};
use tokio_util::sync::CancellationToken;
use weft_proto::v1::exec_response::Response;

use super::{Answer, answer};
use crate::container::Pty;

/// Bytes of output in one answer at most.
const CHUNK: usize = 32 << 10;
/// What a pipe can hold at the command's end: as much as `fs.pipe-max-size` lets it ask for by
/// default. Something that goes on writing after that end is not listened to any longer.
const REST_MAX: usize = 1 << 20;
/// How long the kernel may take to hang up a terminal whose first process has ended.
const HANGUP_DEADLINE: Duration = Duration::from_millis(500);

/// What the caller takes the output for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Stdout,
    Stderr,
}

impl Kind {
    fn answer(self, data: &[u8]) -> Answer {
        answer(match self {
            Self::Stdout => Response::Stdout(data.to_vec()),
            Self::Stderr => Response::Stderr(data.to_vec()),
        })
    }
}

/// Where output comes from.
pub(super) enum Source {
    Pipe(pipe::Receiver),
    Terminal(Pty),
}

impl Source {
    /// Passes on everything that was written until `ended`, the command's end.
    pub(super) async fn pump(
        mut self,
        kind: Kind,
        ended: &CancellationToken,
        answers: &mpsc::Sender<Answer>,
    ) {
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = tokio::select! {
                biased;
                () = ended.cancelled() => break,
                read = self.read(&mut buffer) => read,
            };
            match read {
                Ok(0) | Err(_) => return,
                Ok(n) => {
                    if answers.send(kind.answer(&buffer[..n])).await.is_err() {
                        return;
                    }
                }
            }
        }
        let mut left = REST_MAX;
        while left > 0 {
            let n = self.rest(&mut buffer).await;
            if n == 0 || answers.send(kind.answer(&buffer[..n])).await.is_err() {
                return;
            }
            left = left.saturating_sub(n);
        }
    }

    /// Reads everything and keeps nothing, so that the command does not wait for a reader.
    pub(super) async fn discard(mut self) {
        let mut buffer = vec![0; CHUNK];
        while matches!(self.read(&mut buffer).await, Ok(1..)) {}
    }

    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.read(buffer).await,
            Self::Terminal(pty) => pty.read(buffer).await,
        }
    }

    /// What is there after the command's end; 0 if there is nothing. Another process may keep the
    /// pipe open for as long as it likes, so nothing is waited for.
    async fn rest(&mut self, buffer: &mut [u8]) -> usize {
        match self {
            // The kernel is asked itself, because tokio may not have heard of the last bytes yet.
            Self::Pipe(pipe) => nix::unistd::read(pipe.as_fd(), buffer).unwrap_or(0),
            Self::Terminal(pty) => {
                match tokio::time::timeout(HANGUP_DEADLINE, pty.read(buffer)).await {
                    Ok(Ok(n)) => n,
                    Ok(Err(_)) | Err(_) => 0,
                }
            }
        }
    }
}
