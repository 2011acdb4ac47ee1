//! What a lane counts.

use std::{collections::BTreeMap, time::Duration};

use crate::{PeerStatus, Reason};

/// Counters since the engine began.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    peers: BTreeMap<u64, PeerStatus>,
    strangers: BTreeMap<Reason, u64>,
}

impl Tally {
    /// A packet of this node, or for it, was dropped; `None` when nobody knows whose it was.
    pub fn dropped(&mut self, node: Option<u64>, reason: Reason) {
        self.dropped_many(node, reason, 1);
    }

    /// The same for several packets.
    pub fn dropped_many(&mut self, node: Option<u64>, reason: Reason, packets: u64) {
        let drops = match node {
            Some(node) => &mut self.peer(node).drops,
            None => &mut self.strangers,
        };
        *drops.entry(reason).or_default() += packets;
    }

    /// The counters of one node.
    pub fn peer(&mut self, node: u64) -> &mut PeerStatus {
        self.peers.entry(node).or_default()
    }

    /// Forgets the nodes that are gone.
    pub fn keep(&mut self, wanted: impl Fn(u64) -> bool) {
        self.peers.retain(|node, _| wanted(*node));
    }

    /// Adds up what several lanes have counted.
    pub fn merge(&mut self, other: Self) {
        for (node, theirs) in other.peers {
            let ours = self.peer(node);
            ours.endpoint = ours.endpoint.or(theirs.endpoint);
            ours.handshake_age = youngest(ours.handshake_age, theirs.handshake_age);
            ours.sent += theirs.sent;
            ours.received += theirs.received;
            add(&mut ours.drops, theirs.drops);
        }
        add(&mut self.strangers, other.strangers);
    }

    /// By node, and what belongs to no node.
    pub fn into_parts(self) -> (BTreeMap<u64, PeerStatus>, BTreeMap<Reason, u64>) {
        (self.peers, self.strangers)
    }
}

/// The shorter of two times, of which none is no time at all.
pub fn youngest(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.into_iter().chain(b).min()
}

fn add(to: &mut BTreeMap<Reason, u64>, from: BTreeMap<Reason, u64>) {
    for (reason, count) in from {
        *to.entry(reason).or_default() += count;
    }
}
