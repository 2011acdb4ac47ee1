//! Live streams of a container's main process: the daemon's side.
//!
//! Each session is one socket pair (SOCK_SEQPACKET) whose other end the shim has; `shim/src/attach.rs`
//! says what goes over it. What a session has not taken yet lies in the log's files, so that it
//! costs no memory and never holds the container up.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv, send, shutdown, socketpair,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::layout::Layout;
use super::shim::Shim;
use super::{ContainerId, Error, OutputStream, WindowSize};

/// Bytes before the data of a record, as in the log.
const HEADER: usize = 16;
/// The longest packet: one read of the shim's, with room to spare.
const MAX_PACKET: usize = 64 << 10;
/// Bytes of input in one packet, which the shim holds for a process that does not read.
const INPUT_CHUNK: usize = 4 << 10;
/// What stands in the place of the stream's number in a record that tells of a loss.
const LOST: u8 = 0;

/// What a client wants of the main process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachConfig {
    /// To feed it. Without `open_stdin` there is nothing to feed.
    pub stdin: bool,
    pub stdout: bool,
    /// A terminal has none of its own.
    pub stderr: bool,
    /// The client's window, for a container with a terminal.
    pub size: Option<WindowSize>,
}

/// An attached client. Dropping it does not touch the container, but for the input's end.
#[derive(Debug)]
pub struct AttachSession {
    pub output: AttachOutput,
    /// `None` unless it was asked for and the container has an input.
    pub stdin: Option<AttachInput>,
    /// `None` if the container has no terminal.
    pub terminal: Option<AttachTerminal>,
}

/// Something the main process has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachRecord {
    Data {
        /// Of a terminal always `Stdout`.
        stream: OutputStream,
        data: Bytes,
    },
    /// The client was so slow that this many bytes of both streams' records are in no file of the
    /// log any more.
    Lost(u64),
}

/// What the main process says, in order.
#[derive(Debug)]
pub struct AttachOutput {
    socket: Arc<AsyncFd<OwnedFd>>,
    wanted: AttachConfig,
    buffer: Vec<u8>,
}

impl AttachOutput {
    /// The next record; `None` when the process has ended and all was told. May be called again
    /// after a cancelled call.
    ///
    /// # Errors
    /// If the shim said something else than records.
    pub async fn next(&mut self) -> Option<io::Result<AttachRecord>> {
        loop {
            let buffer = &mut self.buffer;
            let receive = |fd: &OwnedFd| Ok(recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?);
            let n = match self.socket.async_io(Interest::READABLE, receive).await {
                // The shim has died, and the container with it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(error) => return Some(Err(error)),
                Ok(0) => return None,
                Ok(n) => n,
            };
            match record(&self.buffer[..n]) {
                Some(AttachRecord::Data { stream: OutputStream::Stdout, .. })
                    if !self.wanted.stdout => {}
                Some(AttachRecord::Data { stream: OutputStream::Stderr, .. })
                    if !self.wanted.stderr => {}
                Some(record) => return Some(Ok(record)),
                None => return Some(Err(io::ErrorKind::InvalidData.into())),
            }
        }
    }
}

pub(super) fn record(packet: &[u8]) -> Option<AttachRecord> {
    let (header, data) = packet.split_at_checked(HEADER)?;
    let stream = match header[12] {
        LOST => return Some(AttachRecord::Lost(u64::from_le_bytes(data.try_into().ok()?))),
        1 => OutputStream::Stdout,
        2 => OutputStream::Stderr,
        _ => return None,
    };
    Some(AttachRecord::Data { stream, data: Bytes::copy_from_slice(data) })
}

/// The main process's input. Dropping it is the end of what this client feeds.
#[derive(Debug)]
pub struct AttachInput {
    socket: Arc<AsyncFd<OwnedFd>>,
}

impl AttachInput {
    /// Comes back when the shim has taken it, which waits for the process to read.
    ///
    /// # Errors
    /// `BrokenPipe` when the process has ended or closed its input.
    pub async fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        for chunk in data.chunks(INPUT_CHUNK) {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let send = |fd: &OwnedFd| Ok(send(fd.as_raw_fd(), chunk, flags)?);
            self.socket.async_io(Interest::WRITABLE, send).await?;
        }
        Ok(())
    }
}

impl Drop for AttachInput {
    fn drop(&mut self) {
        // A shim that is gone needs no end.
        let _ = shutdown(self.socket.get_ref().as_raw_fd(), Shutdown::Write);
    }
}

/// The main process's terminal.
#[derive(Clone, Debug)]
pub struct AttachTerminal {
    id: ContainerId,
    layout: Layout,
}

impl AttachTerminal {
    /// Before the start it is the size that the process finds.
    ///
    /// # Errors
    /// If the shim is gone.
    pub async fn resize(&self, size: WindowSize) -> Result<(), Error> {
        Shim::connect(&self.id, &self.layout).await?.resize(size).await
    }
}

/// Attaches to the container whose shim is given.
pub(super) async fn attach(
    config: &super::ContainerConfig,
    layout: Layout,
    mut shim: Shim,
    wanted: AttachConfig,
) -> Result<AttachSession, Error> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .map_err(|errno| Error::Os { what: "socket pair", source: errno.into() })?;
    let feeding = wanted.stdin && config.open_stdin;
    if let Some(size) = wanted.size.filter(|_| config.tty) {
        shim.resize(size).await?;
    }
    shim.attach(theirs.as_fd(), feeding).await?;
    // SAFETY: an OwnedFd keeps its descriptor, the same one, open until it is dropped.
    let socket = unsafe { AsyncFd::register(ours) }
        .map_err(|error| Error::Os { what: "socket pair", source: error.into() })?;
    let socket = Arc::new(socket);
    Ok(AttachSession {
        stdin: feeding.then(|| AttachInput { socket: socket.clone() }),
        output: AttachOutput { socket, wanted, buffer: vec![0; MAX_PACKET] },
        terminal: config.tty.then(|| AttachTerminal { id: config.id.clone(), layout }),
    })
}
