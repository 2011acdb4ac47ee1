//! Looks at every state that any manager shows: it must be sound, and the same one everywhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use weft_manager::Manager;
use weft_model::{ServiceId, State, Task, TaskId, object::NodeState, spec::UpdateOrder};

use super::trace::Trace;

/// How long a write may take: so much older may the state be that a decision was taken on.
const WRITING: Duration = Duration::from_secs(5);

/// The states seen so far, by revision. Clones share them.
#[derive(Clone)]
pub(super) struct Audit {
    trace: Trace,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    states: BTreeMap<u64, Arc<State>>,
    tasks: BTreeSet<TaskId>,
    /// How tasks of each service are replaced; its last tasks outlive a service.
    orders: BTreeMap<ServiceId, UpdateOrder>,
    figures: Figures,
}

/// How much was looked at: a check that never looked proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    /// States checked.
    pub(super) checked: u64,
    /// States compared with another manager's at the same revision.
    pub(super) compared: u64,
    /// The highest revision.
    pub(super) revision: u64,
    /// Tasks that were begun while others of their slot were there.
    pub(super) followers: u64,
}

impl Audit {
    pub(super) fn new(trace: Trace) -> Self {
        Self { trace, seen: Arc::default() }
    }

    /// Looks at all that `manager` shows, for ever.
    pub(super) async fn follow(self, who: String, manager: Manager) {
        let mut changes = manager.store().watch();
        let mut last = 0;
        loop {
            let state = manager.view();
            if state.revision() < last {
                self.trace.violated(&who, format!("went back from {last} to {}", state.revision()));
            }
            if state.revision() > last {
                last = state.revision();
                self.look(&who, state);
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn look(&self, who: &str, state: Arc<State>) {
        let revision = state.revision();
        // The map is whole whatever a holder of the lock did.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.figures.checked += 1;
        seen.figures.revision = seen.figures.revision.max(revision);
        match seen.states.get(&revision) {
            Some(other) => {
                let same = **other == *state;
                seen.figures.compared += 1;
                drop(seen);
                if !same {
                    self.trace.violated(who, format!("another state at revision {revision}"));
                }
            }
            None => {
                let unfenced = seen.unfenced(&state);
                seen.states.insert(revision, Arc::clone(&state));
                drop(seen);
                self.trace.note(who, format!("revision {revision}"));
                let unsound = state.check().into_iter().map(|violation| violation.0);
                for what in unsound.chain(unfenced) {
                    self.trace.violated(who, format!("revision {revision}: {what}"));
                }
            }
        }
    }

    pub(super) fn figures(&self) -> Figures {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).figures
    }
}

impl Seen {
    /// Tasks that are new in a state although another one of their slot may yet run.
    fn unfenced(&mut self, state: &State) -> Vec<String> {
        let mut found = Vec::new();
        let orders = state.services().map(|service| (service.id, service.spec.update.order));
        self.orders.extend(orders);
        for task in state.tasks() {
            if !self.tasks.insert(task.id) {
                continue;
            }
            let others = state.tasks_of(task.service).filter(|other| {
                other.id != task.id
                    && other.slot == task.slot
                    && other.meta.created <= task.meta.created
            });
            for other in others {
                self.figures.followers += 1;
                let order = self.orders.get(&task.service).copied();
                if !may_be_followed(state, order, other, task) {
                    let node = other.node.and_then(|node| state.node(node));
                    let node = node.map(|node| (node.state, node.since));
                    found.push(format!("{task:?} is begun beside {other:?} on {node:?}"));
                }
            }
        }
        found
    }
}

/// Whether `next` may be begun in the slot of `task`: that one has ended, its node is given up, or it
/// is of a former spec and to stay until its successor runs.
fn may_be_followed(state: &State, order: Option<UpdateOrder>, task: &Task, next: &Task) -> bool {
    let replaced = order == Some(UpdateOrder::StartFirst) && task.spec_version < next.spec_version;
    let Some(node) = task.node else {
        // It never was anywhere; it must not come to be somewhere.
        return !task.is_live() || replaced;
    };
    let given_up = state.node(node).is_none_or(|node| {
        // One that has come back a moment ago was away when the decision was taken.
        node.state == NodeState::Down || node.since + WRITING >= next.meta.created
    });
    task.status.state.is_final() || given_up || replaced
}
