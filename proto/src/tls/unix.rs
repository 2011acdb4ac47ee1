//! The same for unix sockets, without TLS: the kernel says who is at the other end.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;
use tracing::debug;

use super::authority::AuthorityFilter;
use super::backoff::AcceptBackoff;
use super::connect::{CONNECT_TIMEOUT, patient};

/// Connections to one socket at the same time; more wait in the kernel's queue.
pub const MAX_UNIX_CONNECTIONS: usize = 256;
/// Connections that wait for the server to take them.
const READY_CONNECTIONS: usize = 16;
/// Owner and group may call; the group decides who administrates the node.
pub const SOCKET_MODE: u32 = 0o660;

/// Who called over a unix socket, as the kernel saw it when the connection was made (`SO_PEERCRED`,
/// unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixConnected {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process, `None` if it is outside of our PID namespace.
    pub pid: Option<i32>,
}

/// Why a socket could not be made.
#[derive(Debug, Error)]
pub enum BindError {
    /// A living process serves this socket.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes the socket `path`, replacing one that a dead process has left.
///
/// It gets its name after its mode, by a rename, so that there is no moment in which others than
/// owner and group could open it.
pub fn bind_unix(path: &Path) -> Result<UnixListener, BindError> {
    let failed = |action| move |source| BindError::Io { action, path: path.to_owned(), source };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(BindError::InUse { path: path.to_owned() });
    }
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    let next = PathBuf::from(next);
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("clear the way for")(error));
        }
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&next).map_err(failed("bind"))?;
    fs::set_permissions(&next, fs::Permissions::from_mode(SOCKET_MODE))
        .and_then(|()| fs::rename(&next, path))
        .map_err(failed("name"))?;
    Ok(listener)
}

/// A connection over a unix socket, as tonic serves it.
#[derive(Debug)]
pub struct UnixConnection {
    io: UnixStream,
    authority: AuthorityFilter,
    caller: UnixConnected,
    _permit: OwnedSemaphorePermit,
}

/// The stream of accepted connections. Dropping it closes the listener.
#[derive(Debug)]
pub struct UnixIncoming {
    ready: mpsc::Receiver<UnixConnection>,
    _loop: JoinSet<()>,
}

/// Serves `listener`. Must be called within a tokio runtime.
pub fn unix_incoming(listener: UnixListener) -> UnixIncoming {
    let (sender, ready) = mpsc::channel(READY_CONNECTIONS);
    let mut accepting = JoinSet::new();
    accepting.spawn(accept_loop(listener, sender));
    UnixIncoming { ready, _loop: accepting }
}

/// Calls the server behind the socket `path`, dialling when first used.
pub fn unix_channel(path: &Path) -> Channel {
    let path = path.to_owned();
    // The authority of the URI is never looked at.
    let endpoint = patient(Endpoint::from_static("http://localhost"));
    endpoint.connect_timeout(CONNECT_TIMEOUT).connect_with_connector_lazy(service_fn(
        move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        },
    ))
}

/// The caller of a request, if it came over a unix socket.
pub fn caller_of<T>(request: &tonic::Request<T>) -> Option<&UnixConnected> {
    request.extensions().get::<UnixConnected>()
}

async fn accept_loop(listener: UnixListener, sender: mpsc::Sender<UnixConnection>) {
    let room = std::sync::Arc::new(Semaphore::new(MAX_UNIX_CONNECTIONS));
    let mut backoff = AcceptBackoff::default();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match accept(&listener, permit).await {
            Ok(connection) => {
                backoff.succeeded();
                if sender.send(connection).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                debug!(%error, "unix accept failed");
                if let Some(wait) = backoff.failed(&error) {
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
}

async fn accept(
    listener: &UnixListener,
    permit: OwnedSemaphorePermit,
) -> io::Result<UnixConnection> {
    let (io, _) = listener.accept().await?;
    let caller = io.peer_cred()?;
    let caller = UnixConnected { uid: caller.uid(), gid: caller.gid(), pid: caller.pid() };
    Ok(UnixConnection { io, authority: AuthorityFilter::default(), caller, _permit: permit })
}

impl Stream for UnixIncoming {
    type Item = Result<UnixConnection, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

impl Connected for UnixConnection {
    type ConnectInfo = UnixConnected;

    fn connect_info(&self) -> UnixConnected {
        self.caller
    }
}

impl AsyncRead for UnixConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let connection = self.get_mut();
        let before = buffer.filled().len();
        let result = Pin::new(&mut connection.io).poll_read(cx, buffer);
        connection.authority.pass(&mut buffer.filled_mut()[before..]);
        result
    }
}

impl AsyncWrite for UnixConnection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
