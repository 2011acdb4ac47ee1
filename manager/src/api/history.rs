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

#[cfg(test)]
mod tests {
    use super::*;

    /// The state after so many commands that change nothing.
    fn at(state: &State, revision: u64) -> Arc<State> {
        let mut next = state.clone();
        next.apply(revision, &weft_model::Proposal::default());
        Arc::new(next)
    }

    /// The same with one node more.
    fn with_cluster(revision: u64) -> Arc<State> {
        let id = weft_model::ClusterId::from_bytes([1; 32]);
        let authority =
            crate::ca::Authority::create(&id.to_string(), std::time::SystemTime::now()).unwrap();
        let now = weft_model::Time(1);
        let made = crate::manager::new_cluster(id, &authority, Default::default(), now);
        let node = weft_model::command::NewNode {
            id: weft_model::NodeId::from_bytes([2; 32]),
            spec: Default::default(),
            description: weft_model::object::NodeDescription {
                hostname: "n".into(),
                address: "10.0.0.1:2377".parse().unwrap(),
                data_path: "10.0.0.1".parse().unwrap(),
                os: String::new(),
                architecture: String::new(),
                engine_version: String::new(),
                nano_cpus: 0,
                memory: 0,
                used_prefixes: Default::default(),
                certificate_expires: None,
            },
        };
        let command = weft_model::Command::CreateCluster { cluster: Box::new(made), node };
        let mut state = State::default();
        let proposal = weft_model::Proposal { request: None, now, commands: vec![command] };
        state.apply(revision, &proposal).into_result().unwrap();
        Arc::new(state)
    }

    fn relabelled(state: &State, revision: u64) -> Arc<State> {
        let node = state.nodes().next().unwrap();
        let mut spec = node.spec.clone();
        spec.labels.insert("n".into(), revision.to_string());
        let command = weft_model::Command::UpdateNode { id: node.id, expect: None, spec };
        let mut next = state.clone();
        let commands = vec![command];
        let proposal = weft_model::Proposal { commands, ..Default::default() };
        next.apply(revision, &proposal).into_result().unwrap();
        Arc::new(next)
    }

    #[test]
    fn one_goes_on_from_where_a_step_led_and_from_nowhere_else() {
        let history = History::new(Arc::new(State::default()));
        let first = with_cluster(5);
        history.push(first.clone());
        history.push(at(&first, 7));
        let last = relabelled(&at(&first, 7), 9);
        history.push(last.clone());
        let after = |revision| match history.after(revision) {
            Next::Step(step) => format!("step {}", step.revision),
            Next::Wait => "wait".to_owned(),
            Next::Lost => "lost".to_owned(),
        };
        let expected = [
            (0, "step 5"),
            // Between two states that came as one.
            (4, "lost"),
            (5, "step 9"),
            // Nothing had changed until then.
            (7, "step 9"),
            (8, "lost"),
            (9, "wait"),
            (10, "wait"),
        ];
        for (revision, expected) in expected {
            assert_eq!(after(revision), expected, "after {revision}");
        }
        let Next::Step(step) = history.after(5) else { panic!("a step") };
        assert_eq!(step.events.len(), 1);
        assert_eq!(step.events[0].kind, Kind::Updated);
        assert_eq!((step.before.revision(), step.after.revision()), (5, 9));
    }

    #[test]
    fn old_steps_are_forgotten() {
        let mut state = with_cluster(1);
        let history = History::new(state.clone());
        for revision in 2..=STEPS_MAX as u64 + 2 {
            state = relabelled(&state, revision);
            history.push(state.clone());
        }
        assert!(matches!(history.after(1), Next::Lost));
        assert!(matches!(history.after(state.revision() - 1), Next::Step(_)));
        assert_eq!(history.steps.read().unwrap().len(), STEPS_MAX);
    }

    #[test]
    fn what_is_new_changed_and_gone_is_told_once() {
        let (before, after) = (with_cluster(1), State::default());
        let kinds =
            |a: &State, b: &State| changes(a, b).iter().map(|event| event.kind).collect::<Vec<_>>();
        assert_eq!(kinds(&after, &before), [Kind::Created]);
        assert_eq!(kinds(&before, &before), []);
        assert_eq!(kinds(&before, &relabelled(&before, 2)), [Kind::Updated]);
        assert_eq!(kinds(&before, &after), [Kind::Removed]);
    }
}
