//! Rolls a changed spec out: replaces the tasks of the former spec, a few at a time.

use std::sync::Arc;

use weft_model::{
    Command, Desired, Service, Task, TaskId, Time,
    command::UpdateKind,
    object::{UpdateState, UpdateStatus},
    spec::{FailureAction, UpdateOrder},
};

use super::{
    draft::Draft,
    slots::{self, ended_by_itself, fills, is_ending, runs},
};
use crate::ids::IdSource;

/// Takes every update a step forward.
pub(super) fn run(draft: &mut Draft, ids: &mut dyn IdSource) {
    let services: Vec<_> = draft.state().services().cloned().collect();
    for service in services {
        let Some(update) = &service.update else { continue };
        match update.state {
            UpdateState::Updating | UpdateState::RollbackStarted => {
                advance(draft, &service, update, ids)
            }
            UpdateState::Paused
            | UpdateState::Completed
            | UpdateState::RollbackPaused
            | UpdateState::RollbackCompleted => {}
        }
    }
}

/// Where one slot stands in an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Still has a task of the former spec, and none of the new.
    Former,
    /// Is between the two.
    Changing,
    /// Has what the new spec wants.
    Done,
}

fn advance(draft: &mut Draft, service: &Service, update: &UpdateStatus, ids: &mut dyn IdSource) {
    if let Some(failed) = first_failure(draft, service, update) {
        match service.spec.update.failure_action {
            FailureAction::Continue => {}
            FailureAction::Pause => return pause(draft, service, update, &failed),
            FailureAction::Rollback => return roll_back(draft, service, update, &failed),
        }
    }
    let phases: Vec<_> = slots::of(draft.state(), service)
        .into_values()
        .filter_map(|tasks| {
            let (phase, former) = phase(draft, service, &tasks)?;
            Some((phase, former, tasks))
        })
        .collect();
    if phases.iter().all(|(phase, _, _)| *phase == Phase::Done) {
        return complete(draft, service, update);
    }
    if let Some(at) = rest_until(service, update, phases.iter().flat_map(|(_, _, tasks)| tasks))
        && at > draft.now()
    {
        return draft.wake(at);
    }
    let changing = phases.iter().filter(|(phase, _, _)| *phase == Phase::Changing).count();
    let room = match service.spec.update.parallelism {
        0 => usize::MAX,
        most => (most as usize).saturating_sub(changing),
    };
    let next = phases.iter().filter(|(phase, _, _)| *phase == Phase::Former).take(room);
    for former in next.filter_map(|(_, former, _)| former.clone()) {
        replace(draft, service, &former, ids);
    }
}

/// Begins to replace one task of the former spec.
fn replace(draft: &mut Draft, service: &Service, former: &Task, ids: &mut dyn IdSource) {
    match service.spec.update.order {
        UpdateOrder::StopFirst => {
            draft.decide(Command::Stop { task: former.id, desired: Desired::Shutdown });
        }
        UpdateOrder::StartFirst => {
            let id = TaskId::from_bytes(ids.bytes());
            let (slot, start_at) = (former.slot, draft.now());
            draft.decide(Command::CreateTask {
                id,
                service: service.id,
                slot,
                attempt: 0,
                start_at,
            });
        }
    }
}

fn phase(
    draft: &Draft,
    service: &Service,
    tasks: &[Arc<Task>],
) -> Option<(Phase, Option<Arc<Task>>)> {
    let current = |task: &&Arc<Task>| task.spec_version == service.spec_version;
    let filling: Vec<_> = tasks.iter().filter(|task| fills(draft.state(), task)).collect();
    let former = filling.iter().find(|task| !current(task)).map(|task| Arc::clone(task));
    let new = filling.iter().find(|task| current(task));
    match (former, new, tasks.first()) {
        // A successor that was told to end, its node being drained perhaps, must have ended before another.
        (Some(_), None, _) if tasks.iter().any(|task| is_ending(draft.state(), task)) => {
            Some((Phase::Changing, None))
        }
        (former @ Some(_), None, _) => Some((Phase::Former, former)),
        (Some(_), Some(_), _) => Some((Phase::Changing, None)),
        (None, Some(new), _) if runs(new) => Some((Phase::Done, None)),
        (None, Some(_), _) => Some((Phase::Changing, None)),
        // Ended for good under the new spec, as a restart policy may have it.
        (None, None, Some(newest)) if current(&newest) && ended_by_itself(newest) => {
            Some((Phase::Done, None))
        }
        // A slot that is no longer wanted has only tasks that are to be removed.
        (None, None, Some(newest)) if newest.desired == Desired::Remove => None,
        (None, None, Some(_)) => Some((Phase::Changing, None)),
        (None, None, None) => None,
    }
}

/// When the next batch may begin: `delay` after the last new task began to run.
fn rest_until<'a>(
    service: &Service,
    update: &UpdateStatus,
    tasks: impl Iterator<Item = &'a Arc<Task>>,
) -> Option<Time> {
    tasks
        .filter(|task| task.spec_version == service.spec_version && runs(task))
        .filter(|task| task.meta.created >= update.started)
        .map(|task| task.status.since + service.spec.update.delay)
        .max()
}

fn first_failure(draft: &Draft, service: &Service, update: &UpdateStatus) -> Option<Arc<Task>> {
    let failed = |task: &&Arc<Task>| {
        task.spec_version == service.spec_version
            && task.meta.created >= update.started
            && ended_by_itself(task)
            && task.status.exit_code != Some(0)
    };
    draft.state().tasks_of(service.id).find(failed).cloned()
}

fn pause(draft: &mut Draft, service: &Service, update: &UpdateStatus, failed: &Task) {
    let state = match update.state {
        UpdateState::RollbackStarted => UpdateState::RollbackPaused,
        _ => UpdateState::Paused,
    };
    let message = format!(
        "paused due to failure or early termination of task {}: {}",
        failed.id.short(),
        reason(failed)
    );
    set_status(draft, service, UpdateStatus { state, message, ..update.clone() });
}

fn roll_back(draft: &mut Draft, service: &Service, update: &UpdateStatus, failed: &Task) {
    let former = service.previous.clone().filter(|_| update.state == UpdateState::Updating);
    let Some(spec) = former else { return pause(draft, service, update, failed) };
    let Ok(vips) = draft.state().choose_vips(&spec, &service.vips) else { return };
    let expect = Some(service.meta.version);
    let kind = UpdateKind::Rollback;
    draft.decide(Command::UpdateService { id: service.id, expect, spec, vips, kind });
}

fn complete(draft: &mut Draft, service: &Service, update: &UpdateStatus) {
    let (state, message) = match update.state {
        UpdateState::RollbackStarted => (UpdateState::RollbackCompleted, "rollback completed"),
        _ => (UpdateState::Completed, "update completed"),
    };
    let completed = Some(draft.now());
    let message = message.to_owned();
    set_status(draft, service, UpdateStatus { state, completed, message, ..update.clone() });
}

fn set_status(draft: &mut Draft, service: &Service, status: UpdateStatus) {
    let expect = Some(service.spec_version);
    draft.decide(Command::SetUpdateStatus { id: service.id, expect, status });
}

fn reason(task: &Task) -> &str {
    if task.status.error.is_empty() { &task.status.message } else { &task.status.error }
}
