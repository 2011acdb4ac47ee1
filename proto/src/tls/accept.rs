//! The accept loop: TCP in, finished TLS connections out, as a stream for tonic's
//! `serve_with_incoming_shutdown`.
//!
//! Each handshake runs in its own task with a deadline, so that a peer which stalls, or speaks
//! something else, holds up nobody. Each source has its own budget, so that it uses up nobody
//! else's room.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use futures::Stream;
use rustls::ServerConfig;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::ALPN_H2;
use super::backoff::AcceptBackoff;
use super::budget::{Budget, Permit, Shares, Standing};
use super::connection::{Connection, ConnectionInfo, Patience};
use super::peer::{Peer, PeerError};
use super::registry::Registry;

/// Finished connections that wait for the server to take them.
const READY_CONNECTIONS: usize = 64;

/// What strangers may use up.
#[derive(Debug, Clone, Copy)]
pub struct AcceptLimits {
    /// Handshakes at the same time; more wait in the kernel's queue.
    pub handshakes: usize,
    /// Longest handshake.
    pub handshake: Duration,
    /// Room for connections.
    pub shares: Shares,
    /// Longest wait for the first bytes of HTTP/2 after the handshake.
    pub prologue: Duration,
    /// Longest life of a connection without a certificate: a join or a renewal is one short call.
    pub anonymous: Duration,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self {
            handshakes: 512,
            handshake: Duration::from_secs(5),
            shares: Shares { per_source: 64, anonymous: 256, proven: 4096 },
            prologue: Duration::from_secs(10),
            anonymous: Duration::from_secs(60),
        }
    }
}

/// Whatever connections come from: TCP here, a simulated network in tests.
pub trait Listener: Send + 'static {
    /// One connection before TLS.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next connection. Dropping the future must lose none.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, SocketAddr)>> + Send;
}

impl Listener for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, remote) = TcpListener::accept(self).await?;
        // Small answers must not wait for the other side's delayed acknowledgement. A connection
        // that refuses is dead already, and its handshake will find that out.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%remote, %error, "cannot set TCP_NODELAY");
        }
        Ok((stream, remote))
    }
}

/// The stream of accepted connections. Dropping it closes the listener and ends the unfinished
/// handshakes.
#[derive(Debug)]
pub struct Incoming<Io> {
    ready: mpsc::Receiver<Connection<Io>>,
    registry: Registry,
    _loop: JoinSet<()>,
}

/// Serves `tls` on `listener`. Must be called within a tokio runtime.
pub fn incoming<L: Listener>(
    listener: L,
    tls: Arc<ServerConfig>,
    limits: AcceptLimits,
) -> Incoming<L::Io> {
    let (sender, ready) = mpsc::channel(READY_CONNECTIONS);
    let registry = Registry::default();
    let door =
        Door { acceptor: TlsAcceptor::from(tls), limits, registry: registry.clone(), sender };
    let mut accepting = JoinSet::new();
    accepting.spawn(accept_loop(listener, Arc::new(door)));
    Incoming { ready, registry, _loop: accepting }
}

impl<Io> Incoming<Io> {
    /// The connections that came through here and are open. Take it before the stream goes to the
    /// server.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }
}

impl<Io> Stream for Incoming<Io> {
    type Item = Result<Connection<Io>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

/// What every handshake task shares.
struct Door<Io> {
    acceptor: TlsAcceptor,
    limits: AcceptLimits,
    registry: Registry,
    sender: mpsc::Sender<Connection<Io>>,
}

/// Why a connection ended before the first request.
#[derive(Debug, Error)]
enum Turned {
    #[error("no handshake within {0:?}")]
    Slow(Duration),
    #[error("handshake failed")]
    Handshake(#[from] io::Error),
    #[error("client did not choose HTTP/2 by ALPN")]
    Protocol,
    #[error("certificate has no usable subject")]
    Subject(#[from] PeerError),
    #[error("there is no room for more connections in standing {0:?}")]
    NoRoom(Standing),
}

async fn accept_loop<L: Listener>(mut listener: L, door: Arc<Door<L::Io>>) {
    let budget = Budget::new(door.limits.shares);
    let mut backoff = AcceptBackoff::default();
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            // Finished handshakes are taken out here; they have reported for themselves.
            Some(_) = handshakes.join_next() => {}
            () = door.sender.closed() => return,
            accepted = listener.accept(), if handshakes.len() < door.limits.handshakes => {
                match accepted {
                    Ok((io, remote)) => {
                        backoff.succeeded();
                        match budget.admit(remote.ip()) {
                            Some(permit) => {
                                handshakes.spawn(door.clone().receive(io, remote, permit));
                            }
                            None => debug!(%remote, "connection refused: over the limit of its source"),
                        }
                    }
                    Err(error) => wait_after(&mut backoff, &error).await,
                }
            }
        }
    }
}

async fn wait_after(backoff: &mut AcceptBackoff, error: &io::Error) {
    if let Some(wait) = backoff.failed(error) {
        warn!(%error, ?wait, "accept failed");
        tokio::time::sleep(wait).await;
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin + Send + 'static> Door<Io> {
    async fn receive(self: Arc<Self>, io: Io, remote: SocketAddr, permit: Permit) {
        match self.admit(io, remote, permit).await {
            // The receiver is gone only when the whole server is.
            Ok(connection) => drop(self.sender.send(connection).await),
            Err(reason) => {
                debug!(%remote, error = &reason as &dyn std::error::Error, "turned away")
            }
        }
    }

    async fn admit(
        &self,
        io: Io,
        remote: SocketAddr,
        permit: Permit,
    ) -> Result<Connection<Io>, Turned> {
        let limits = &self.limits;
        let io = tokio::time::timeout(limits.handshake, self.acceptor.accept(io))
            .await
            .map_err(|_| Turned::Slow(limits.handshake))??;
        let peer = verified_peer(&io)?;
        let standing = if peer.is_some() { Standing::Proven } else { Standing::Anonymous };
        let permit = permit.settle(standing).ok_or(Turned::NoRoom(standing))?;
        let life = peer.as_ref().map_or(limits.anonymous, |peer| self.life_left(peer));
        let info = ConnectionInfo { peer, remote };
        let patience = Patience { prologue: limits.prologue, life };
        let registration = self.registry.register(info.clone());
        Ok(Connection::new(io, info, patience, registration, permit))
    }

    /// Until the certificate ends, by the clock that the handshake was judged by.
    fn life_left(&self, peer: &Peer) -> Duration {
        let now = self.acceptor.config().time_provider.current_time();
        let end = peer.not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
        now.map_or(Duration::ZERO, |now| end.saturating_sub(Duration::from_secs(now.as_secs())))
    }
}

/// The subject of the certificate that the handshake has verified, if there was one.
fn verified_peer<Io>(io: &TlsStream<Io>) -> Result<Option<Peer>, Turned> {
    let session = io.get_ref().1;
    if session.alpn_protocol() != Some(ALPN_H2) {
        return Err(Turned::Protocol);
    }
    let leaf = session.peer_certificates().and_then(|chain| chain.first());
    Ok(leaf.map(|leaf| Peer::from_der(leaf)).transpose()?)
}
