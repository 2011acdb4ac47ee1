//! Makes as many tasks as each service should have, and ends those it should not have.

use std::{sync::Arc, time::Duration};

use weft_model::{
    Command, Desired, Node, Service, Task, TaskId, TaskState, Time,
    object::Slot,
    spec::{Availability, Mode, RestartCondition, UpdateOrder},
};

use super::{
    draft::Draft,
    slots::{self, ended_by_itself, fills, is_ending, runs},
};
use crate::ids::IdSource;

/// The back-off doubles with each failure in a row up to this many times the policy's delay.
const BACK_OFF_MAX: u32 = 32;
/// A task that ran this long was healthy: the next failure starts the back-off anew.
const HEALTHY: Duration = Duration::from_secs(60);

/// Takes every service a step towards the number of tasks it should have.
pub(super) fn run(draft: &mut Draft, ids: &mut dyn IdSource) {
    let services: Vec<_> = draft.state().services().cloned().collect();
    for service in services {
        leave_unfit_nodes(draft, &service);
        for slot in wanted_slots(draft, &service) {
            fill(draft, &service, slot, ids);
        }
        end_unwanted(draft, &service);
    }
}

/// The slots that should have a task.
fn wanted_slots(draft: &Draft, service: &Service) -> Vec<Slot> {
    match service.spec.mode {
        Mode::Replicated { replicas } => (1..=replicas).map(Slot::Replica).collect(),
        Mode::Global => {
            let eligible = |node: &&Arc<Node>| {
                is_fit(service, node) && node.spec.availability == Availability::Active
            };
            draft.state().nodes().filter(eligible).map(|node| Slot::Node(node.id)).collect()
        }
    }
}

/// Whether tasks of the service may be on the node at all.
fn is_fit(service: &Service, node: &Node) -> bool {
    node.spec.availability != Availability::Drain
        && service.spec.placement.constraints.iter().all(|constraint| constraint.allows(node))
}

/// Ends tasks on nodes that were drained or no longer satisfy the constraints.
fn leave_unfit_nodes(draft: &mut Draft, service: &Service) {
    let unfit: Vec<_> = draft
        .state()
        .tasks_of(service.id)
        .filter(|task| task.is_live())
        .filter(|task| {
            let node = task.node.and_then(|node| draft.state().node(node));
            node.is_some_and(|node| !is_fit(service, node))
        })
        .map(|task| task.id)
        .collect();
    for task in unfit {
        draft.decide(Command::Stop { task, desired: Desired::Shutdown });
    }
}

/// Ends the tasks of slots that are no longer wanted.
fn end_unwanted(draft: &mut Draft, service: &Service) {
    let unwanted = |slot: Slot| match (service.spec.mode, slot) {
        (Mode::Replicated { replicas }, Slot::Replica(number)) => number > replicas,
        (Mode::Replicated { .. }, Slot::Node(_)) | (Mode::Global, Slot::Replica(_)) => true,
        (Mode::Global, Slot::Node(node)) => draft.state().node(node).is_none(),
    };
    let tasks: Vec<_> = draft
        .state()
        .tasks_of(service.id)
        .filter(|task| unwanted(task.slot) && task.desired != Desired::Remove)
        .map(|task| task.id)
        .collect();
    for task in tasks {
        draft.decide(Command::Stop { task, desired: Desired::Remove });
    }
}

/// Sees to it that one slot has one task.
fn fill(draft: &mut Draft, service: &Service, slot: Slot, ids: &mut dyn IdSource) {
    let tasks = slots::of(draft.state(), service).remove(&slot).unwrap_or_default();
    let filling: Vec<_> =
        tasks.iter().filter(|task| fills(draft.state(), task)).map(Arc::clone).collect();
    if !filling.is_empty() {
        return keep_one(draft, service, &filling);
    }
    if tasks.iter().any(|task| is_ending(draft.state(), task)) {
        return;
    }
    let start = match tasks.first().filter(|newest| ended_by_itself(newest)) {
        Some(newest) if newest.spec_version == service.spec_version => {
            // What ended by itself stays in the history, whether it is replaced or not.
            if newest.desired == Desired::Running {
                draft.decide(Command::Stop { task: newest.id, desired: Desired::Shutdown });
            }
            restart(service, newest, draft.now())
        }
        Some(_) | None => Some((0, draft.now())),
    };
    if let Some((attempt, start_at)) = start {
        let id = TaskId::from_bytes(ids.bytes());
        draft.decide(Command::CreateTask { id, service: service.id, slot, attempt, start_at });
    }
}

/// When a task that ended by itself is followed by another, if at all, and how many failures in a
/// row that makes.
fn restart(service: &Service, ended: &Task, now: Time) -> Option<(u32, Time)> {
    let policy = service.spec.restart;
    let wanted = match policy.condition {
        RestartCondition::Any => true,
        RestartCondition::OnFailure => ended.status.state != TaskState::Complete,
        RestartCondition::None => false,
    };
    let was_healthy = ended.ran_since.is_some_and(|run| ended.status.since.since(run) >= HEALTHY);
    let attempt = if was_healthy { 1 } else { ended.attempt + 1 };
    let exhausted = policy.max_attempts > 0 && ended.attempt >= policy.max_attempts;
    if !wanted || exhausted {
        return None;
    }
    let factor = 1u32.checked_shl(attempt - 1).unwrap_or(BACK_OFF_MAX).clamp(1, BACK_OFF_MAX);
    Some((attempt, now.max(ended.status.since + policy.delay * factor)))
}

/// Of several tasks that fill one slot, one stays: of the present spec rather than not, and of those
/// the oldest, so that a node that returns keeps its tasks and their addresses. While an update
/// starts the new one first, one old one stays until the new one runs: more would keep what it needs.
fn keep_one(draft: &mut Draft, service: &Service, filling: &[Arc<Task>]) {
    let current = |task: &Task| task.spec_version == service.spec_version;
    let ready = |task: &Task| {
        task.node.and_then(|node| draft.state().node(node)).is_some_and(|node| node.in_touch())
    };
    let rank = |task: &&Arc<Task>| {
        let settled = runs(task) && ready(task);
        (current(task), settled, std::cmp::Reverse((task.meta.created, task.id)))
    };
    let Some(keeper) = filling.iter().max_by_key(rank) else { return };
    let starting = current(keeper) && !runs(keeper);
    let start_first = service.spec.update.order == UpdateOrder::StartFirst;
    let until_then = filling
        .iter()
        .filter(|task| start_first && starting && !current(task))
        .max_by_key(rank)
        .map(|task| task.id);
    let others: Vec<_> = filling
        .iter()
        .map(|task| task.id)
        .filter(|task| *task != keeper.id && Some(*task) != until_then)
        .collect();
    for task in others {
        draft.decide(Command::Stop { task, desired: Desired::Shutdown });
    }
}
