//! Rotation of the encrypted links' keys, by make before break: a phase begins when all who have to
//! know of the one before have applied it. Nobody is skipped: a node that is away holds the rotations
//! of its peers until it is back, or is no member any more.
//!
//! Who has applied what is the leader's memory. A new leader has none, and waits to be told.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use weft_model::{Command, NetworkId, Node, NodeId, Rotation, State, Time, Tunnel};

use super::Step;

/// Rotations that are begun by age while as many go on wait: each makes all peers of its node
/// reconfigure three times.
const ROTATING_MAX: usize = 4;
/// Keys of one age are rotated over the last eighth of the period.
const SPREAD: u32 = 8;
/// In so many steps, by the nodes' numbers.
const STEPS: u32 = 32;

/// The revision that each node with a session has applied.
pub(crate) type Applied = BTreeMap<NodeId, u64>;

/// Looks at the keys of all nodes, and decides which rotations go on and which begin.
pub(crate) fn step(state: &State, applied: &Applied, now: Time) -> Step {
    let mut step = Step::default();
    let lags = Lags::new(state, applied);
    let mut moving = 0;
    for (node, tunnel) in tunnels(state) {
        match progress(&lags, node, tunnel) {
            Progress::None | Progress::Held => {}
            Progress::Waits => moving += 1,
            Progress::Next => {
                moving += 1;
                step.commands.push(rotate(node, tunnel));
            }
        }
    }
    begin(state, now, moving, &mut step);
    step
}

/// Whether the next step depends on what nodes apply.
pub(crate) fn awaits_nodes(state: &State) -> bool {
    tunnels(state).any(|(_, tunnel)| since(tunnel).is_some())
}

/// The nodes that the rotation of this one waits for.
pub(crate) fn waits_for(state: &State, applied: &Applied, node: &Node) -> Vec<NodeId> {
    let Some(tunnel) = &node.tunnel else { return Vec::new() };
    let Some(at) = since(tunnel) else {
        return if tunnel.rotation == Rotation::Wanted { vec![node.id] } else { Vec::new() };
    };
    let mut asked = state.peers(node.id);
    asked.insert(node.id);
    asked.into_iter().filter(|id| applied.get(id).is_none_or(|applied| *applied < at)).collect()
}

/// How far a rotation is.
enum Progress {
    /// None is going on.
    None,
    /// Somebody who is away is waited for.
    Held,
    /// Nodes are waited for that are in touch.
    Waits,
    /// Everybody has applied the present phase.
    Next,
}

fn progress(lags: &Lags<'_>, node: &Node, tunnel: &Tunnel) -> Progress {
    let Some(at) = since(tunnel) else {
        return match tunnel.rotation {
            Rotation::Wanted if node.in_touch() => Progress::Waits,
            Rotation::Wanted => Progress::Held,
            Rotation::Idle | Rotation::Distributed { .. } | Rotation::Switched { .. } => {
                Progress::None
            }
        };
    };
    let lag = lags.around(node);
    if lag.all >= at {
        Progress::Next
    } else if lag.away < at {
        Progress::Held
    } else {
        Progress::Waits
    }
}

/// The revision that all must have applied before the next phase, if that is what is waited for.
fn since(tunnel: &Tunnel) -> Option<u64> {
    match tunnel.rotation {
        Rotation::Idle | Rotation::Wanted => None,
        Rotation::Distributed { at, .. } | Rotation::Switched { at, .. } => Some(at),
    }
}

/// The lowest revisions that some nodes have applied.
#[derive(Clone, Copy)]
struct Lag {
    /// Of all of them.
    all: u64,
    /// Of those that are out of touch.
    away: u64,
}

impl Lag {
    /// Of no nodes at all.
    const NONE: Self = Self { all: u64::MAX, away: u64::MAX };

    fn and(self, other: Self) -> Self {
        Self { all: self.all.min(other.all), away: self.away.min(other.away) }
    }
}

/// How far the nodes on each encrypted network are, found in one pass: there may be many rotations
/// that wait for one node.
struct Lags<'a> {
    applied: &'a Applied,
    networks: BTreeMap<NetworkId, Lag>,
    /// Of the nodes whose rotations wait for others.
    of_rotating: BTreeMap<NodeId, BTreeSet<NetworkId>>,
}

impl<'a> Lags<'a> {
    fn new(state: &State, applied: &'a Applied) -> Self {
        let waiting = tunnels(state).filter(|(_, tunnel)| since(tunnel).is_some());
        let of_rotating = waiting.map(|(node, _)| (node.id, BTreeSet::new())).collect();
        let mut lags = Self { applied, networks: BTreeMap::new(), of_rotating };
        if lags.of_rotating.is_empty() {
            return lags;
        }
        for attachment in state.attachments() {
            let network = attachment.network;
            let encrypted = state.network(network).is_some_and(|network| network.encrypted);
            let Some(node) = attachment.node.and_then(|id| state.node(id)).filter(|_| encrypted)
            else {
                continue;
            };
            let lag = lags.of(node);
            let known = lags.networks.entry(network).or_insert(Lag::NONE);
            *known = known.and(lag);
            if let Some(networks) = lags.of_rotating.get_mut(&node.id) {
                networks.insert(network);
            }
        }
        lags
    }

    /// Of one node.
    fn of(&self, node: &Node) -> Lag {
        let all = self.applied.get(&node.id).copied().unwrap_or_default();
        Lag { all, away: if node.in_touch() { u64::MAX } else { all } }
    }

    /// Of a node whose rotation waits, and of its peers.
    fn around(&self, node: &Node) -> Lag {
        let networks = self.of_rotating.get(&node.id).into_iter().flatten();
        let lags = networks.filter_map(|network| self.networks.get(network));
        lags.fold(self.of(node), |lag, other| lag.and(*other))
    }
}

/// Begins the rotations of keys that are old enough, the oldest first.
fn begin(state: &State, now: Time, moving: usize, step: &mut Step) {
    let period = state.cluster().and_then(|cluster| cluster.spec.key_rotation);
    let Some(period) = period else { return };
    let idle = tunnels(state).filter(|(_, tunnel)| tunnel.rotation == Rotation::Idle);
    // One that is away begins when it is back.
    let mut due: Vec<_> = idle
        .filter(|(node, _)| node.in_touch())
        .map(|(node, tunnel)| (tunnel.since + age(period, node.number), node, tunnel))
        .collect();
    due.sort_by_key(|(at, node, _)| (*at, node.number));
    let (ripe, later) = due.split_at(due.partition_point(|(at, ..)| *at <= now));
    let room = ROTATING_MAX.saturating_sub(moving);
    step.commands.extend(ripe.iter().take(room).map(|(_, node, tunnel)| rotate(node, tunnel)));
    // Those for which there is no room are looked at when one of the others has come further.
    step.wake_at = later.first().map(|(at, ..)| *at);
}

/// The age at which a node's key is replaced: not all at once, and never later than the period says.
fn age(period: Duration, number: u64) -> Duration {
    let step = u32::try_from(number % u64::from(STEPS)).unwrap_or_default();
    period - period / SPREAD / STEPS * step
}

fn rotate(node: &Node, tunnel: &Tunnel) -> Command {
    Command::RotateKey { id: node.id, generation: tunnel.current.generation, from: tunnel.rotation }
}

/// The nodes that have said their keys.
fn tunnels(state: &State) -> impl Iterator<Item = (&Node, &Tunnel)> {
    state.nodes().filter_map(|node| Some((&**node, node.tunnel.as_ref()?)))
}

#[cfg(test)]
mod tests;
