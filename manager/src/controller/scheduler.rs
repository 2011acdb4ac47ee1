//! Gives tasks their nodes: spread, within what constraints allow; or says why there is none.

use std::{collections::BTreeMap, sync::Arc};

use weft_model::{Command, Desired, Node, NodeId, Service, Task, TaskState, object::Stuck};

use super::{
    draft::Draft,
    filter::{self, Unfit},
};

/// How many tasks each node has.
#[derive(Default)]
struct Load {
    all: BTreeMap<NodeId, usize>,
    of_service: BTreeMap<NodeId, usize>,
}

/// Gives a node to every task that has its addresses and whose time has come.
pub(super) fn run(draft: &mut Draft) {
    let waiting: Vec<_> = draft
        .state()
        .tasks()
        .filter(|task| task.status.state == TaskState::Pending && task.desired == Desired::Running)
        .cloned()
        .collect();
    for task in waiting {
        if task.start_at > draft.now() {
            draft.wake(task.start_at);
            continue;
        }
        let Some(service) = draft.state().service(task.service).cloned() else { continue };
        match choose(draft, &service, &task) {
            Ok(node) => draft.decide(Command::Assign { task: task.id, node }),
            Err(reasons) => explain(draft, &task, &reasons),
        }
    }
}

/// The fittest node: with the fewest tasks of the service under each label to be spread over, then
/// with the fewest tasks of the service, then with the fewest tasks.
fn choose(draft: &Draft, service: &Service, task: &Task) -> Result<NodeId, BTreeMap<Unfit, usize>> {
    let load = load(draft, service);
    let mut reasons = BTreeMap::new();
    let mut fit: Vec<&Arc<Node>> = Vec::new();
    for node in draft.state().nodes() {
        let held = load.of_service.get(&node.id).copied().unwrap_or(0);
        match filter::check(service, task, node, held) {
            Ok(()) => fit.push(node),
            Err(unfit) => *reasons.entry(unfit).or_default() += 1,
        }
    }
    let count = |of: &BTreeMap<NodeId, usize>, node: &Node| of.get(&node.id).copied().unwrap_or(0);
    fit.into_iter()
        .min_by_key(|node| {
            let spread: Vec<usize> = service
                .spec
                .placement
                .spread
                .iter()
                .map(|label| with_same_label(draft, &load, node, label))
                .collect();
            (spread, count(&load.of_service, node), count(&load.all, node), node.number)
        })
        .map(|node| node.id)
        .ok_or(reasons)
}

/// How many tasks of the service are on nodes with the same value of the label.
fn with_same_label(draft: &Draft, load: &Load, node: &Node, label: &str) -> usize {
    let value = node.spec.labels.get(label);
    draft
        .state()
        .nodes()
        .filter(|other| other.spec.labels.get(label) == value)
        .filter_map(|other| load.of_service.get(&other.id))
        .sum()
}

fn load(draft: &Draft, service: &Service) -> Load {
    let mut load = Load::default();
    for task in draft.state().tasks().filter(|task| task.is_live()) {
        let Some(node) = task.node else { continue };
        *load.all.entry(node).or_default() += 1;
        if task.service == service.id {
            *load.of_service.entry(node).or_default() += 1;
        }
    }
    load
}

fn explain(draft: &mut Draft, task: &Task, reasons: &BTreeMap<Unfit, usize>) {
    let reason = filter::explain(reasons);
    if task.stuck.as_ref().is_none_or(|stuck| stuck.reason != reason) {
        let hint = filter::hint(reasons).to_owned();
        let stuck = Some(Stuck { reason, hint, since: draft.now() });
        draft.decide(Command::Explain { task: task.id, stuck });
    }
}
