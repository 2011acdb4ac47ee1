//! What this node tells a Prometheus server of itself: read when somebody asks, at no cost before.
//!
//! [`read`] takes what the worker has already into a [`Reading`], [`families`] says what that means as
//! metrics (pure), [`family`] writes them.
//!
//! Labels are names and IDs of nodes and networks, and words of fixed lists; never keys, tokens or what
//! users put into containers. No metric has a series for each task, container or connection, and none has
//! more than [`SERIES_MAX`] series.

pub mod family;
mod kind;
mod of_local;
mod spread;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use weft_dns::server::{Origin, Outcome, Totals, WAITS};
use weft_model::{Assignments, Engine, State};
use weft_proto::v1::NodeLinksResponse;

pub use family::{Family, Labels, SERIES_MAX, Series, Unit, text};
pub use of_local::address_use;
pub use spread::{Histogram, Spread};

pub(crate) use kind::kind;

use crate::{
    container::{Found, Phase},
    desired::Sorted,
    plumbing::{Assigned, Standing},
    session::Contact,
    tunnel::Choice,
    worker::Worker,
};
use family::{counter, counters, gauge, gauges, histogram};

/// How long the runtime, or what carries encrypted links, may take to answer; what is not there by then is
/// left out of this answer.
const PATIENCE: Duration = Duration::from_millis(700);

/// What the worker had at one moment.
pub struct Reading {
    /// The session with the managers.
    pub contact: Contact,
    /// What they told.
    pub assigned: Assigned,
    /// The data plane.
    pub standing: Standing,
    /// What carries encrypted links.
    pub carrier: Choice,
    /// How they do; `None`: no answer in time.
    pub links: Option<NodeLinksResponse>,
    /// All containers; `None`: no answer in time.
    pub containers: Option<Vec<Found>>,
    /// The node's own networks and containers, if it has any.
    pub local: Option<Arc<State>>,
    /// Questions for names.
    pub names: Totals,
    /// Ports of the host that could not be had.
    pub port_conflicts: u64,
    /// Room on the disks of directories, by what they are for.
    pub rooms: Vec<(&'static str, Room)>,
}

/// Room on a disk, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// That we may still use.
    pub free: u64,
    /// There is.
    pub size: u64,
}

impl Room {
    /// Of the disk that this directory is on; `None` if it cannot be asked.
    pub fn of(directory: &Path) -> Option<Self> {
        let found = nix::sys::statvfs::statvfs(directory).ok()?;
        let block = found.fragment_size();
        Some(Self { free: found.blocks_available() * block, size: found.blocks() * block })
    }
}

/// Reads what the worker has. Takes a second at most.
pub async fn read(worker: &Worker, run_dir: &Path) -> Reading {
    let runtime = worker.runtime();
    let links = async {
        match worker.links() {
            Some(links) => links.look().await.ok(),
            None => Some(NodeLinksResponse::default()),
        }
    };
    let (links, containers) = tokio::join!(
        tokio::time::timeout(PATIENCE, links),
        tokio::time::timeout(PATIENCE, runtime.list()),
    );
    let directories = [("state", worker.state_dir().to_owned()), ("run", run_dir.to_owned())];
    let rooms = directories.into_iter().filter_map(|(name, dir)| Some((name, Room::of(&dir)?)));
    Reading {
        contact: worker.contact().borrow().clone(),
        assigned: worker.assigned().borrow().clone(),
        standing: worker.standing().borrow().clone(),
        carrier: worker.carrier(),
        links: links.ok().flatten(),
        containers: containers.ok().and_then(Result::ok),
        local: worker.local().map(|local| local.state()),
        names: worker.names().totals(),
        port_conflicts: runtime.port_conflicts(),
        rooms: rooms.collect(),
    }
}

/// What a reading means.
pub fn families(reading: &Reading) -> Vec<Family> {
    let assignments = &*reading.assigned.1;
    let sorted = Sorted::new(assignments);
    let mut all = session(&reading.contact, assignments, &reading.standing);
    all.extend(data_plane(&reading.standing));
    all.extend(members(reading, &sorted));
    all.extend(names(&reading.names));
    all.extend(links(reading));
    all.extend(of_local::families(reading.local.as_deref()));
    all.extend(rooms(&reading.rooms));
    let missing =
        [("containers", reading.containers.is_none()), ("links", reading.links.is_none())];
    all.push(gauges(
        "scrape_part_missing",
        "Whether a part of this answer is left out because it did not come in time",
        missing.map(|(part, missing)| (label("part", part), f64::from(u8::from(missing)))),
    ));
    all
}

fn label(name: &'static str, value: impl Into<String>) -> Labels {
    vec![(name, value.into())]
}

fn session(contact: &Contact, assignments: &Assignments, standing: &Standing) -> Vec<Family> {
    let help = "Whether the node is in session with a manager";
    vec![
        gauge("session_up", help, contact.manager.is_some()),
        gauge("managers_known", "Managers whose addresses this node knows", contact.managers.len()),
        gauge(
            "assignments_revision",
            "Revision of the assignments that the managers told last",
            assignments.revision,
        ),
        gauge(
            "assignments_revision_applied",
            "Revision of the assignments that the kernel agrees with",
            standing.revision,
        ),
    ]
}

fn data_plane(standing: &Standing) -> Vec<Family> {
    let failures = standing.failures.iter().map(|(kind, count)| (label("kind", *kind), *count));
    vec![
        histogram(
            "apply",
            "Time that looks at the kernel and the changes they led to took",
            standing.applying.histogram(),
        ),
        counters(
            "apply_failures",
            "Changes that the kernel refused, by what they were of",
            failures,
        ),
        counter(
            "repairs",
            "Objects put back after they were found missing or changed",
            standing.repairs,
        ),
        gauge("errors", "Changes that the kernel refused at the last look", standing.errors.len()),
        gauge(
            "troubled_sandboxes",
            "Containers whose network is not as wanted",
            standing.troubled.len(),
        ),
        gauge(
            "foreign_forward_drop",
            "Whether another firewall drops forwarded packets where no exception can be made",
            standing.foreign_drop,
        ),
    ]
}

fn members(reading: &Reading, sorted: &Sorted<'_>) -> Vec<Family> {
    let local = reading.local.as_ref().map_or(0, |local| local.networks().count());
    let networks = [("cluster", sorted.networks.len()), ("local", local)];
    let mut all = vec![
        gauges(
            "networks",
            "Networks that this node has a part in",
            networks.map(|(scope, count)| (label("scope", scope), count as f64)),
        ),
        gauge(
            "endpoints",
            "Members of the cluster's networks that this node knows, here and elsewhere",
            sorted.endpoints.len(),
        ),
        gauge(
            "sandboxes",
            "Namespaces on this node that are plumbed",
            reading.standing.sandboxes.len(),
        ),
        counter(
            "port_conflicts",
            "Starts refused because a published port of the host was in use",
            reading.port_conflicts,
        ),
    ];
    if let Some(found) = &reading.containers {
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for found in found {
            let is_task = found.id.as_str().parse().is_ok_and(|id| sorted.tasks.contains_key(&id));
            let kind = if is_task { "task" } else { "container" };
            *counts.entry((kind, word(&found.status.phase))).or_default() += 1;
        }
        let series = counts.into_iter().map(|((kind, state), count)| {
            (vec![("kind", kind.to_owned()), ("state", state.to_owned())], count as f64)
        });
        all.push(gauges(
            "containers",
            "Containers on this node by state; those of tasks apart",
            series,
        ));
    }
    all
}

fn word(phase: &Phase) -> &'static str {
    match phase {
        Phase::Created => "created",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Exited(_) => "exited",
        Phase::Failed { .. } => "failed",
    }
}

fn names(totals: &Totals) -> Vec<Family> {
    let origins = Origin::ALL.into_iter();
    let pairs = origins.flat_map(|origin| Outcome::ALL.map(|outcome| (origin, outcome)));
    let answers = pairs.map(|(origin, outcome)| {
        let labels = vec![
            ("origin", origin_word(origin).to_owned()),
            ("outcome", outcome_word(outcome).to_owned()),
        ];
        (labels, totals.answers(origin, outcome))
    });
    vec![
        counters(
            "dns_answers",
            "Answers to containers, by where they came from and what they say",
            answers,
        ),
        counter(
            "dns_unanswered",
            "Messages to the resolver that were no question and got no answer",
            totals.unanswered,
        ),
        histogram(
            "dns_upstream_wait",
            "Time that questions waited for an upstream name server; all others are answered from memory",
            Histogram::new(&WAITS, &totals.waits, totals.waited),
        ),
    ]
}

fn origin_word(origin: Origin) -> &'static str {
    match origin {
        Origin::Own => "own",
        Origin::Kept => "cache",
        Origin::Upstream => "upstream",
    }
}

fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::NoError => "noerror",
        Outcome::NxDomain => "nxdomain",
        Outcome::ServFail => "servfail",
        Outcome::Refused => "refused",
        Outcome::Other => "other",
    }
}

fn links(reading: &Reading) -> Vec<Family> {
    let Choice { engine, lanes, .. } = &reading.carrier;
    let engine = match engine {
        Engine::Kernel => "kernel",
        Engine::Userspace => "userspace",
    };
    let about = vec![("engine", engine.to_owned()), ("lanes", lanes.to_string())];
    let help = "What carries the encrypted links of this node";
    let mut all = vec![Family { name: "wireguard", help, unit: None, series: Series::Info(about) }];
    let Some(links) = &reading.links else { return all };
    let peers = || {
        links.peers.iter().map(|peer| {
            let labels =
                vec![("node_id", peer.node_id.clone()), ("hostname", peer.hostname.clone())];
            (labels, peer)
        })
    };
    let ages = peers().filter_map(|(labels, peer)| {
        let age = peer.handshake_age.as_ref()?;
        Some((labels, age.seconds as f64 + f64::from(age.nanos) / 1e9))
    });
    let drops = peers().flat_map(|(labels, peer)| {
        peer.drops.iter().map(move |(reason, count)| {
            let reason = [("reason", reason.clone())];
            (labels.clone().into_iter().chain(reason).collect(), *count)
        })
    });
    let nobody = links.drops.iter().map(|(reason, count)| (label("reason", reason), *count));
    all.extend([
        gauges(
            "link_handshake_age",
            "Time since the last handshake; absent before the first",
            ages,
        )
        .in_unit(Unit::Seconds),
        counters(
            "link_sent",
            "Sent over the encrypted link to a node, with all headers of WireGuard",
            peers().map(|(labels, peer)| (labels, peer.sent_bytes)),
        )
        .in_unit(Unit::Bytes),
        counters(
            "link_received",
            "Received over the encrypted link from a node, and authentic",
            peers().map(|(labels, peer)| (labels, peer.received_bytes)),
        )
        .in_unit(Unit::Bytes),
        counters("link_dropped_packets", "Packets of or for a node that were dropped", drops),
        counters(
            "link_dropped_packets_unattributed",
            "Packets of the encrypted links that were dropped before it was known whose they were",
            nobody,
        ),
    ]);
    all
}

fn rooms(rooms: &[(&'static str, Room)]) -> Vec<Family> {
    let series = |which: fn(&Room) -> u64| {
        rooms.iter().map(move |(name, room)| (label("directory", *name), which(room) as f64))
    };
    vec![
        gauges("disk_free", "Room left on the disk of a directory", series(|room| room.free))
            .in_unit(Unit::Bytes),
        gauges("disk_size", "Size of the disk of a directory", series(|room| room.size))
            .in_unit(Unit::Bytes),
    ]
}

#[cfg(test)]
mod tests;
