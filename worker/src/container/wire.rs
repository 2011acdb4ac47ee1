//! Frames on a unix socket, with descriptors beside them: what the shim and the exec helper speak.
//! A frame is a u32 (little endian) length and that many bytes, fields separated by NUL;
//! `shim/src/serve.rs` has the requests.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Bytes of one frame: an exec request carries a command line and an environment.
pub(super) const MAX_FRAME: usize = 4 << 20;
/// Descriptors beside one frame: an exec request has a pidfd and three pipes.
const MAX_FDS: usize = 4;

pub(super) type Fields = Vec<Vec<u8>>;

pub(super) fn frame(fields: &[&[u8]]) -> Vec<u8> {
    let body = fields.join(&0u8);
    let mut out = (body.len() as u32).to_le_bytes().to_vec();
    out.extend_from_slice(&body);
    out
}

/// What has come of a frame so far.
#[derive(Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Inbox {
    /// Reads once from the socket; `false` at its end.
    pub(super) fn fill(&mut self, socket: BorrowedFd<'_>, flags: MsgFlags) -> io::Result<bool> {
        let mut buffer = [0u8; 16 << 10];
        let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let n = message.bytes;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = part {
                // SAFETY: the kernel has just made these descriptors for us; nobody else owns them.
                self.fds.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        self.add(&buffer[..n]);
        Ok(n > 0)
    }

    /// Takes bytes that came without descriptors.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The first whole frame, with the descriptors that came up to its end.
    pub(super) fn take(&mut self) -> io::Result<Option<(Fields, Vec<OwnedFd>)>> {
        let Some(length) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("frame of {length} B")));
        }
        if self.bytes.len() < 4 + length {
            return Ok(None);
        }
        let fields = self.bytes[4..4 + length].split(|b| *b == 0).map(<[u8]>::to_vec).collect();
        self.bytes.drain(..4 + length);
        Ok(Some((fields, std::mem::take(&mut self.fds))))
    }
}

/// Sends what the socket takes at once, descriptors with the first byte.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[RawFd],
    flags: MsgFlags,
) -> io::Result<usize> {
    let control = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &control };
    let flags = flags | MsgFlags::MSG_NOSIGNAL;
    Ok(sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)?)
}

/// The daemon's end.
pub(super) struct Connection {
    stream: UnixStream,
    inbox: Inbox,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, inbox: Inbox::default() }
    }

    /// Connects to a socket in `dir`, whose path may be longer than a socket address allows.
    pub(super) async fn open(dir: &Path, name: &str) -> io::Result<Self> {
        let dir = std::fs::File::open(dir)?;
        let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
        Ok(Self::new(UnixStream::connect(path).await?))
    }

    pub(super) async fn send(
        &mut self,
        fields: &[&[u8]],
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let frame = frame(fields);
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let mut sent = 0;
        while sent < frame.len() {
            let fds: &[RawFd] = if sent == 0 { &raw } else { &[] };
            sent += self
                .stream
                .async_io(Interest::WRITABLE, || {
                    send(borrowed(&self.stream), &frame[sent..], fds, MsgFlags::MSG_DONTWAIT)
                })
                .await?;
        }
        Ok(())
    }

    /// The next frame; `UnexpectedEof` if the other side is gone.
    pub(super) async fn receive(&mut self) -> io::Result<(Fields, Vec<OwnedFd>)> {
        loop {
            if let Some(whole) = self.inbox.take()? {
                return Ok(whole);
            }
            let Self { stream, inbox } = self;
            let more = stream
                .async_io(Interest::READABLE, || {
                    inbox.fill(borrowed(stream), MsgFlags::MSG_DONTWAIT)
                })
                .await?;
            if !more {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn borrowed(stream: &UnixStream) -> BorrowedFd<'_> {
    use std::os::fd::AsFd;
    stream.as_fd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let bytes = [frame(&[b"kill", b"9"]), frame(&[b"", b""])].concat();
        for cut in 0..bytes.len() {
            let mut inbox = Inbox::default();
            let mut got = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                inbox.add(part);
                while let Some((fields, _)) = inbox.take().expect("frame") {
                    got.push(fields);
                }
            }
            assert_eq!(got, [vec![b"kill".to_vec(), b"9".to_vec()], vec![vec![], vec![]]]);
        }
    }

    #[test]
    fn a_frame_too_long_is_refused() {
        let mut inbox = Inbox { bytes: u32::MAX.to_le_bytes().to_vec(), fds: Vec::new() };
        assert!(inbox.take().is_err());
    }
}
