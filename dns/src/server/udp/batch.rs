//! Many datagrams with one system call. The buffers belong to the thread and not to a sandbox, so
//! that a thousand idle sandboxes cost nothing.
//!
//! Replies of one length to one client leave as one packet that the kernel cuts up on arrival
//! (`UDP_SEGMENT`, udp(7)): a packet's way through routing, netfilter and the loopback device costs
//! more than all that the resolver does, and is then paid once for all of them.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, sendmsg,
};

use crate::limits::{QUERY_MAX, UDP_BATCH};

thread_local! {
    static BATCH: RefCell<Batch> = RefCell::new(Batch::default());
}

/// Datagrams received together, and the replies to them.
pub(super) struct Batch {
    queries: Vec<[u8; QUERY_MAX]>,
    received: Vec<(usize, SocketAddr)>,
    replies: Vec<Vec<u8>>,
    to: Vec<SocketAddr>,
    order: Vec<usize>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            queries: vec![[0; QUERY_MAX]; UDP_BATCH],
            received: Vec::with_capacity(UDP_BATCH),
            replies: vec![Vec::new(); UDP_BATCH],
            to: Vec::with_capacity(UDP_BATCH),
            order: Vec::with_capacity(UDP_BATCH),
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
        mut sent: impl FnMut(usize),
    ) {
        self.to.clear();
        for (query, &(length, peer)) in self.queries.iter().zip(&self.received) {
            let reply = &mut self.replies[self.to.len()];
            if answer(&query[..length], peer, reply) {
                self.to.push(peer);
            }
        }
        self.arrange();
        let alone: Vec<usize> = self
            .order
            .chunk_by(|&one, &next| self.key(one) == self.key(next))
            .filter(|alike| !self.send_as_one(socket, alike, &mut sent))
            .flatten()
            .copied()
            .collect();
        self.send_each(socket, &alone, sent);
    }

    /// Puts replies next to each other that can go as one.
    fn arrange(&mut self) {
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend(0..self.to.len());
        order.sort_by_key(|&at| self.key(at));
        self.order = order;
    }

    /// What replies that go as one have in common.
    fn key(&self, at: usize) -> (SocketAddr, usize) {
        (self.to[at], self.replies[at].len())
    }

    /// Whether these went as one packet. A single one does not, and none do on a device that
    /// cannot (EIO: it computes no checksums).
    fn send_as_one(&self, socket: RawFd, alike: &[usize], sent: &mut impl FnMut(usize)) -> bool {
        let &[first, _, ..] = alike else { return false };
        let (to, length) = self.key(first);
        let Ok(segment) = u16::try_from(length) else { return false };
        let parts: Vec<_> = alike.iter().map(|&at| IoSlice::new(&self.replies[at])).collect();
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        let to = SockaddrStorage::from(to);
        if let Err(error) = sendmsg(socket, &parts, &control, MsgFlags::MSG_DONTWAIT, Some(&to)) {
            tracing::debug!(%error, "send as one");
            return false;
        }
        alike.iter().for_each(|_| sent(length));
        true
    }

    /// Sends or loses: a client whose buffer is full asks again, and nobody waits for it.
    fn send_each(&self, socket: RawFd, alone: &[usize], mut sent: impl FnMut(usize)) {
        let slices: Vec<_> = alone.iter().map(|&at| [IoSlice::new(&self.replies[at])]).collect();
        let to: Vec<_> = alone.iter().map(|&at| Some(SockaddrStorage::from(self.to[at]))).collect();
        let mut from = 0;
        while from < to.len() {
            let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(to.len() - from, None);
            let flags = MsgFlags::MSG_DONTWAIT;
            let rest = &to[from..];
            let done = sendmmsg(socket, &mut headers, &slices[from..], rest, [], flags)
                .map(Iterator::count);
            match done {
                Ok(count) => {
                    alone[from..from + count].iter().for_each(|&at| sent(self.replies[at].len()));
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
