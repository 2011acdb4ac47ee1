//! The TCP side of one sandbox (RFC 7766): several queries on a connection, answered as they can
//! be. A client that is slow to speak or to listen is cut off, so none can hold anything for long.

use std::io;
use std::sync::Arc;

use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::sandbox::{Sandbox, Step};
use crate::answer::Transport;
use crate::limits::{ACCEPT_PAUSE, TCP_CONNECTIONS, TCP_OUTPUT, TCP_STALL};

/// Bytes of the length in front of each message.
const LENGTH: usize = 2;
/// Bytes read at a time.
const READ: usize = 4096;

/// Serves until dropped.
pub(super) async fn serve(sandbox: Arc<Sandbox>, listener: TcpListener) {
    sandbox.known().await;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < TCP_CONNECTIONS => {
                    connections.spawn(Connection::new(sandbox.clone(), stream).run());
                }
                Ok(_) => sandbox.counters.closed(),
                Err(error) => {
                    tracing::debug!(%error, "accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

struct Connection {
    sandbox: Arc<Sandbox>,
    stream: TcpStream,
    rng: StdRng,
    /// Bytes received and not yet answered.
    input: Vec<u8>,
    /// Replies not yet sent, each with its length in front.
    output: Vec<u8>,
    /// Forwarded queries, bounded by the sandbox's quota.
    flights: JoinSet<Vec<u8>>,
}

/// Why a connection ends.
enum End {
    /// The client went away, or said nothing more.
    Client,
    /// The client met a limit.
    Limit,
}

impl Connection {
    fn new(sandbox: Arc<Sandbox>, stream: TcpStream) -> Self {
        Self {
            sandbox,
            stream,
            rng: rand::make_rng(),
            input: Vec::new(),
            output: Vec::new(),
            flights: JoinSet::new(),
        }
    }

    async fn run(mut self) {
        let end = self.talk().await;
        if matches!(end, End::Limit) {
            self.sandbox.counters.closed();
            return;
        }
        // A client that closes its half early still gets what it asked for.
        while let Some(done) = self.flights.join_next().await {
            self.queue_flight(done);
            if self.flush().await.is_err() {
                return;
            }
        }
    }

    async fn talk(&mut self) -> End {
        let mut buffer = vec![0; READ];
        // The time limit is for one whole message, so that a byte now and then does not extend it.
        let mut deadline = Instant::now() + TCP_STALL;
        loop {
            tokio::select! {
                read = timeout_at(deadline, self.stream.read(&mut buffer)) => match read {
                    Ok(Ok(length)) if length > 0 => self.input.extend_from_slice(&buffer[..length]),
                    Ok(_) => return End::Client,
                    Err(_) if self.input.is_empty() => return End::Client,
                    Err(_) => return End::Limit,
                },
                Some(done) = self.flights.join_next(), if !self.flights.is_empty() => {
                    self.queue_flight(done);
                }
            }
            match self.messages().await {
                Ok(0) => {}
                Ok(_) => deadline = Instant::now() + TCP_STALL,
                Err(_) => return End::Limit,
            }
            if self.flush().await.is_err() {
                return End::Limit;
            }
        }
    }

    /// Answers all whole messages received; how many there were. What is not even a query ends
    /// the connection: nothing sensible follows it.
    async fn messages(&mut self) -> io::Result<usize> {
        let input = std::mem::take(&mut self.input);
        let (mut rest, mut count) = (&input[..], 0);
        while let Some((message, tail)) = split(rest) {
            if !self.message(message) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if self.output.len() > TCP_OUTPUT {
                self.flush().await?;
            }
            (rest, count) = (tail, count + 1);
        }
        self.input = rest.to_vec();
        Ok(count)
    }

    /// Whether it was a message at all.
    fn message(&mut self, message: &[u8]) -> bool {
        let mut out = Vec::new();
        match self.sandbox.step(message, Transport::Tcp, &mut self.rng, &mut out) {
            Step::Reply => self.queue(&out),
            Step::Silence => return false,
            Step::Later(reply) => {
                self.flights.spawn(reply);
            }
        }
        true
    }

    /// A flight that panicked has no reply; the client asks again.
    fn queue_flight(&mut self, done: Result<Vec<u8>, tokio::task::JoinError>) {
        if let Ok(reply) = done {
            self.queue(&reply);
        }
    }

    fn queue(&mut self, reply: &[u8]) {
        // Replies are cut to `TCP_MAX`, which is what the length can say.
        self.output.extend_from_slice(&(reply.len() as u16).to_be_bytes());
        self.output.extend_from_slice(reply);
        self.sandbox.counters.replied(reply.len());
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            timeout(TCP_STALL, self.stream.write_all(&self.output)).await??;
            self.output.clear();
        }
        Ok(())
    }
}

/// The first message and what follows it, if all of it is there.
fn split(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(u16::from_be_bytes(input.get(..LENGTH)?.try_into().ok()?));
    let end = LENGTH + length;
    Some((input.get(LENGTH..end)?, &input[end..]))
}
