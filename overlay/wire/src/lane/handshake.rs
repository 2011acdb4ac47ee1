//! Sessions: which is sent on, how they begin, and how they are kept.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use boringtun::noise::TunnResult;

use super::{
    Lane,
    link::{HANDSHAKE, Pair, is_data, reason},
    means,
};
use crate::{Node, verifier::Initiation};

/// A node is not greeted more often for packets of a session that this one does not know.
const HINT_EVERY: Duration = Duration::from_secs(1);
/// How long a greeting for a new key waits for its answer: the other side may only just have learned
/// that key. The crate itself waits 5 s.
const GREETING_WAIT: Duration = Duration::from_millis(200);
/// A handshake is not repeated more often because of cookies.
const COOKIE_EVERY: Duration = Duration::from_secs(1);
/// Bytes of the longest packet that may wait in a session's queue, sealed.
const QUEUED: usize = 65_536 + 64;

impl Lane {
    /// The link for packets to a node: that of the first keys, or another one while they have no
    /// session yet. So a change of keys loses nothing.
    pub(super) fn route(&mut self, number: u64, node: &Node) -> Option<usize> {
        let own = self.setup.tables.own.first()?.public;
        let pair = Pair { own, peer: node.identities.first()?.public_key };
        let slot = self.links.ensure(pair, &means(&self.setup, self.number))?;
        if self.links.get(slot)?.live {
            return Some(slot);
        }
        match self.live_link(number) {
            None => Some(slot),
            Some(other) => {
                self.greet(slot);
                Some(other)
            }
        }
    }

    /// Some link of a node that has a session.
    fn live_link(&mut self, node: u64) -> Option<usize> {
        let slots = self.links.of_node(node).to_vec();
        slots.into_iter().find(|slot| self.links.get(*slot).is_some_and(|link| link.live))
    }

    /// Begins a handshake unless one is under way.
    fn initiate(&mut self, slot: usize) {
        let mut buffer = [0; HANDSHAKE];
        let Some(link) = self.links.get(slot) else { return };
        let begun = link.tunn.format_handshake_initiation(&mut buffer, false);
        if let TunnResult::WriteToNetwork(message) = begun {
            self.post(slot, message, None);
        }
    }

    /// Begins a handshake for a key that is not needed yet, again and again until it is answered.
    fn greet(&mut self, slot: usize) {
        let now = Instant::now();
        let mut buffer = [0; HANDSHAKE];
        let Some(link) = self.links.get(slot) else { return };
        if link.greeted.is_some_and(|last| now - last < GREETING_WAIT) {
            return;
        }
        let again = link.greeted.replace(now).is_some();
        let begun = link.tunn.format_handshake_initiation(&mut buffer, again);
        if let TunnResult::WriteToNetwork(message) = begun {
            self.post(slot, message, None);
        }
    }

    /// The nodes with a session on this lane whose packets do not go by the first keys yet.
    pub(super) fn moving(&mut self) -> BTreeSet<u64> {
        let tables = Arc::clone(&self.setup.tables);
        let Some(own) = tables.own.first().map(|own| own.public) else { return BTreeSet::new() };
        let mut moving = BTreeSet::new();
        for (number, node) in &tables.config.nodes {
            let Some(peer) = node.identities.first().map(|identity| identity.public_key) else {
                continue;
            };
            let pair = Pair { own, peer };
            let slots = self.links.of_node(*number).to_vec();
            let mut live = slots.iter().filter_map(|slot| self.links.pair_if_live(*slot));
            let any = live.next();
            if any.is_some() && any != Some(pair) && live.all(|other| other != pair) {
                moving.insert(*number);
            }
        }
        moving
    }

    /// New keys of nodes that are spoken to get their sessions before they are needed.
    pub(super) fn greet_new_keys(&mut self) {
        let tables = Arc::clone(&self.setup.tables);
        for (number, node) in &tables.config.nodes {
            if self.live_link(*number).is_none() {
                continue;
            }
            let peers = node.identities.iter().map(|identity| identity.public_key);
            for peer in peers {
                for own in tables.own.iter().map(|own| own.public) {
                    let pair = Pair { own, peer };
                    let slot = self.links.ensure(pair, &means(&self.setup, self.number));
                    if let Some(slot) = slot
                        && self.links.get(slot).is_some_and(|link| !link.live)
                    {
                        self.greet(slot);
                    }
                }
            }
        }
    }

    /// A packet came of a session that is not known, from where a node may be: one of the two was
    /// restarted. Greeting it costs one packet, and saves the 15 s until it would do so by itself.
    pub(super) fn hint(&mut self, source: SocketAddr) {
        let tables = Arc::clone(&self.setup.tables);
        for number in tables.places.get(&source.ip()).into_iter().flatten() {
            let now = Instant::now();
            let recent = self.hints.get(number).is_some_and(|last| now - *last < HINT_EVERY);
            let Some(node) = tables.config.nodes.get(number).filter(|_| !recent) else { continue };
            self.hints.insert(*number, now);
            if tables.lane_towards(node, self.number) == self.number
                && let Some(slot) = self.route(*number, node)
                && self.links.get(slot).is_some_and(|link| !link.live)
            {
                self.initiate(slot);
            }
        }
    }

    /// Answers an initiation that the verifier has found to be of a configured node.
    pub(super) fn answer(&mut self, initiation: &Initiation, pair: Pair) {
        let Some(slot) = self.links.ensure(pair, &means(&self.setup, self.number)) else { return };
        self.handshake_message(slot, &initiation.packet, initiation.source);
    }

    /// Takes a message of a handshake and sends what it calls for to where it came from.
    pub(super) fn handshake_message(&mut self, slot: usize, message: &[u8], source: SocketAddr) {
        let mut buffer = [0; HANDSHAKE];
        let Some(link) = self.links.get(slot) else { return };
        let node = link.node;
        match link.tunn.decapsulate(Some(source.ip()), message, &mut buffer) {
            TunnResult::WriteToNetwork(reply) => {
                if is_data(reply) {
                    // The handshake ended well, and this is its first packet.
                    link.live = true;
                    link.endpoint = source;
                }
                self.post(slot, reply, Some(source));
                self.send_queued(slot);
            }
            // A cookie: the handshake begins anew with it.
            TunnResult::Done => self.retry_with_cookie(slot),
            TunnResult::Err(error) => self.tally.dropped(Some(node), reason(&error)),
            TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => {}
        }
    }

    fn retry_with_cookie(&mut self, slot: usize) {
        let mut buffer = [0; HANDSHAKE];
        let now = Instant::now();
        let Some(link) = self.links.get(slot) else { return };
        if link.cookie.is_some_and(|last| now - last < COOKIE_EVERY) {
            return;
        }
        link.cookie = Some(now);
        let begun = link.tunn.format_handshake_initiation(&mut buffer, true);
        if let TunnResult::WriteToNetwork(message) = begun {
            self.post(slot, message, None);
        }
    }

    /// Sends what waited for the session.
    pub(super) fn send_queued(&mut self, slot: usize) {
        let mut buffer = vec![0; QUEUED];
        while let Some(link) = self.links.get(slot).filter(|link| link.live) {
            link.queued = 0;
            match link.tunn.decapsulate(None, &[], &mut buffer) {
                TunnResult::WriteToNetwork(message) => self.post(slot, message, None),
                TunnResult::Done
                | TunnResult::Err(_)
                | TunnResult::WriteToTunnelV4(..)
                | TunnResult::WriteToTunnelV6(..) => return,
            }
        }
    }

    /// Repeats handshakes, renews sessions, sends keepalives, and forgets what is over.
    pub(super) fn tick(&mut self, now: Instant) {
        for limiter in self.setup.limiters.values() {
            limiter.reset_count();
        }
        let mut buffer = [0; HANDSHAKE];
        for slot in self.links.all() {
            let Some(link) = self.links.get(slot) else { continue };
            match link.tunn.update_timers(&mut buffer) {
                TunnResult::WriteToNetwork(message) => self.post(slot, message, None),
                // It has emptied its queue too.
                TunnResult::Err(_) => link.queued = 0,
                TunnResult::Done
                | TunnResult::WriteToTunnelV4(..)
                | TunnResult::WriteToTunnelV6(..) => {}
            }
            if let Some(link) = self.links.get(slot) {
                link.look();
            }
        }
        self.greet_new_keys();
        self.keep_alive(now);
        self.links.forget_idle(now);
    }

    /// What keeps a mapping of an address translator, if that is wanted: the crate's own timer cannot
    /// be changed without losing the session.
    fn keep_alive(&mut self, now: Instant) {
        let tables = Arc::clone(&self.setup.tables);
        for (number, node) in &tables.config.nodes {
            let Some(seconds) = node.keepalive else { continue };
            if tables.lane_towards(node, self.number) != self.number {
                continue;
            }
            let Some(slot) = self.route(*number, node) else { continue };
            let Some(link) = self.links.get(slot) else { continue };
            if !link.live {
                self.initiate(slot);
            } else if now.saturating_duration_since(link.spoke).as_secs() >= seconds.into() {
                let mut buffer = [0; HANDSHAKE];
                if let TunnResult::WriteToNetwork(message) = link.tunn.encapsulate(&[], &mut buffer)
                {
                    self.post(slot, message, None);
                }
            }
        }
    }
}
