//! Sifts the first messages of handshakes, on a thread of its own, so that a flood of them does not
//! stall what passes through the lanes.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use boringtun::{
    noise::{Packet, TunnResult, handshake::parse_handshake_anon, rate_limiter::RateLimiter},
    x25519::PublicKey,
};

use crate::{
    Key, Reason,
    lane::{Handle, Order, Pair, Tally},
    sys::{Sending, Udp},
    tables::Tables,
};

/// Most initiations a second that are looked into without a cookie. Each costs 0.05 ms, so it is a
/// tenth of a core; all nodes of a cluster of a thousand begin within a second.
const INITIATIONS: u64 = 2_000;
/// Most messages of handshakes a second that a lane's sessions take without a cookie. They are known
/// to be of nodes, so it is no limit in practice; a flood of replays meets it.
pub const RESPONSES: u64 = 10_000;
/// Most initiations of one origin that wait; more are dropped, and their senders repeat them.
const WAITING: usize = 1_024;

/// The first message of a handshake.
#[derive(Debug)]
pub struct Initiation {
    /// The identity of this node that it came to.
    pub own: Key,
    /// The lane that it came to.
    pub lane: usize,
    pub source: SocketAddr,
    pub packet: [u8; Initiation::LEN],
    /// Where a cookie is sent from.
    pub socket: Arc<Udp>,
}

impl Initiation {
    /// Bytes of the message.
    pub const LEN: usize = 148;
}

/// Where an initiation comes from. A flood from elsewhere takes nothing from the nodes where they are
/// configured to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configured address of a node.
    Node,
    Elsewhere,
}

/// Initiations that wait, those from nodes' addresses first.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    nodes: VecDeque<Initiation>,
    elsewhere: VecDeque<Initiation>,
    closed: bool,
}

impl Queue {
    /// Puts it at the end; false if too many wait.
    pub fn offer(&self, initiation: Initiation, origin: Origin) -> bool {
        let mut waiting = lock(&self.waiting);
        let queue = match origin {
            Origin::Node => &mut waiting.nodes,
            Origin::Elsewhere => &mut waiting.elsewhere,
        };
        if queue.len() >= WAITING {
            return false;
        }
        queue.push_back(initiation);
        self.changed.notify_one();
        true
    }

    /// Ends the verifier.
    pub fn close(&self) {
        lock(&self.waiting).closed = true;
        self.changed.notify_all();
    }

    /// The next one, if one waits.
    fn try_next(&self) -> Option<(Initiation, Origin)> {
        lock(&self.waiting).pop()
    }

    /// Waits for the next one; `None` when the queue was closed.
    fn next(&self) -> Option<(Initiation, Origin)> {
        let mut waiting = lock(&self.waiting);
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(first) = waiting.pop() {
                return Some(first);
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Waiting {
    fn pop(&mut self) -> Option<(Initiation, Origin)> {
        let node = self.nodes.pop_front().map(|initiation| (initiation, Origin::Node));
        node.or_else(|| Some((self.elsewhere.pop_front()?, Origin::Elsewhere)))
    }
}

/// Who counts initiations to one identity of this node.
pub struct Limiters {
    nodes: RateLimiter,
    elsewhere: RateLimiter,
}

impl Limiters {
    pub fn new(identity: &Key) -> Self {
        let limiter = || RateLimiter::new(&PublicKey::from(identity.0), INITIATIONS);
        Self { nodes: limiter(), elsewhere: limiter() }
    }
}

/// What the verifier goes by.
#[derive(Default)]
pub struct Rules {
    pub tables: Arc<Tables>,
    /// By identity of this node.
    pub limiters: BTreeMap<Key, Arc<Limiters>>,
    pub lanes: Vec<Handle>,
}

/// What the verifier shares with the engine.
#[derive(Default)]
pub struct Shared {
    pub queue: Queue,
    pub rules: Mutex<Arc<Rules>>,
    pub tally: Mutex<Tally>,
}

/// Works until the queue is closed.
pub fn run(shared: &Shared) {
    while let Some((initiation, origin)) = shared.queue.next() {
        let rules = Arc::clone(&lock(&shared.rules));
        if let Err(reason) = sift(initiation, origin, &rules) {
            lock(&shared.tally).dropped(None, reason);
        }
    }
}

/// Works until nothing waits.
pub fn drain(shared: &Shared) {
    let rules = Arc::clone(&lock(&shared.rules));
    while let Some((initiation, origin)) = shared.queue.try_next() {
        if let Err(reason) = sift(initiation, origin, &rules) {
            lock(&shared.tally).dropped(None, reason);
        }
    }
}

/// Hands on what comes from a configured node, answers with a cookie under load.
fn sift(initiation: Initiation, origin: Origin, rules: &Rules) -> Result<(), Reason> {
    let own = rules.tables.own_of(&initiation.own).ok_or(Reason::Forged)?;
    let limiters = rules.limiters.get(&initiation.own).ok_or(Reason::Forged)?;
    let limiter = match origin {
        Origin::Node => &limiters.nodes,
        Origin::Elsewhere => &limiters.elsewhere,
    };
    limiter.reset_count();
    let mut cookie = [0; 64];
    let source = initiation.source;
    let init = match limiter.verify_packet(Some(source.ip()), &initiation.packet, &mut cookie) {
        Ok(Packet::HandshakeInit(init)) => init,
        Ok(_) | Err(TunnResult::Err(_)) => return Err(Reason::Forged),
        Err(TunnResult::WriteToNetwork(cookie)) => {
            // If it is lost, the other side asks again.
            let _ = initiation.socket.send(Sending::one(cookie), source);
            return Err(Reason::UnderLoad);
        }
        Err(_) => return Err(Reason::Malformed),
    };
    let public = PublicKey::from(own.public.0);
    let half = parse_handshake_anon(&own.secret, &public, &init).map_err(|_| Reason::Forged)?;
    let pair = Pair { own: own.public, peer: Key(half.peer_static_public) };
    if rules.tables.peer_of(&pair.peer).is_none() {
        return Err(Reason::Forged);
    }
    let lane = rules.lanes.get(initiation.lane).ok_or(Reason::Forged)?;
    if lane.offer(Order::Initiation(initiation, pair)) { Ok(()) } else { Err(Reason::UnderLoad) }
}

/// What was written before a panic is whole: only values are exchanged under these locks.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
