//! Whether a packet between two nodes would be lost because keys are rotated: what each engine of a
//! machine in memory sends with and to must be what the other one has.
//!
//! It is asked of pairs that are settled: both have members of one encrypted network which both know of,
//! in all assignments that may be in force there, from the last that were said to be applied to the
//! newest that have come.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use weft_model::{
    Assignments, AttachmentId, NetworkId, NodeId, Rotation, State,
    assignments::{Item, Key},
};
use weft_overlay::wire::Config;
use weft_proto::convert::session::AssignmentsUpdate;

use super::{daemon::host_name, host::Host, net::HostId, trace::Trace};

/// A member of an encrypted network, and where it is.
type Member = (NetworkId, AttachmentId, NodeId);

/// What a machine was told of keys and may go by. Clones are the same.
#[derive(Clone)]
pub(super) struct Told(Arc<Mutex<Inner>>);

struct Inner {
    name: String,
    trace: Trace,
    /// By revision: the first was applied, if there was such a word, the others may be.
    in_force: BTreeMap<u64, Facts>,
    applied: bool,
    /// Common to all of them.
    firm: Facts,
    /// Grows with every change.
    changes: u64,
}

/// What of one set of assignments is about encrypted networks.
#[derive(Clone, Default)]
struct Facts {
    node: Option<NodeId>,
    /// Its own generations.
    generations: Vec<u64>,
    /// Nodes whose keys it knows.
    peers: BTreeSet<NodeId>,
    members: BTreeSet<Member>,
}

impl Facts {
    fn new(assignments: &Assignments) -> Self {
        let mut facts = Self::default();
        let encrypted = |id: &NetworkId| {
            matches!(assignments.items.get(&Key::Network(*id)),
                Some(Item::Network(network)) if network.encrypted)
        };
        for (key, item) in &assignments.items {
            match (key, item) {
                (Key::Node, Item::Node(own)) => {
                    facts.node = Some(own.id);
                    let tunnel = own.tunnel.as_ref();
                    facts.generations =
                        tunnel.map(|tunnel| tunnel.generations.clone()).unwrap_or_default();
                }
                (Key::Peer(peer), _) => {
                    facts.peers.insert(*peer);
                }
                (Key::Endpoint(id), Item::Endpoint(member)) if encrypted(&member.network) => {
                    facts.members.insert((member.network, *id, member.node));
                }
                (
                    Key::Cluster
                    | Key::Node
                    | Key::Network(_)
                    | Key::Service(_)
                    | Key::Endpoint(_)
                    | Key::Task(_)
                    | Key::Foreign(_),
                    _,
                ) => {}
            }
        }
        facts
    }

    fn and(&self, other: &Self) -> Self {
        Self {
            node: self.node.filter(|node| other.node == Some(*node)),
            generations: other.generations.clone(),
            peers: self.peers.intersection(&other.peers).copied().collect(),
            members: self.members.intersection(&other.members).copied().collect(),
        }
    }
}

impl Told {
    pub(super) fn new(name: String, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            name,
            trace,
            in_force: BTreeMap::new(),
            applied: false,
            firm: Facts::default(),
            changes: 0,
        })))
    }

    /// The assignments of a session have come, or changes to them: `known` are those so far.
    pub(super) fn hear(&self, known: &mut Assignments, update: &AssignmentsUpdate) {
        if update.complete {
            *known = Assignments::default();
        }
        known.take(update.changes.clone(), update.results_in);
        self.lock().hear(known);
    }

    /// The machine says that it has applied the assignments of this revision.
    pub(super) fn applied(&self, revision: u64) {
        let mut inner = self.lock();
        let before = inner.in_force.range(..=revision).next_back().map(|(revision, _)| *revision);
        if let Some(before) = before {
            inner.in_force = inner.in_force.split_off(&before);
            inner.applied = true;
            inner.settle();
        }
    }

    /// The machine is made anew.
    pub(super) fn erase(&self) {
        let mut inner = self.lock();
        inner.in_force.clear();
        inner.applied = false;
        inner.settle();
    }

    pub(super) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Each change is whole before anything in it can panic.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn hear(&mut self, assignments: &Assignments) {
        let facts = Facts::new(assignments);
        if let Some((_, before)) = self.in_force.last_key_value()
            && let ([to, _], [only]) = (&before.generations[..], &facts.generations[..])
            && to == only
        {
            self.trace.note(&self.name, format!("a key is rotated: generation {only}"));
        }
        // A leader that is just elected may tell of an older state than the one before.
        self.in_force.insert(assignments.revision, facts);
        self.settle();
    }

    fn settle(&mut self) {
        self.changes += 1;
        let all = self.in_force.values().cloned();
        let firm = all.reduce(|one, other| one.and(&other)).unwrap_or_default();
        self.firm = if self.applied { firm } else { Facts::default() };
    }
}

/// Packets that would be lost though both ends are settled, and how many ways were looked at.
pub(super) fn lost(hosts: &[Host]) -> (Vec<String>, u64) {
    let known: Vec<_> = hosts
        .iter()
        .filter_map(|host| {
            let firm = host.site.told.lock().firm.clone();
            let config = host.site.machine.lock().kernel.engine.config.without_private_keys();
            // Without a key nothing is sent at all: the machine has lost its power.
            (!config.identities.is_empty()).then(|| (host.id(), firm, config))
        })
        .collect();
    let (mut found, mut ways) = (Vec::new(), 0);
    for (from, sender, sends) in &known {
        for (to, receiver, takes) in &known {
            if from == to || !settled(sender, receiver) {
                continue;
            }
            ways += 1;
            if let Some(why) = refused(sends, takes) {
                found.push(format!("{} sends to {}: {why}", host_name(*from), host_name(*to)));
            }
        }
    }
    (found, ways)
}

/// Machines whose nodes have an encrypted network in common, both ways, with the node of the first.
pub(super) fn pairs(hosts: &[Host]) -> Vec<(HostId, HostId, NodeId)> {
    let known: Vec<_> =
        hosts.iter().map(|host| (host.id(), host.site.told.lock().firm.clone())).collect();
    let mut found = Vec::new();
    for (one, facts) in &known {
        let others = known.iter().filter(|(other, theirs)| one != other && settled(facts, theirs));
        found.extend(others.filter_map(|(other, _)| Some((*one, *other, facts.node?))));
    }
    found
}

/// Whether both have a member of one encrypted network which both know.
fn settled(one: &Facts, other: &Facts) -> bool {
    let (Some(a), Some(b)) = (one.node, other.node) else { return false };
    let knows = one.peers.contains(&b) && other.peers.contains(&a);
    let common: Vec<_> = one.members.intersection(&other.members).collect();
    let on = |node| common.iter().filter(move |member| member.2 == node).map(|member| member.0);
    let networks: BTreeSet<NetworkId> = on(a).collect();
    knows && on(b).any(|network| networks.contains(&network))
}

/// Why a packet of one engine is not taken by the other. Nodes are told apart by their addresses in the
/// tunnel, which follow from their numbers.
fn refused(sends: &Config, takes: &Config) -> Option<String> {
    let (from, own) = (sends.identities.first()?, &takes.identities);
    let is_own = |address| own.iter().any(|identity| identity.address == address);
    let to = sends.nodes.values().find(|node| node.identities.iter().any(|id| is_own(id.address)));
    let Some(to) = to.and_then(|node| node.identities.first()) else {
        return Some("it does not know where".to_owned());
    };
    let at = |identity: &&weft_overlay::wire::Identity| identity.address == to.address;
    // What shows itself shows the public half in the place of the private one.
    if own.iter().find(at).is_none_or(|identity| identity.private_key != to.public_key) {
        return Some(format!("to a key at {} that is not there", to.address));
    }
    let mut keys = takes.nodes.values().flat_map(|node| &node.identities);
    let known = keys.any(|key| key.public_key == from.private_key && key.address == from.address);
    (!known).then(|| format!("with a key at {} that is not known there", from.address))
}

/// Keys that are missing, or whose rotation goes on.
pub(super) fn unrest(state: &State) -> Vec<String> {
    let unsettled = state.nodes().filter_map(|node| match &node.tunnel {
        None => Some(format!("{} has no key", node.description.hostname)),
        Some(tunnel) if tunnel.rotation != Rotation::Idle => {
            Some(format!("{} rotates its key: {:?}", node.description.hostname, tunnel.rotation))
        }
        Some(_) => None,
    });
    unsettled.collect()
}

/// Keys that an engine knows and no member has.
pub(super) fn leftover(hosts: &[Host], state: &State) -> Vec<String> {
    let tunnels = state.nodes().filter_map(|node| node.tunnel.as_ref());
    let known: BTreeSet<[u8; 32]> =
        tunnels.flat_map(|tunnel| tunnel.keys()).map(|key| key.public.0).collect();
    let mut found = Vec::new();
    for host in hosts {
        let config = host.site.machine.lock().kernel.engine.config.clone();
        for identity in config.nodes.values().flat_map(|node| &node.identities) {
            if !known.contains(&identity.public_key.0) {
                found.push(format!("{} knows a key that no member has", host_name(host.id())));
            }
        }
    }
    found
}
