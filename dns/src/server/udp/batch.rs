//! Many datagrams with one system call. The buffers belong to the thread and not to a sandbox, so
//! that a thousand idle sandboxes cost nothing.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

use crate::limits::{QUERY_MAX, UDP_BATCH};

thread_local! {
    static BATCH: RefCell<Batch> = RefCell::new(Batch::default());
}

/// Datagrams received together, and the replies to them.
pub(super) struct Batch {
    queries: Vec<[u8; QUERY_MAX]>,
    received: Vec<(usize, SocketAddr)>,
    replies: Vec<Vec<u8>>,
    to: Vec<Option<SockaddrStorage>>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            queries: vec![[0; QUERY_MAX]; UDP_BATCH],
            received: Vec::with_capacity(UDP_BATCH),
            replies: vec![Vec::new(); UDP_BATCH],
            to: Vec::with_capacity(UDP_BATCH),
        }
    }
}

/// Lends the thread's buffers. Not to be nested, and nothing in it may wait.
pub(super) fn with<T>(work: impl FnOnce(&mut Batch) -> T) -> T {
    BATCH.with_borrow_mut(work)
}

impl Batch {
    /// Receives what is there, at most `UDP_BATCH`; an error if nothing is.
    pub(super) fn receive(&mut self, socket: RawFd) -> io::Result<()> {
        self.received.clear();
        // Made anew for each call, because the kernel shortens the room for addresses in them.
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(UDP_BATCH, None);
        let mut slices: Vec<_> =
            self.queries.iter_mut().map(|query| [IoSliceMut::new(query)]).collect();
        let messages =
            recvmmsg(socket, &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        for message in messages {
            let peer = message.address.and_then(|address| plain(&address));
            // A sender without an address cannot be answered; length 0 makes it no query.
            let nobody = (0, SocketAddr::from(([0; 4], 0)));
            self.received.push(peer.map_or(nobody, |peer| (message.bytes, peer)));
        }
        Ok(())
    }

    /// Whether there may be more than was received.
    pub(super) fn is_full(&self) -> bool {
        self.received.len() == UDP_BATCH
    }

    /// Calls `answer` with each datagram received and a buffer for the reply, and sends the
    /// replies it says are ready. Gives each one that was sent to `sent`, by its length.
    pub(super) fn answer(
        &mut self,
        socket: RawFd,
        mut answer: impl FnMut(&[u8], SocketAddr, &mut Vec<u8>) -> bool,
        sent: impl FnMut(usize),
    ) {
        self.to.clear();
        for (query, &(length, peer)) in self.queries.iter().zip(&self.received) {
            let reply = &mut self.replies[self.to.len()];
            if answer(&query[..length], peer, reply) {
                self.to.push(Some(peer.into()));
            }
        }
        self.send(socket, sent);
    }

    /// Sends or loses: a client whose buffer is full asks again, and nobody waits for it.
    fn send(&self, socket: RawFd, mut sent: impl FnMut(usize)) {
        let slices: Vec<_> = self.replies.iter().map(|reply| [IoSlice::new(reply)]).collect();
        let mut from = 0;
        while from < self.to.len() {
            let mut headers =
                MultiHeaders::<SockaddrStorage>::preallocate(self.to.len() - from, None);
            let flags = MsgFlags::MSG_DONTWAIT;
            let to = &self.to[from..];
            let done =
                sendmmsg(socket, &mut headers, &slices[from..], to, [], flags).map(Iterator::count);
            match done {
                Ok(count) => {
                    self.replies[from..from + count].iter().for_each(|reply| sent(reply.len()));
                    from += count.max(1);
                }
                Err(Errno::EINTR) => {}
                Err(error) => {
                    tracing::debug!(%error, "send");
                    from += 1;
                }
            }
        }
    }
}

fn plain(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}
