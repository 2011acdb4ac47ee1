//! The path of what comes from the network, without threads, for the fuzzer and the replay of what it
//! found.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::Arc,
};

use boringtun::{noise::rate_limiter::RateLimiter, x25519::PublicKey};

use crate::{
    Config, Status,
    lane::{Lane, Order, Setup},
    message,
    sys::Udp,
    tables::Tables,
    verifier::{self, Limiters, RESPONSES, Rules, Shared, lock},
};

/// One lane and a verifier, which work when they are told to.
pub struct Receiver {
    lane: Lane,
    shared: Arc<Shared>,
}

impl Receiver {
    /// By this configuration, in which nodes have one lane. The calling thread's network namespace has its
    /// ports.
    ///
    /// # Errors
    /// The configuration cannot be, or a port is taken.
    pub fn new(config: Config) -> io::Result<Self> {
        let tables = Arc::new(Tables::new(config).map_err(io::Error::other)?);
        let shared = Arc::new(Shared::default());
        let (lane, handle) = Lane::new(0, Arc::clone(&shared))?;
        let ports: BTreeSet<u16> = tables.own.iter().flat_map(|own| own.ports.clone()).collect();
        let sockets = ports.into_iter().map(|port| Ok((port, Arc::new(Udp::bind(port)?))));
        let sockets = sockets.collect::<io::Result<BTreeMap<_, _>>>()?;
        let limiter = |key: [u8; 32]| RateLimiter::new(&PublicKey::from(key), RESPONSES);
        let keys = || tables.own.iter().map(|own| own.public);
        let limiters = keys().map(|key| (key, Arc::new(limiter(key.0)))).collect();
        let lanes = vec![handle.clone()];
        *lock(&shared.rules) = Arc::new(Rules {
            tables: Arc::clone(&tables),
            limiters: keys().map(|key| (key, Arc::new(Limiters::new(&key)))).collect(),
            lanes: lanes.clone(),
        });
        handle.tell(Order::Configure(Box::new(Setup { tables, sockets, limiters, lanes })));
        let mut receiver = Self { lane, shared };
        receiver.lane.step();
        Ok(receiver)
    }

    /// Takes a datagram that came to one of its ports, and does all that follows from it.
    pub fn take(&mut self, port: u16, source: SocketAddr, datagram: &[u8]) {
        self.lane.take_one(port, source, datagram);
        verifier::drain(&self.shared);
        self.lane.step();
    }

    /// What it has counted.
    pub fn status(&mut self) -> Status {
        let mut tally = self.lane.tally();
        tally.merge(lock(&self.shared.tally).clone());
        let (peers, drops) = tally.into_parts();
        let (version, devices) = (String::new(), BTreeMap::new());
        Status { version, pid: 0, peers, drops, devices }
    }
}

/// Reads a message of the daemon, and gives it as it is written.
///
/// # Errors
/// It is none.
pub fn request(mut bytes: &[u8]) -> io::Result<Vec<u8>> {
    let read: message::Request = message::read(&mut bytes)?;
    if let message::Call::Set(config) = &read.call {
        // Whether it can be is another question, whose answer must not take long.
        let _ = Tables::new(config.clone());
    }
    let mut out = Vec::new();
    message::write(&mut out, &read)?;
    Ok(out)
}

/// The same of an answer of the engine.
///
/// # Errors
/// It is none.
pub fn response(mut bytes: &[u8]) -> io::Result<Vec<u8>> {
    let read: message::Response = message::read(&mut bytes)?;
    let mut out = Vec::new();
    message::write(&mut out, &read)?;
    Ok(out)
}
