//! The tasks of a service, slot by slot.

use std::{collections::BTreeMap, sync::Arc};

use weft_model::{
    Service, State, Task, TaskState,
    object::{NodeState, Slot},
};

/// The tasks of one slot, the newest first.
pub(super) type Slots = BTreeMap<Slot, Vec<Arc<Task>>>;

/// All tasks of a service by slot, the newest first.
pub(super) fn of(state: &State, service: &Service) -> Slots {
    let mut slots = Slots::new();
    for task in state.tasks_of(service.id) {
        slots.entry(task.slot).or_default().push(Arc::clone(task));
    }
    for tasks in slots.values_mut() {
        tasks.sort_by_key(|task| std::cmp::Reverse((task.meta.created, task.attempt, task.id)));
    }
    slots
}

/// Whether the task fills its slot: it is wanted, has not ended, and its node is not given up.
pub(super) fn fills(state: &State, task: &Task) -> bool {
    task.is_live() && !is_away(state, task)
}

/// Whether the task is on a node that is given up for now.
pub(super) fn is_away(state: &State, task: &Task) -> bool {
    let node = task.node.and_then(|node| state.node(node));
    node.is_some_and(|node| match node.state {
        NodeState::Down => true,
        NodeState::Unknown | NodeState::Ready | NodeState::Silent => false,
    })
}

/// Whether the task was told to end and has not yet, on a node that can still say so.
pub(super) fn is_ending(state: &State, task: &Task) -> bool {
    !task.is_live() && !task.status.state.is_final() && !is_away(state, task)
}

/// Whether the task ended by itself.
pub(super) fn ended_by_itself(task: &Task) -> bool {
    match task.status.state {
        TaskState::Complete | TaskState::Failed | TaskState::Rejected => true,
        TaskState::New
        | TaskState::Pending
        | TaskState::Assigned
        | TaskState::Accepted
        | TaskState::Preparing
        | TaskState::Starting
        | TaskState::Running
        | TaskState::Shutdown
        | TaskState::Orphaned => false,
    }
}

/// Whether the task runs.
pub(super) fn runs(task: &Task) -> bool {
    task.status.state == TaskState::Running
}
