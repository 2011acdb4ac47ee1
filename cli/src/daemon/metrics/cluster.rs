//! What a member knows of itself, and a manager of its cluster. Only the leader's word on nodes and tasks is
//! the newest; every manager tells what it has applied.

use std::collections::BTreeMap;

use weft_manager::{
    manager::Manager,
    store::{Proposals, Role, Status},
};
use weft_model::{State, Time, object::Node as Member};
use weft_worker::metrics::{
    Family, Labels, Unit, address_use,
    family::{counter, gauge, gauges},
};

use crate::daemon::{node::Node, renewal};

/// The node's membership and certificate.
pub fn membership(node: &Node) -> Vec<Family> {
    let joined = node.joined();
    let manager = node.manager();
    let mut all = vec![
        gauge("cluster_member", "Whether the node is in a cluster", joined.is_some()),
        gauge("manager", "Whether the node is a manager", manager.is_some()),
    ];
    all.extend(joined.map(|joined| {
        let help = "When the node's own certificate ends, since 1970";
        gauge("certificate_expiry_timestamp", help, seconds(renewal::expires(&joined.identity)))
            .in_unit(Unit::Seconds)
    }));
    all
}

/// What a manager knows.
pub fn families(manager: &Manager) -> Vec<Family> {
    let (state, store) = (manager.view(), manager.store());
    let mut all = raft(&store.status(), &state);
    all.extend(proposals(store.proposals()));
    if let Some((free, reserve)) = store.no_room() {
        let help = "Room on the disk of the replicated store, while it is less than it needs";
        all.push(gauge("raft_disk_short_free", help, free).in_unit(Unit::Bytes));
        let help = "Room that the replicated store needs, while there is less";
        all.push(gauge("raft_disk_short_needed", help, reserve).in_unit(Unit::Bytes));
    }
    all.extend(nodes(&state));
    all.extend(objects(&state));
    all
}

fn proposals(proposals: Proposals) -> [Family; 2] {
    let help = "Changes of the state that were proposed on this manager";
    let failed = "Those of them that no majority took in time, or perhaps";
    [
        counter("raft_proposals", help, proposals.asked),
        counter("raft_proposals_failed", failed, proposals.failed),
    ]
}

fn raft(status: &Status, state: &State) -> Vec<Family> {
    let role = status.leadership.role;
    let leader = role == Role::Leader;
    let known = status.leadership.leader.is_some() && role != Role::Candidate;
    let lags = status.followers.iter().map(|(number, follower)| {
        let labels = match state.nodes().find(|node| node.number == *number) {
            Some(node) => labels(node),
            None => vec![("node_id", String::new()), ("hostname", format!("number {number}"))],
        };
        (labels, follower.lag as f64)
    });
    vec![
        gauge("raft_is_leader", "Whether this manager leads", leader),
        gauge("raft_leader_known", "Whether this manager knows of a leader", known),
        gauge("raft_term", "Number of the election that is in force", status.leadership.term),
        gauge("raft_voters", "Managers with a vote", status.voters.len()),
        gauge("raft_learners", "Managers without a vote yet", status.learners.len()),
        gauge("raft_last_log_index", "Last entry in this manager's log", status.last_log),
        gauge("raft_committed_index", "Last entry known to be safe", status.committed),
        gauge("raft_applied_index", "Last entry that is in this manager's state", status.applied),
        gauge("raft_snapshot_index", "Last entry that is in the newest snapshot", status.snapshot),
        gauge(
            "raft_condemned",
            "Whether this store takes no part, because it was wiped, rolled back or copied",
            status.condemned.is_some(),
        ),
        gauges(
            "raft_follower_lag_entries",
            "Entries that a manager's log is behind the leader's; told by the leader",
            lags,
        ),
    ]
}

/// Seconds since 1970.
fn seconds(time: Time) -> f64 {
    time.since(Time::default()).as_secs_f64()
}

fn labels(node: &Member) -> Labels {
    vec![("node_id", node.id.to_string()), ("hostname", node.description.hostname.clone())]
}

fn nodes(state: &State) -> Vec<Family> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for node in state.nodes() {
        let role = match node.spec.role {
            weft_model::spec::Role::Manager => "manager",
            weft_model::spec::Role::Worker => "worker",
        };
        *counts.entry((role, node.state.word())).or_default() += 1;
    }
    let counts = counts.into_iter().map(|((role, state), count)| {
        (vec![("role", role.to_owned()), ("state", state.to_owned())], count as f64)
    });
    let ready = state.nodes().map(|node| (labels(node), f64::from(u8::from(node.in_touch()))));
    let ends = state
        .nodes()
        .filter_map(|node| Some((labels(node), seconds(node.description.certificate_expires?))));
    vec![
        gauges("nodes", "Nodes of the cluster by role and state", counts),
        gauges("node_ready", "Whether a node is in touch", ready),
        gauges(
            "node_certificate_expiry_timestamp",
            "When a node's certificate ends, since 1970",
            ends,
        )
        .in_unit(Unit::Seconds),
    ]
}

fn objects(state: &State) -> Vec<Family> {
    let mut tasks: BTreeMap<String, usize> = BTreeMap::new();
    for task in state.tasks() {
        *tasks.entry(format!("{:?}", task.status.state).to_lowercase()).or_default() += 1;
    }
    let waiting = state.tasks().filter(|task| task.stuck.is_some()).count();
    let [used, usable] = address_use(state, "cluster");
    let tasks = tasks.into_iter().map(|(state, count)| (vec![("state", state)], count as f64));
    vec![
        gauges("tasks", "Tasks of the cluster by state, ended ones that are kept included", tasks),
        gauge("tasks_stuck", "Tasks that wait for something that is not there", waiting),
        gauge("services", "Services of the cluster", state.services().count()),
        gauge("cluster_networks", "Networks of the cluster", state.networks().count()),
        gauge(
            "cluster_endpoints",
            "Members of the cluster's networks",
            state.attachments().count(),
        ),
        gauges("addresses_used", "Addresses of a network of the cluster that are held", used),
        gauges("addresses_usable", "Addresses of a network of the cluster that there are", usable),
        gauge(
            "state_revision",
            "Revision of the cluster's state on this manager",
            state.revision(),
        ),
    ]
}
