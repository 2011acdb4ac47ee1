//! One connection to a published port, and the one it leads to.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::epoll::{Epoll, READ, WRITE};
use crate::pipe::{Pipe, Pipes};
use crate::sys;

/// Chunks moved one way before others get their turn.
const CHUNKS: usize = 4;

/// One of the two ends.
struct End {
    socket: TcpStream,
    /// What the other end has said and this one has not taken.
    pending: Option<Pipe>,
    /// It says no more.
    read_ended: bool,
    /// It was told that no more comes.
    write_ended: bool,
    interest: u32,
}

impl End {
    fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // Whoever is behind it decides what goes together.
        socket.set_nodelay(true)?;
        Ok(Self { socket, pending: None, read_ended: false, write_ended: false, interest: 0 })
    }

    /// `false` if there is still something pending.
    fn flush(&mut self, pipes: &mut Pipes) -> io::Result<bool> {
        while let Some(mut pipe) = self.pending.take() {
            let drained = pipe.drain(self.socket.as_raw_fd());
            match pipe.is_empty() {
                true => pipes.put(pipe),
                false => self.pending = Some(pipe),
            }
            match drained {
                Ok(()) => {}
                Err(error) if sys::is_for_later(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Takes what the other end has said; `false` if that is nothing for now. To be called while
    /// nothing is pending.
    fn take(&mut self, from: &mut End, pipes: &mut Pipes) -> io::Result<bool> {
        let mut pipe = pipes.take()?;
        let filled = pipe.fill(from.socket.as_raw_fd());
        match pipe.is_empty() {
            true => pipes.put(pipe),
            false => self.pending = Some(pipe),
        }
        match filled {
            Ok(n) => from.read_ended = n == 0,
            Err(error) if sys::is_for_later(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

/// The end that has come and the end in the container, in this order.
pub struct Pair {
    ends: [End; 2],
    connected: bool,
}

impl Pair {
    /// Begins to connect to `target`.
    pub fn new(client: TcpStream, target: SocketAddr) -> io::Result<Self> {
        let server = connect(target)?;
        Ok(Self { ends: [End::new(client)?, End::new(server)?], connected: false })
    }

    /// Moves what can be moved; `false` when both ends are done.
    ///
    /// # Errors
    /// When an end is lost: both are to be closed.
    pub fn turn(&mut self, pipes: &mut Pipes) -> io::Result<bool> {
        if !self.connected {
            match connecting(&self.ends[1].socket)? {
                true => self.connected = true,
                false => return Ok(true),
            }
        }
        let [a, b] = &mut self.ends;
        carry(a, b, pipes)?;
        carry(b, a, pipes)?;
        Ok(!(a.write_ended && b.write_ended))
    }

    /// Waits for what can make a turn useful. The ends' tokens are `token` and the one after it.
    pub fn wait(&mut self, epoll: &Epoll, token: u64) -> io::Result<()> {
        let [a, b] = &self.ends;
        let wanted = if self.connected { [interest(a, b), interest(b, a)] } else { [0, WRITE] };
        for (side, (end, wanted)) in self.ends.iter_mut().zip(wanted).enumerate() {
            epoll.change(end.socket.as_raw_fd(), token + side as u64, end.interest, wanted)?;
            end.interest = wanted;
        }
        Ok(())
    }
}

/// An end is only waited for while it has something to do: one that is closed is always ready.
fn interest(own: &End, other: &End) -> u32 {
    let reading = !own.read_ended && other.pending.is_none();
    let read = if reading { READ } else { 0 };
    if own.pending.is_none() { read } else { read | WRITE }
}

fn carry(from: &mut End, to: &mut End, pipes: &mut Pipes) -> io::Result<()> {
    for _ in 0..CHUNKS {
        if !to.flush(pipes)? || from.read_ended || !to.take(from, pipes)? {
            break;
        }
    }
    if to.flush(pipes)? && from.read_ended && !to.write_ended {
        to.socket.shutdown(Shutdown::Write)?;
        to.write_ended = true;
    }
    Ok(())
}

/// Whether a connection that was begun is there.
fn connecting(socket: &TcpStream) -> io::Result<bool> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    match socket.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let family = if target.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket takes plain values.
    let socket: OwnedFd = sys::owned(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: all-zero bytes are a valid address, and `length` says how many of them the kernel
    // may read.
    let done = unsafe {
        let mut address: libc::sockaddr_in6 = std::mem::zeroed();
        let length = match target {
            SocketAddr::V4(target) => {
                let own: &mut libc::sockaddr_in = &mut *(&raw mut address).cast();
                own.sin_family = libc::AF_INET as libc::sa_family_t;
                own.sin_port = target.port().to_be();
                own.sin_addr.s_addr = u32::from_ne_bytes(target.ip().octets());
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(target) => {
                address.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                address.sin6_port = target.port().to_be();
                address.sin6_addr.s6_addr = target.ip().octets();
                address.sin6_scope_id = target.scope_id();
                size_of::<libc::sockaddr_in6>()
            }
        };
        let address = (&raw const address).cast();
        sys::check(libc::connect(socket.as_raw_fd(), address, length as libc::socklen_t))
    };
    match done {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}
