//! The keys of the encrypted links: said by nodes, rotated by make before break.

use std::{collections::BTreeSet, sync::Arc};

use super::{State, not_found};
use crate::{
    command::Applied,
    id::{NetworkId, NodeId},
    object::{Attachment, Node},
    rejected::Rejected,
    spec::Invalid,
    time::Time,
    tunnel::{
        GENERATION_MAX, KEYS_MAX, LANES_MAX, NodeKey, PublicKey, Rotation, Tunnel, TunnelReport,
    },
};

/// Most bytes of the words that say why an engine is used.
const REASON_MAX: usize = 1_000;

impl State {
    /// Takes in what a node says of its engine and its keys. A node that has lost its keys starts with
    /// the new ones at once: there is nothing left that could be kept whole.
    pub(super) fn report_tunnel(
        &mut self,
        id: NodeId,
        report: &TunnelReport,
    ) -> Result<Applied, Rejected> {
        let node = self.node(id).ok_or_else(|| not_found("node", id))?;
        check(report)?;
        self.refuse_known_keys(id, report)?;
        let next = self.heard(node, report);
        if node.tunnel == next {
            return Ok(Applied::of(id));
        }
        self.change_node(id, |node| node.tunnel = next)
    }

    /// Whether a node's report would change nothing, so that it need not be written.
    pub fn knows_tunnel(&self, id: NodeId, report: &TunnelReport) -> bool {
        self.node(id).is_some_and(|node| node.tunnel == self.heard(node, report))
    }

    /// A node's end of the encrypted links after this report.
    fn heard(&self, node: &Node, report: &TunnelReport) -> Option<Tunnel> {
        match &node.tunnel {
            None => fresh(report, self.now),
            Some(known) => updated(known, report, self.revision(), self.now),
        }
    }

    /// Begins the change to another key than that of `generation`, or goes on with it: `from` is where
    /// it must stand. To begin what has begun, or is done, changes nothing; to go on from where it does
    /// not stand any more is refused.
    pub(super) fn rotate_key(
        &mut self,
        id: NodeId,
        generation: u64,
        from: &Rotation,
    ) -> Result<Applied, Rejected> {
        let node = self.node(id).ok_or_else(|| not_found("node", id))?;
        let name = node.description.hostname.clone();
        let Some(tunnel) = &node.tunnel else { return Err(no_engine(&name)) };
        let stands = tunnel.rotation == *from && tunnel.current.generation == generation;
        let (revision, now) = (self.revision(), self.now);
        let mut next = tunnel.clone();
        match *from {
            Rotation::Idle if !stands => return Ok(Applied::of(id)),
            Rotation::Idle => next.rotation = Rotation::Wanted,
            // The node's own word brings it further.
            Rotation::Wanted => return Ok(Applied::of(id)),
            Rotation::Distributed { .. } | Rotation::Switched { .. } if !stands => {
                return Err(Rejected::Forbidden {
                    what: format!("the key of node {name} cannot be rotated"),
                    why: "its rotation has already gone further".to_owned(),
                    hint: format!("weft node inspect {name} shows how far it is"),
                });
            }
            Rotation::Distributed { next: key, .. } => {
                next.rotation = Rotation::Switched { former: tunnel.current, at: revision };
                next.current = key;
                next.since = now;
            }
            Rotation::Switched { .. } => next.rotation = Rotation::Idle,
        }
        self.change_node(id, |node| node.tunnel = Some(next))
    }

    /// The nodes that have an attachment on an encrypted network that this node has one on, too,
    /// whether they have said a key or not.
    pub fn peers(&self, node: NodeId) -> BTreeSet<NodeId> {
        let on = |a: &Attachment| self.network(a.network).is_some_and(|network| network.encrypted);
        let own = self.attachments().filter(|a| a.node == Some(node) && on(a));
        let shared: BTreeSet<NetworkId> = own.map(|attachment| attachment.network).collect();
        if shared.is_empty() {
            return BTreeSet::new();
        }
        let on_shared = self.attachments().filter(|a| shared.contains(&a.network));
        let others = on_shared.filter_map(|a| a.node).filter(|other| *other != node);
        others.filter(|other| self.node(*other).is_some()).collect()
    }

    /// Two nodes with one key would get each other's packets.
    fn refuse_known_keys(&self, id: NodeId, report: &TunnelReport) -> Result<(), Rejected> {
        let has = |node: &&Arc<Node>| {
            let keys = node.tunnel.as_ref().map(Tunnel::keys).unwrap_or_default();
            node.id != id && keys.iter().any(|key| is_said(report, key.public))
        };
        self.nodes().find(has).map_or(Ok(()), |other| {
            let name = &other.description.hostname;
            Err(Rejected::Forbidden {
                what: "a WireGuard key is refused".to_owned(),
                why: format!("node {name} has it: the state directory was copied"),
                hint: "remove STATE_DIR/wireguard on the copy and start its daemon again"
                    .to_owned(),
            })
        })
    }
}

fn is_said(report: &TunnelReport, key: PublicKey) -> bool {
    report.keys.values().any(|said| *said == key)
}

fn check(report: &TunnelReport) -> Result<(), Rejected> {
    let keys = &report.keys;
    if keys.is_empty() || keys.len() > KEYS_MAX {
        let reason = format!("a node has from 1 to {KEYS_MAX}");
        return Err(Invalid::new("WireGuard keys", keys.len(), reason).into());
    }
    if let Some(wrong) = keys.keys().find(|generation| !(1..=GENERATION_MAX).contains(*generation))
    {
        let reason = format!("must be from 1 to {GENERATION_MAX}");
        return Err(Invalid::new("generation of a WireGuard key", wrong, reason).into());
    }
    let distinct: BTreeSet<_> = keys.values().collect();
    if distinct.len() != keys.len() {
        let reason = "each generation has a key of its own";
        return Err(Invalid::new("WireGuard keys", keys.len(), reason).into());
    }
    if report.lanes == 0 || report.lanes > LANES_MAX {
        let reason = format!("must be from 1 to {LANES_MAX}");
        return Err(Invalid::new("WireGuard lanes", report.lanes, reason).into());
    }
    if report.reason.len() > REASON_MAX {
        let reason = format!("at most {REASON_MAX} bytes");
        return Err(Invalid::new("reason of the engine", report.reason.len(), reason).into());
    }
    Ok(())
}

/// With the newest key that the node has: if it is of an earlier generation, others know it yet.
fn fresh(report: &TunnelReport, now: Time) -> Option<Tunnel> {
    let (generation, public) = report.keys.last_key_value()?;
    let current = NodeKey { generation: *generation, public: *public };
    Some(tunnel(report, current, now, Rotation::Idle))
}

fn updated(known: &Tunnel, report: &TunnelReport, revision: u64, now: Time) -> Option<Tunnel> {
    let has = |key: NodeKey| report.keys.get(&key.generation) == Some(&key.public);
    if !has(known.current) {
        return fresh(report, now);
    }
    let after = known.current.generation + 1;
    let said = report.keys.get(&after).map(|public| NodeKey { generation: after, public: *public });
    let rotation = match (known.rotation, said) {
        (Rotation::Wanted, Some(next)) => Rotation::Distributed { next, at: revision },
        // It has another one than the one that was handed on.
        (Rotation::Distributed { next, .. }, Some(said)) if said != next => {
            Rotation::Distributed { next: said, at: revision }
        }
        // It has lost it, and is to make another.
        (Rotation::Distributed { .. }, None) => Rotation::Wanted,
        // It has lost it, and whoever sends to it yet sends in vain.
        (Rotation::Switched { former, .. }, _) if !has(former) => Rotation::Idle,
        (same, _) => same,
    };
    Some(tunnel(report, known.current, known.since, rotation))
}

fn tunnel(report: &TunnelReport, current: NodeKey, since: Time, rotation: Rotation) -> Tunnel {
    Tunnel {
        engine: report.engine,
        reason: report.reason.clone(),
        lanes: report.lanes,
        current,
        since,
        rotation,
    }
}

fn no_engine(name: &str) -> Rejected {
    Rejected::Forbidden {
        what: format!("the key of node {name} cannot be rotated"),
        why: "it has not said one yet".to_owned(),
        hint: format!("wait until weft node inspect {name} shows its WireGuard key"),
    }
}
