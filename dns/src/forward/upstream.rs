//! One question to one server: UDP first, TCP when the answer was cut or its case is wrong.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use rand::{Rng, RngExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::relay::Relay;
use crate::answer::Foreign;
use crate::limits::UPSTREAM_WRONG_REPLIES;
use crate::wire::{HEADER, Rcode, flag, reply, u16_at};

/// Receive buffer: more than we offer, so that a server that sends too much is noticed.
const REPLY_BUFFER: usize = 4096;
/// Bytes of the length in front of a message over TCP.
const LENGTH: usize = 2;

/// Why a server's answer was not used; the next one is asked.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("no connection with {server}")]
    Io { server: SocketAddr, source: io::Error },
    #[error("{server} answered with code {rcode}")]
    Failed { server: SocketAddr, rcode: u16 },
    #[error("{server} sent a malformed answer of {bytes} bytes")]
    Malformed { server: SocketAddr, bytes: usize },
    #[error("{server} sent {limit} answers to other questions (UPSTREAM_WRONG_REPLIES)")]
    WrongReplies { server: SocketAddr, limit: usize },
}

/// A query as it is sent: fresh id, fresh case.
struct Sent {
    server: SocketAddr,
    message: Vec<u8>,
    /// Bytes of the question.
    question: usize,
}

/// How well a message answers what was sent.
enum Match {
    /// Same id, same question to the letter.
    Exact,
    /// Same but for the case: a server that does not keep it, or a guess. TCP cannot be guessed.
    OtherCase,
    Not,
}

/// Asks one server. Only the caller's time limit ends a wait for a silent one.
pub(super) async fn exchange(
    server: SocketAddr,
    foreign: &Foreign,
) -> Result<Relay, UpstreamError> {
    let sent = Sent::new(server, foreign, &mut rand::rng());
    let io = |source| UpstreamError::Io { server, source };
    let message = match udp(&sent).await? {
        Some(message) => message,
        None => tcp(&sent).await.map_err(io)?,
    };
    let malformed = UpstreamError::Malformed { server, bytes: message.len() };
    if matches!(sent.compare(&message), Match::Not) {
        return Err(malformed);
    }
    let rcode = u16_at(&message, 2).unwrap_or_default() & flag::RCODE;
    let failures = [Rcode::ServFail, Rcode::NotImp, Rcode::Refused];
    if failures.iter().any(|&failure| failure as u16 == rcode) {
        return Err(UpstreamError::Failed { server, rcode });
    }
    Relay::new(&message, sent.question).ok_or(malformed)
}

/// The answer over UDP; none if TCP has to say it. The socket is connected, so the kernel passes
/// only what comes from the server, and its port is one the kernel picks at random.
async fn udp(sent: &Sent) -> Result<Option<Vec<u8>>, UpstreamError> {
    let server = sent.server;
    let io = |source| UpstreamError::Io { server, source };
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await.map_err(io)?;
    socket.connect(server).await.map_err(io)?;
    socket.send(&sent.message).await.map_err(io)?;
    let mut buffer = vec![0; REPLY_BUFFER];
    for _ in 0..UPSTREAM_WRONG_REPLIES {
        let length = socket.recv(&mut buffer).await.map_err(io)?;
        let message = &buffer[..length];
        let cut = u16_at(message, 2).unwrap_or_default() & flag::TC != 0;
        match sent.compare(message) {
            Match::Exact if !cut => return Ok(Some(message.to_vec())),
            Match::Exact | Match::OtherCase => return Ok(None),
            Match::Not => {}
        }
    }
    Err(UpstreamError::WrongReplies { server, limit: UPSTREAM_WRONG_REPLIES })
}

async fn tcp(sent: &Sent) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(sent.server).await?;
    // The question alone is at most 259 bytes, so the length fits.
    let mut message = (sent.message.len() as u16).to_be_bytes().to_vec();
    message.extend_from_slice(&sent.message);
    stream.write_all(&message).await?;
    let mut length = [0; LENGTH];
    stream.read_exact(&mut length).await?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

impl Sent {
    fn new(server: SocketAddr, foreign: &Foreign, rng: &mut impl Rng) -> Self {
        let flags = foreign.flags & (flag::RD | flag::AD | flag::CD);
        let mut message = Vec::with_capacity(HEADER + foreign.question.len() + reply::OPT);
        reply::header(&mut message, rng.random(), flags, 1);
        message.extend_from_slice(&foreign.question);
        // Random case makes an answer harder to guess (draft-vixie-dnsext-dns0x20). The last four
        // bytes are type and class, and length bytes are no letters.
        let name = HEADER..message.len() - 4;
        for byte in message[name].iter_mut().filter(|byte| byte.is_ascii_alphabetic()) {
            *byte ^= u8::from(rng.random::<bool>()) << 5;
        }
        if let Some(edns) = foreign.edns {
            reply::push_opt(&mut message, Rcode::NoError, edns.dnssec);
            message[HEADER - 1] = 1;
        }
        Self { server, message, question: foreign.question.len() }
    }

    fn compare(&self, reply: &[u8]) -> Match {
        let end = HEADER + self.question;
        let Some(echoed) = reply.get(HEADER..end) else { return Match::Not };
        let asked = &self.message[HEADER..end];
        let flags = u16_at(reply, 2).unwrap_or_default();
        let head = reply[..2] == self.message[..2]
            && flags & (flag::QR | flag::OPCODE) == flag::QR
            && reply[4..6] == self.message[4..6];
        match (head, echoed == asked, echoed.eq_ignore_ascii_case(asked)) {
            (true, true, _) => Match::Exact,
            (true, false, true) => Match::OtherCase,
            (false, _, _) | (true, false, false) => Match::Not,
        }
    }
}
