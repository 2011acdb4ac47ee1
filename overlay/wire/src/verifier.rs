//! Sifts the first messages of handshakes, on a thread of its own, so that a flood of them does not
//! stall what passes through the lanes.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, mpsc},
};

use boringtun::{
    noise::{Packet, TunnResult, handshake::parse_handshake_anon, rate_limiter::RateLimiter},
    x25519::PublicKey,
};

use crate::{
    Key, Reason,
    lane::{Handle, Order, Pair, Tally},
    sys::Udp,
    tables::Tables,
};

/// Most initiations a second that are looked into without a cookie. Each costs 0.05 ms, so it is a
/// tenth of a core; all nodes of a cluster of a thousand begin within a second.
pub const INITIATIONS: u64 = 2_000;
/// Most messages of handshakes a second that a lane's sessions take without a cookie. They are known
/// to be of nodes, so it is no limit in practice; a flood of replays meets it.
pub const RESPONSES: u64 = 10_000;
/// Most initiations that wait; more are dropped, and their senders repeat them.
pub const WAITING: usize = 1_024;

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

/// What the verifier goes by.
#[derive(Default)]
pub struct Rules {
    pub tables: Arc<Tables>,
    /// By identity of this node.
    pub limiters: BTreeMap<Key, RateLimiter>,
    pub lanes: Vec<Handle>,
}

/// What the verifier shares with the engine.
#[derive(Default)]
pub struct Shared {
    pub rules: Mutex<Arc<Rules>>,
    pub tally: Mutex<Tally>,
}

/// Works until all who could send it something are gone.
pub fn run(inbox: &mpsc::Receiver<Initiation>, shared: &Shared) {
    for initiation in inbox {
        let rules = Arc::clone(&lock(&shared.rules));
        if let Err(reason) = sift(initiation, &rules) {
            lock(&shared.tally).dropped(None, reason);
        }
    }
}

/// Hands on what comes from a configured node, answers with a cookie under load.
fn sift(initiation: Initiation, rules: &Rules) -> Result<(), Reason> {
    let own = rules.tables.own_of(&initiation.own).ok_or(Reason::Forged)?;
    let limiter = rules.limiters.get(&initiation.own).ok_or(Reason::Forged)?;
    limiter.reset_count();
    let mut cookie = [0; 64];
    let source = initiation.source;
    let init = match limiter.verify_packet(Some(source.ip()), &initiation.packet, &mut cookie) {
        Ok(Packet::HandshakeInit(init)) => init,
        Ok(_) | Err(TunnResult::Err(_)) => return Err(Reason::Forged),
        Err(TunnResult::WriteToNetwork(cookie)) => {
            // If it is lost, the other side asks again.
            let _ = initiation.socket.send(cookie, cookie.len(), source);
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
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
