//! The keys of the encrypted links: said by nodes, rotated by make before break.

use std::sync::Arc;

use super::{State, not_found};
use crate::{
    command::Applied,
    id::NodeId,
    object::Node,
    rejected::Rejected,
    spec::Invalid,
    tunnel::{LANES_MAX, NodeKey, PublicKey, Rotation, Tunnel, TunnelReport},
};

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
        let revision = self.revision();
        let next = match &node.tunnel {
            None => fresh(report, self.now),
            Some(known) => updated(known, report, revision, self.now),
        };
        if node.tunnel.as_ref() == Some(&next) {
            return Ok(Applied::of(id));
        }
        self.change_node(id, |node| node.tunnel = Some(next))
    }

    /// Begins, or goes on with, the change to another key: `from` is where it must stand.
    pub(super) fn rotate_key(&mut self, id: NodeId, from: &Rotation) -> Result<Applied, Rejected> {
        let node = self.node(id).ok_or_else(|| not_found("node", id))?;
        let name = node.description.hostname.clone();
        let Some(tunnel) = &node.tunnel else { return Err(no_engine(&name)) };
        if tunnel.rotation != *from {
            return Err(Rejected::Forbidden {
                what: format!("the key of node {name} cannot be rotated"),
                why: "its rotation has already gone further".to_owned(),
                hint: format!("weft node inspect {name} shows how far it is"),
            });
        }
        let (revision, now) = (self.revision(), self.now);
        let mut next = tunnel.clone();
        match tunnel.rotation {
            Rotation::Idle => next.rotation = Rotation::Wanted,
            // The node's own word brings it further.
            Rotation::Wanted => return Ok(Applied::of(id)),
            Rotation::Distributed { next: key, .. } => {
                next.rotation = Rotation::Switched { former: tunnel.current, at: revision };
                next.current = key;
                next.since = now;
            }
            Rotation::Switched { .. } => next.rotation = Rotation::Idle,
        }
        self.change_node(id, |node| node.tunnel = Some(next))
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
    if report.keys.is_empty() {
        return Err(Invalid::new("WireGuard keys", "", "a node has at least one").into());
    }
    if report.lanes == 0 || report.lanes > LANES_MAX {
        let reason = format!("must be from 1 to {LANES_MAX}");
        return Err(Invalid::new("WireGuard lanes", report.lanes, reason).into());
    }
    Ok(())
}

fn newest(report: &TunnelReport) -> Option<NodeKey> {
    let (generation, public) = report.keys.last_key_value()?;
    Some(NodeKey { generation: *generation, public: *public })
}

fn fresh(report: &TunnelReport, now: crate::Time) -> Tunnel {
    Tunnel {
        engine: report.engine,
        reason: report.reason.clone(),
        lanes: report.lanes,
        current: newest(report).unwrap_or(NodeKey { generation: 0, public: PublicKey([0; 32]) }),
        since: now,
        rotation: Rotation::Idle,
    }
}

fn updated(known: &Tunnel, report: &TunnelReport, revision: u64, now: crate::Time) -> Tunnel {
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
        (Rotation::Distributed { .. }, None) => Rotation::Wanted,
        (Rotation::Switched { former, .. }, _) if !has(former) => Rotation::Idle,
        (same, _) => same,
    };
    Tunnel {
        engine: report.engine,
        reason: report.reason.clone(),
        lanes: report.lanes,
        current: known.current,
        since: known.since,
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
