//! All links of one lane, and the ways to find them.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use boringtun::{
    noise::{Tunn, rate_limiter::RateLimiter},
    x25519::PublicKey,
};

use super::link::{Link, Pair};
use crate::{Key, sys::Udp, tables::Tables};

/// Bits of a session's index that name the link; the crate counts sessions in the rest.
const LINK_BITS: u32 = 24;
/// How long a link without a session is kept. The crate gives up a handshake after 90 s.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// What a lane needs to make a link.
pub struct Means<'a> {
    pub tables: &'a Tables,
    /// Number of the lane.
    pub lane: usize,
    /// This node's sockets on the lane, by port.
    pub sockets: &'a BTreeMap<u16, Arc<Udp>>,
    /// By identity of this node.
    pub limiters: &'a BTreeMap<Key, Arc<RateLimiter>>,
}

/// The links, each with a slot that is its own while it lives.
#[derive(Default)]
pub struct Links {
    slots: Vec<Option<Box<Link>>>,
    by_index: HashMap<u32, usize>,
    by_pair: BTreeMap<Pair, usize>,
    by_node: BTreeMap<u64, Vec<usize>>,
}

impl Links {
    /// The link in a slot.
    pub fn get(&mut self, slot: usize) -> Option<&mut Link> {
        self.slots.get_mut(slot)?.as_deref_mut()
    }

    /// The slot of the link whose session a packet names.
    pub fn by_session(&self, session: u32) -> Option<usize> {
        self.by_index.get(&(session >> 8)).copied()
    }

    /// The keys of the link in a slot, if it has a session.
    pub fn pair_if_live(&self, slot: usize) -> Option<Pair> {
        let link = self.slots.get(slot)?.as_deref()?;
        link.live.then_some(link.pair)
    }

    /// The slots of one node's links.
    pub fn of_node(&self, node: u64) -> &[usize] {
        self.by_node.get(&node).map_or(&[], Vec::as_slice)
    }

    /// The slots of all links.
    pub fn all(&self) -> Vec<usize> {
        self.by_pair.values().copied().collect()
    }

    pub fn is_empty(&self) -> bool {
        self.by_pair.is_empty()
    }

    /// The slot of a pair that is configured; it is made if need be.
    pub fn ensure(&mut self, pair: Pair, means: &Means<'_>) -> Option<usize> {
        if let Some(slot) = self.by_pair.get(&pair) {
            return Some(*slot);
        }
        let own = means.tables.own_of(&pair.own)?;
        let (node, configured, identity) = means.tables.peer_of(&pair.peer)?;
        let socket = Arc::clone(means.sockets.get(own.ports.get(means.lane)?)?);
        let limiter = Arc::clone(means.limiters.get(&pair.own)?);
        let place = SocketAddr::new(configured.endpoint, *identity.ports.get(means.lane)?);
        // A node that was heard elsewhere is there with its other keys too.
        let heard = self.of_node(node).iter().filter_map(|slot| self.slots.get(*slot)?.as_ref());
        let moved = heard.filter(|link| link.live).map(|link| link.endpoint.ip()).next();
        let index = self.free_index();
        let tunn = Tunn::new(
            own.secret.clone(),
            PublicKey::from(pair.peer.0),
            None,
            None,
            index,
            Some(limiter),
        );
        let link = Link {
            pair,
            node,
            own_address: own.address,
            peer_address: identity.address,
            endpoint: SocketAddr::new(moved.unwrap_or(place.ip()), place.port()),
            configured: place,
            socket,
            tunn,
            live: false,
            queued: 0,
            spoke: Instant::now(),
            cookie: None,
            greeted: None,
        };
        let slot = self.free_slot();
        self.slots[slot] = Some(Box::new(link));
        self.by_index.insert(index, slot);
        self.by_pair.insert(pair, slot);
        self.by_node.entry(node).or_default().push(slot);
        Some(slot)
    }

    /// Random, so that who does not see the packets cannot guess it.
    fn free_index(&self) -> u32 {
        loop {
            let index = rand::random::<u32>() >> (u32::BITS - LINK_BITS);
            if !self.by_index.contains_key(&index) {
                return index;
            }
        }
    }

    fn free_slot(&mut self) -> usize {
        if let Some(slot) = self.slots.iter().position(Option::is_none) {
            return slot;
        }
        self.slots.push(None);
        self.slots.len() - 1
    }

    /// Drops the links whose pair is configured no longer, and moves those whose place was configured
    /// anew; all others stay as they are.
    pub fn follow(&mut self, means: &Means<'_>) {
        self.keep(|link| match wanted_place(link, means) {
            None => false,
            Some(place) => {
                if place != link.configured {
                    link.configured = place;
                    link.endpoint = place;
                }
                true
            }
        });
    }

    /// Drops the links that have had no session for long: a node that is never spoken to costs nothing.
    pub fn forget_idle(&mut self, now: Instant) {
        self.keep(|link| link.live || now.saturating_duration_since(link.spoke) < FORGOTTEN_AFTER);
    }

    fn keep(&mut self, mut wanted: impl FnMut(&mut Link) -> bool) {
        for slot in &mut self.slots {
            if slot.as_mut().is_some_and(|link| !wanted(link)) {
                *slot = None;
            }
        }
        let slots = &self.slots;
        let used = |slot: &usize| slots[*slot].is_some();
        self.by_index.retain(|_, slot| used(slot));
        self.by_pair.retain(|_, slot| used(slot));
        for links in self.by_node.values_mut() {
            links.retain(|slot| used(slot));
        }
        self.by_node.retain(|_, links| !links.is_empty());
    }
}

/// Where the configuration has the other side of a link, if it still has both sides as they are.
fn wanted_place(link: &Link, means: &Means<'_>) -> Option<SocketAddr> {
    let own = means.tables.own_of(&link.pair.own)?;
    let (node, configured, identity) = means.tables.peer_of(&link.pair.peer)?;
    let socket = means.sockets.get(own.ports.get(means.lane)?)?;
    let same = node == link.node
        && own.address == link.own_address
        && identity.address == link.peer_address
        && Arc::ptr_eq(socket, &link.socket);
    let port = identity.ports.get(means.lane)?;
    same.then(|| SocketAddr::new(configured.endpoint, *port))
}
