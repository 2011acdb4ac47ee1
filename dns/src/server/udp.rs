//! The UDP side of one sandbox: batches of queries are answered in place, and those that must be
//! forwarded leave as tasks of this one, bounded by the sandbox's quota.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rand::rngs::StdRng;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::sandbox::{Sandbox, Step};
use crate::answer::Transport;
use crate::limits::{ACCEPT_PAUSE, QUERY_MAX, UDP_BATCH};

/// The port of DNS servers. What comes from there is an answer or wants one to go there.
const DNS_PORT: u16 = 53;

/// Serves until dropped.
pub(super) async fn serve(sandbox: Arc<Sandbox>, socket: Arc<UdpSocket>, own_port: u16) {
    let mut side = Side {
        sandbox,
        socket: socket.clone(),
        own_port,
        flights: JoinSet::new(),
        rng: rand::make_rng(),
        query: [0; QUERY_MAX],
        out: Vec::new(),
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
    query: [u8; QUERY_MAX],
    out: Vec<u8>,
}

impl Side {
    fn batch(&mut self) -> io::Result<()> {
        for _ in 0..UDP_BATCH {
            match self.socket.try_recv_from(&mut self.query) {
                Ok((length, peer)) => self.one(length, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn one(&mut self, length: usize, peer: SocketAddr) {
        // An answer to another resolver, or to this one, could come back as a query for ever.
        if [0, DNS_PORT, self.own_port].contains(&peer.port()) {
            return;
        }
        let query = &self.query[..length];
        match self.sandbox.step(query, Transport::Udp, &mut self.rng, &mut self.out) {
            Step::Reply => send(&self.sandbox, &self.socket, &self.out, peer),
            Step::Silence => {}
            Step::Later(reply) => {
                let (sandbox, socket) = (self.sandbox.clone(), self.socket.clone());
                self.flights.spawn(async move {
                    let reply = reply.await;
                    send(&sandbox, &socket, &reply, peer);
                });
            }
        }
    }
}

/// Sends or loses: a client whose socket buffer is full asks again, and nobody waits for it.
fn send(sandbox: &Sandbox, socket: &UdpSocket, reply: &[u8], peer: SocketAddr) {
    match socket.try_send_to(reply, peer) {
        Ok(sent) => sandbox.counters.replied(sent),
        Err(error) => tracing::debug!(%error, %peer, "send"),
    }
}
