//! An accepted connection after its handshake, as tonic serves it, and what requests know about it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::budget::Permit;
use super::peer::Peer;
use super::registry::Registration;

/// Bytes by which a client has proven to speak HTTP/2: the preface and the header of its SETTINGS
/// frame (RFC 9113 sections 3.4 and 4.1). From then on HTTP/2 keep-alive watches it.
const PROLOGUE_BYTES: usize = 24 + 9;

/// Who made a connection. Each request carries it as an extension, see [`peer_of`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// The holder of the verified certificate; `None` if the client showed none.
    pub peer: Option<Peer>,
    /// Where the connection came from.
    pub remote: SocketAddr,
}

/// The verified sender of a request, if it came over TLS with a certificate.
pub fn peer_of<T>(request: &tonic::Request<T>) -> Option<&Peer> {
    request.extensions().get::<ConnectionInfo>()?.peer.as_ref()
}

/// A connection that ends itself when it is cut, when it does not begin to speak HTTP/2, and when
/// its time is over: that of its certificate, or a short one without.
#[derive(Debug)]
pub struct Connection<Io> {
    io: TlsStream<Io>,
    info: ConnectionInfo,
    registration: Registration,
    prologue: Option<Prologue>,
    end: Pin<Box<Sleep>>,
    _permit: Permit,
}

/// The wait for the first bytes of HTTP/2.
#[derive(Debug)]
struct Prologue {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

/// How long a connection may last without doing its part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From the handshake to the first bytes of HTTP/2.
    pub(super) prologue: Duration,
    /// From the handshake to the end: the rest of the certificate's life, or a short while
    /// without one. Whoever has renewed its certificate dials again.
    pub(super) life: Duration,
}

impl<Io> Connection<Io> {
    pub(super) fn new(
        io: TlsStream<Io>,
        info: ConnectionInfo,
        patience: Patience,
        registration: Registration,
        permit: Permit,
    ) -> Self {
        let after = |wait| Box::pin(tokio::time::sleep(wait));
        let prologue =
            Some(Prologue { missing: PROLOGUE_BYTES, deadline: after(patience.prologue) });
        let end = after(patience.life);
        Self { io, info, registration, prologue, end, _permit: permit }
    }

    /// Who made this connection.
    pub fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// Ready with the reason when the connection must end. The server always reads, so reading is
    /// where it ends.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.registration.poll_cut(cx).is_ready() {
            return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
        }
        let late = self.prologue.as_mut().map(|prologue| &mut prologue.deadline);
        for timer in late.into_iter().chain([&mut self.end]) {
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
        }
        Poll::Pending
    }

    fn saw(&mut self, bytes: usize) {
        if let Some(prologue) = &mut self.prologue {
            prologue.missing = prologue.missing.saturating_sub(bytes);
            if prologue.missing == 0 {
                self.prologue = None;
            }
        }
    }
}

impl<Io> Connected for Connection<Io> {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.info.clone()
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Poll::Ready(error) = this.poll_over(cx) {
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.io).poll_read(cx, buffer);
        this.saw(buffer.filled().len() - before);
        result
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.registration.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut this.io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
