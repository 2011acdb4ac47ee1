//! The UDP side of one sandbox: batches of queries are answered in place, and those that must be
//! forwarded leave as tasks of this one, bounded by the sandbox's quota.

mod batch;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use rand::rngs::StdRng;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::sandbox::{Sandbox, Step};
use crate::answer::Transport;
use crate::limits::ACCEPT_PAUSE;

/// The port of DNS servers. What comes from there is an answer or wants one to go there.
const DNS_PORT: u16 = 53;

/// Serves until dropped.
pub(super) async fn serve(sandbox: Arc<Sandbox>, socket: Arc<UdpSocket>, own_port: u16) {
    sandbox.known().await;
    let mut side = Side {
        sandbox,
        socket: socket.clone(),
        own_port,
        flights: JoinSet::new(),
        rng: rand::make_rng(),
    };
    loop {
        tokio::select! {
            ready = socket.readable() => match ready.and_then(|()| side.batch()) {
                // Others get their turn also when this socket never runs dry.
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => {
                    tracing::debug!(%error, "receive");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = side.flights.join_next(), if !side.flights.is_empty() => {}
        }
    }
}

struct Side {
    sandbox: Arc<Sandbox>,
    socket: Arc<UdpSocket>,
    own_port: u16,
    flights: JoinSet<()>,
    rng: StdRng,
}

impl Side {
    fn batch(&mut self) -> io::Result<()> {
        batch::with(|batch| {
            let socket = self.socket.clone();
            let fd = socket.as_raw_fd();
            let mut received = Err(io::ErrorKind::WouldBlock.into());
            // Fewer than asked for means that the socket is dry, which is what "would block" tells
            // the runtime: it saves the call that would only find nothing. What arrives later is
            // a new event.
            let _ = socket.try_io(Interest::READABLE, || {
                received = batch.receive(fd);
                let dry = received.as_ref().map_or_else(is_dry, |()| !batch.is_full());
                if dry { Err(io::Error::from(io::ErrorKind::WouldBlock)) } else { Ok(()) }
            });
            match received {
                Ok(()) => {}
                Err(error) if is_dry(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
            let sandbox = self.sandbox.clone();
            let sent = |length| sandbox.counters.replied(length);
            batch.answer(fd, |query, peer, out| self.one(query, peer, out), sent);
            Ok(())
        })
    }

    /// Whether the reply is ready.
    fn one(&mut self, query: &[u8], peer: SocketAddr, out: &mut Vec<u8>) -> bool {
        // An answer to another resolver, or to this one, could come back as a query for ever.
        if [0, DNS_PORT, self.own_port].contains(&peer.port()) {
            return false;
        }
        match self.sandbox.step(query, Transport::Udp, &mut self.rng, out) {
            Step::Reply => true,
            Step::Silence => false,
            Step::Later(reply) => {
                let (sandbox, socket) = (self.sandbox.clone(), self.socket.clone());
                self.flights.spawn(async move {
                    let reply = reply.await;
                    send(&sandbox, &socket, &reply, peer);
                });
                false
            }
        }
    }
}

fn is_dry(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Sends or loses: a client whose socket buffer is full asks again, and nobody waits for it.
fn send(sandbox: &Sandbox, socket: &UdpSocket, reply: &[u8], peer: SocketAddr) {
    match socket.try_send_to(reply, peer) {
        Ok(sent) => sandbox.counters.replied(sent),
        Err(error) => tracing::debug!(%error, %peer, "send"),
    }
}
