//! Forgets tasks that have ended and are no longer of interest.

use std::{collections::BTreeMap, sync::Arc};

use weft_model::{Command, Desired, ServiceId, Task, TaskId, object::Slot};

use super::draft::Draft;

/// Forgets what was to be removed and is gone, and of each slot's history all but the newest.
pub(super) fn run(draft: &mut Draft) {
    let limit = draft.state().cluster().map_or(0, |cluster| cluster.spec.task_history_limit);
    let mut slots: BTreeMap<(ServiceId, Slot), Vec<Arc<Task>>> = BTreeMap::new();
    let mut gone: Vec<TaskId> = Vec::new();
    for task in draft.state().tasks() {
        if task.desired == Desired::Remove {
            gone.push(task.id);
        } else {
            slots.entry((task.service, task.slot)).or_default().push(Arc::clone(task));
        }
    }
    for tasks in slots.values_mut() {
        tasks.sort_by_key(|task| std::cmp::Reverse((task.meta.created, task.attempt, task.id)));
        // What ended by itself and is not replaced stays, so that its reason can be read.
        let kept = (limit as usize).max(1);
        gone.extend(tasks.iter().skip(kept).map(|task| task.id));
    }
    for task in gone {
        let ended = draft
            .state()
            .task(task)
            .is_some_and(|task| task.status.state.is_final() && task.released && !task.is_live());
        if ended {
            draft.decide(Command::Forget { task });
        }
    }
}
