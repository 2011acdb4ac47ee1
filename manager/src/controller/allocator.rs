//! Gives new tasks their addresses, or says why there are none.

use weft_model::{
    AttachmentId, Command, Desired, Rejected, Task, TaskState, command::NewAttachment,
    object::Stuck,
};

use super::draft::Draft;
use crate::ids::IdSource;

/// Gives addresses to every task that has none yet.
pub(super) fn run(draft: &mut Draft, ids: &mut dyn IdSource) {
    let waiting: Vec<_> = draft
        .state()
        .tasks()
        .filter(|task| task.status.state == TaskState::New && task.desired == Desired::Running)
        .cloned()
        .collect();
    for task in waiting {
        match choose(draft, &task, ids) {
            Ok(attachments) => draft.decide(Command::Attach { task: task.id, attachments }),
            Err(refused) => explain(draft, &task, &refused),
        }
    }
}

fn choose(
    draft: &Draft,
    task: &Task,
    ids: &mut dyn IdSource,
) -> Result<Vec<NewAttachment>, Rejected> {
    task.networks
        .iter()
        .map(|usage| {
            let addresses = draft.state().choose_addresses(usage.network)?;
            let id = AttachmentId::from_bytes(ids.bytes());
            Ok(NewAttachment { id, network: usage.network, addresses })
        })
        .collect()
}

fn explain(draft: &mut Draft, task: &Task, refused: &Rejected) {
    let reason = refused.to_string();
    if task.stuck.as_ref().is_none_or(|stuck| stuck.reason != reason) {
        let hint = refused.hint().unwrap_or_default();
        let stuck = Some(Stuck { reason, hint, since: draft.now() });
        draft.decide(Command::Explain { task: task.id, stuck });
    }
}
