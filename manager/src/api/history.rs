//! The last changes of the objects, for those who watch.
//!
//! States are cheap to keep, as they share what has not changed. The differences between two of them
//! are found once, when the newer one comes, and read by every watch.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, RwLock},
};

use tokio::sync::watch;
use weft_model::{Network, Node, Service, State, Task};

use crate::manager::Core;

/// Most steps kept. A watch that is further behind starts again.
const STEPS_MAX: usize = 1_024;

/// An object of any kind.
#[derive(Clone, Debug)]
pub(super) enum Object {
    Node(Arc<Node>),
    Network(Arc<Network>),
    Service(Arc<Service>),
    Task(Arc<Task>),
}

/// What happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Created,
    Updated,
    Removed,
}

/// One change.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) kind: Kind,
    pub(super) object: Object,
}

/// From one state to a later one.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Revision of the later one.
    pub(super) revision: u64,
    /// Up to here nothing more has changed.
    until: u64,
    pub(super) events: Arc<[Event]>,
    pub(super) before: Arc<State>,
    pub(super) after: Arc<State>,
}

/// The last steps.
pub(crate) struct History {
    steps: RwLock<VecDeque<Step>>,
    newest: watch::Sender<u64>,
}

/// Where to go on.
pub(super) enum Next {
    Step(Step),
    /// There is nothing newer yet.
    Wait,
    /// The changes after that revision are not kept.
    Lost,
}

impl History {
    /// A history that begins with `state`.
    pub(crate) fn new(state: Arc<State>) -> Self {
        let revision = state.revision();
        let first = Step {
            revision,
            until: revision,
            events: Arc::new([]),
            before: Arc::clone(&state),
            after: state,
        };
        Self { steps: RwLock::new(VecDeque::from([first])), newest: watch::channel(revision).0 }
    }

    /// The newest state there are changes to.
    pub(super) fn newest(&self) -> Arc<State> {
        let steps = self.steps.read().expect("no holder panics");
        Arc::clone(&steps.back().expect("there is always a step").after)
    }

    /// Tells the newest revision.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// The first step after `revision`, which must be one that a step has led to.
    pub(super) fn after(&self, revision: u64) -> Next {
        let steps = self.steps.read().expect("no holder panics");
        let next = steps.partition_point(|step| step.revision <= revision);
        let newest = steps.back().map_or(0, |step| step.until);
        if revision > newest {
            return Next::Wait;
        }
        match next.checked_sub(1).and_then(|own| steps.get(own)) {
            Some(own) if revision <= own.until => {
                steps.get(next).map_or(Next::Wait, |step| Next::Step(step.clone()))
            }
            // Either older than what is kept, or between two states that came as one.
            Some(_) | None => Next::Lost,
        }
    }

    fn push(&self, state: Arc<State>) {
        let revision = state.revision();
        let mut steps = self.steps.write().expect("no holder panics");
        let last = steps.back_mut().expect("there is always a step");
        let events = changes(&last.after, &state);
        if events.is_empty() {
            last.until = revision;
        } else {
            let before = Arc::clone(&last.after);
            let events = events.into();
            steps.push_back(Step { revision, until: revision, events, before, after: state });
            if steps.len() > STEPS_MAX {
                steps.pop_front();
            }
        }
        drop(steps);
        self.newest.send_replace(revision);
    }
}

/// Follows the store until it stops.
pub(crate) async fn record(core: Arc<Core>) {
    let mut changes = core.store.watch();
    loop {
        let state = core.store.view();
        if state.revision() > *core.history.newest.borrow() {
            core.history.push(state);
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Every object, as if it were made now.
pub(super) fn listing(state: &State) -> Vec<Event> {
    changes(&State::default(), state)
}

/// What has changed from one state to a later one: what others refer to comes first.
fn changes(before: &State, after: &State) -> Vec<Event> {
    let mut events = Vec::new();
    compare(before.nodes(), after.nodes(), |it| it.id, Object::Node, &mut events);
    compare(before.networks(), after.networks(), |it| it.id, Object::Network, &mut events);
    compare(before.services(), after.services(), |it| it.id, Object::Service, &mut events);
    compare(before.tasks(), after.tasks(), |it| it.id, Object::Task, &mut events);
    events
}

fn compare<'a, T: PartialEq + 'a, K: Ord>(
    before: impl Iterator<Item = &'a Arc<T>>,
    after: impl Iterator<Item = &'a Arc<T>>,
    key: impl Fn(&T) -> K,
    object: impl Fn(Arc<T>) -> Object,
    events: &mut Vec<Event>,
) {
    let mut old: BTreeMap<K, &Arc<T>> = before.map(|it| (key(it), it)).collect();
    let mut note = |kind, it: &Arc<T>| events.push(Event { kind, object: object(Arc::clone(it)) });
    for it in after {
        match old.remove(&key(it)) {
            None => note(Kind::Created, it),
            Some(was) if !Arc::ptr_eq(was, it) && was != it => note(Kind::Updated, it),
            Some(_) => {}
        }
    }
    for gone in old.into_values() {
        note(Kind::Removed, gone);
    }
}
