//! The picture of a service that converges, as a value: changes go in, a view comes out. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use weft_proto::v1::{self, TaskState, watch_response::Object};

use crate::{
    docker::{
        service::replicas,
        task::{reason, state, state_of},
    },
    wire::nanos,
};

/// Tasks of one slot that may fail before it is given up.
const MAX_FAILURES: usize = 3;
/// How long health checks are waited for at most, whatever the spec allows them.
const CHECKING_MAX: Duration = Duration::from_secs(600);

/// What counts as success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The tasks of the spec as written run.
    Converge,
    /// The tasks of the spec before run.
    Rollback,
}

/// The service as the last write left it.
#[derive(Debug, Clone)]
pub struct Target {
    service: v1::Service,
    version: u64,
    /// When the last update before ours began; its status says nothing about ours.
    old_update: Option<(i64, i32)>,
    goal: Goal,
}

impl Target {
    /// `service` is the answer to the write, `before` what was there.
    pub fn new(service: v1::Service, before: Option<&v1::Service>, goal: Goal) -> Self {
        let version = version(&service);
        let old_update = before.and_then(started);
        Self { service, version, old_update, goal }
    }

    pub fn id(&self) -> &str {
        &self.service.id
    }

    pub fn name(&self) -> &str {
        self.service.spec.as_ref().map_or(&self.service.id, |spec| &spec.name)
    }
}

fn version(service: &v1::Service) -> u64 {
    service.meta.as_ref().map_or(0, |meta| meta.version)
}

fn started(service: &v1::Service) -> Option<(i64, i32)> {
    let time = service.update_status.as_ref()?.started_at.as_ref()?;
    Some((time.seconds, time.nanos))
}

/// What is known about one place for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub name: String,
    pub state: &'static str,
    /// How far it is, from 0 to [`Line::STEPS`].
    pub step: usize,
    /// What it waits for, or why its predecessor failed; empty if all is well.
    pub reason: String,
}

impl Line {
    /// Steps from new to running.
    pub const STEPS: usize = 7;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Waiting,
    Converged,
    Failed { why: String, hint: String },
}

/// What there is to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub running: usize,
    pub wanted: usize,
    pub lines: Vec<Line>,
    pub verdict: Verdict,
}

/// The picture so far.
#[derive(Debug)]
pub struct Tracker {
    target: Target,
    /// The service as last seen, not older than the write.
    service: Option<v1::Service>,
    tasks: BTreeMap<String, v1::Task>,
    /// Tasks that had failed before the write.
    old_failures: BTreeSet<String>,
    /// All objects have been seen once.
    complete: bool,
    /// No more tasks are to be expected than there are.
    settled: bool,
}

impl Tracker {
    pub fn new(target: Target) -> Self {
        Self {
            target,
            service: None,
            tasks: BTreeMap::new(),
            old_failures: BTreeSet::new(),
            complete: false,
            settled: false,
        }
    }

    /// Starts again with all objects, as the stream will.
    pub fn forget(&mut self) {
        self.tasks.clear();
        self.service = None;
        self.complete = false;
    }

    /// Takes one change.
    pub fn apply(&mut self, message: v1::WatchResponse) {
        let removed = message.kind() == v1::WatchKind::Removed;
        if message.kind() == v1::WatchKind::Bookmark && !self.complete {
            self.complete = true;
        }
        match message.object {
            Some(Object::Service(service)) if service.id == self.target.service.id => {
                // A manager that lags behind may still show the service as it was.
                if removed {
                    self.service = Some(v1::Service { id: String::new(), ..service });
                } else if version(&service) >= self.target.version {
                    self.service = Some(service);
                }
            }
            Some(Object::Task(task)) if task.service_id == self.target.service.id => {
                if removed {
                    self.tasks.remove(&task.id);
                    return;
                }
                if !self.complete && has_failed(&task) {
                    self.old_failures.insert(task.id.clone());
                }
                self.tasks.insert(task.id.clone(), task);
            }
            // Other objects are not asked for; a bookmark has none.
            Some(Object::Service(_) | Object::Task(_) | Object::Node(_) | Object::Network(_))
            | None => {}
        }
    }

    /// The service was asked for after a quiet time.
    pub fn settled(&mut self, service: v1::Service) {
        if version(&service) >= self.target.version {
            self.service = Some(service);
            self.settled = true;
        }
    }

    /// True if a global service has no tasks: there may be none to come.
    pub fn nothing_to_see(&self) -> bool {
        let global = self.spec_of(self.service()).is_some_and(|spec| replicas(spec).is_none());
        global && !self.settled && self.current().next().is_none()
    }

    /// How long health checks may still take of tasks that have been started; nothing else shows that
    /// they are waited for.
    pub fn checking(&self) -> Duration {
        let container = self.spec_of(self.service()).and_then(|spec| spec.container.as_ref());
        let health = container.and_then(|container| container.health.as_ref());
        let starting = self.current().any(|task| state_of(task) == TaskState::Starting);
        match health.filter(|_| starting) {
            Some(health) => longest_check(health),
            None => Duration::ZERO,
        }
    }

    fn service(&self) -> &v1::Service {
        self.service.as_ref().unwrap_or(&self.target.service)
    }

    fn spec_of<'a>(&self, service: &'a v1::Service) -> Option<&'a v1::ServiceSpec> {
        service.spec.as_ref()
    }

    /// Tasks that shall run, made from the spec as it is now.
    fn current(&self) -> impl Iterator<Item = &v1::Task> {
        let version = self.service().spec_version;
        self.tasks.values().filter(move |task| {
            task.spec_version == version && task.desired_state() == v1::DesiredState::Running
        })
    }

    /// The nodes that a global service has tasks on, old ones included: an old task is replaced on
    /// its node. The number in the service itself is only as new as its last change.
    fn places(&self) -> usize {
        let live = self.tasks.values().filter(|task| {
            task.desired_state() == v1::DesiredState::Running && step(state_of(task)) > 0
        });
        live.map(slot).collect::<BTreeSet<_>>().len()
    }

    /// What there is to print; nothing before all objects have been seen.
    pub fn view(&self) -> Option<View> {
        if !self.complete {
            return None;
        }
        let service = self.service.as_ref()?;
        let running = self.current().filter(|task| state_of(task) == TaskState::Running).count();
        let wanted = match self.spec_of(service).and_then(replicas) {
            Some(replicas) => replicas as usize,
            None => self.places(),
        };
        let verdict = self.verdict(service, running, wanted);
        Some(View { running, wanted, lines: self.lines(), verdict })
    }

    fn verdict(&self, service: &v1::Service, running: usize, wanted: usize) -> Verdict {
        if service.id.is_empty() {
            return failed("the service was removed", "weft service ls".into());
        }
        let status = service.update_status.clone().unwrap_or_default();
        let ours = started(service) != self.target.old_update || self.target.old_update.is_none();
        let updating = match (status.state.as_str(), self.target.goal) {
            _ if !ours => false,
            ("paused" | "rollback_paused", _) => {
                return failed(&format!("the update is paused: {}", status.message), self.ps());
            }
            ("rollback_completed", Goal::Converge) => {
                return failed(&format!("rolled back: {}", status.message), self.ps());
            }
            ("updating" | "rollback_started", _) => true,
            _ => false,
        };
        if let Some(why) = self.given_up() {
            return failed(&why, self.ps());
        }
        let expected = wanted > 0 || self.settled || self.replicated(service);
        let left_over = self.current().count() > wanted;
        if running == wanted && !updating && expected && !left_over {
            Verdict::Converged
        } else {
            Verdict::Waiting
        }
    }

    fn replicated(&self, service: &v1::Service) -> bool {
        self.spec_of(service).and_then(replicas).is_some()
    }

    fn ps(&self) -> String {
        format!("weft service ps {}", self.target.name())
    }

    /// The slot whose tasks fail again and again, with the last reason.
    fn given_up(&self) -> Option<String> {
        let mut slots: BTreeMap<(u32, &str), Vec<&v1::Task>> = BTreeMap::new();
        for task in self.failures() {
            slots.entry(slot(task)).or_default().push(task);
        }
        let tasks = slots.into_values().find(|tasks| tasks.len() >= MAX_FAILURES)?;
        let last = tasks.iter().max_by_key(|task| since(task))?;
        Some(format!("{} failed {} times: {}", last.name, tasks.len(), last_words(last)))
    }

    fn failures(&self) -> impl Iterator<Item = &v1::Task> {
        let version = self.service().spec_version;
        self.tasks.values().filter(move |task| {
            task.spec_version == version
                && has_failed(task)
                && !self.old_failures.contains(&task.id)
        })
    }

    fn lines(&self) -> Vec<Line> {
        let mut newest: BTreeMap<(u32, &str), &v1::Task> = BTreeMap::new();
        for task in self.current() {
            let known = newest.entry(slot(task)).or_insert(task);
            if since(task) > since(known) {
                *known = task;
            }
        }
        newest.into_values().map(|task| self.line(task)).collect()
    }

    fn line(&self, task: &v1::Task) -> Line {
        let mut why = reason(task);
        if why.is_empty() && state_of(task) != TaskState::Running {
            let before = self.failures().filter(|other| slot(other) == slot(task));
            if let Some(last) = before.max_by_key(|other| since(other)) {
                why = format!("after: {}", last_words(last));
            }
        }
        Line {
            name: task.name.clone(),
            state: state(state_of(task)),
            step: step(state_of(task)),
            reason: why,
        }
    }

    /// Why it has not converged, as far as that is known, and what to do.
    pub fn excuse(&self) -> (String, String) {
        let stuck = |stuck: &v1::Stuck, name: &str| {
            let hint = if stuck.hint.is_empty() { self.ps() } else { stuck.hint.clone() };
            (format!("{name}: {}", stuck.reason), hint)
        };
        if let Some(found) = &self.service().stuck {
            return stuck(found, self.target.name());
        }
        let waiting = self.current().filter(|task| state_of(task) != TaskState::Running);
        for task in waiting {
            if let Some(found) = &task.stuck {
                return stuck(found, &task.name);
            }
        }
        if let Some(last) = self.failures().max_by_key(|task| since(task)) {
            return (format!("{}: {}", last.name, last_words(last)), self.ps());
        }
        let line = self.lines().into_iter().find(|line| line.step < Line::STEPS);
        let why = match line {
            Some(line) => format!("{} is {}", line.name, line.state),
            None => "not all tasks were made".to_owned(),
        };
        (why, self.ps())
    }
}

fn failed(why: &str, hint: String) -> Verdict {
    Verdict::Failed { why: why.to_owned(), hint }
}

/// Tasks of one slot replace each other; those of a global service, by node.
fn slot(task: &v1::Task) -> (u32, &str) {
    (task.slot, if task.slot == 0 { &task.node_id } else { "" })
}

fn since(task: &v1::Task) -> (i64, i32) {
    let time = task.status.as_ref().and_then(|status| status.since.as_ref());
    time.map_or((0, 0), |time| (time.seconds, time.nanos))
}

fn has_failed(task: &v1::Task) -> bool {
    matches!(state_of(task), TaskState::Failed | TaskState::Rejected)
}

/// The error of a task that ended, or how it ended.
fn last_words(task: &v1::Task) -> String {
    let text = reason(task);
    if !text.is_empty() {
        return text;
    }
    let status = task.status.clone().unwrap_or_default();
    match (status.exit_code, status.message.is_empty()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, false) => status.message,
        (None, true) => state(status.state()).to_owned(),
    }
}

/// From the start of a container until its health is known at the latest, with the node's defaults.
fn longest_check(health: &v1::Health) -> Duration {
    /// Docker's interval and timeout.
    const SPAN: Duration = Duration::from_secs(30);
    /// Docker's failures in a row.
    const RETRIES: u32 = 3;
    let given = |span: &Option<crate::wire::WireDuration>| {
        let nanos = u64::try_from(nanos(span.as_ref())).unwrap_or(u64::MAX);
        Duration::from_nanos(nanos)
    };
    let or = |span: Duration| if span.is_zero() { SPAN } else { span };
    let retries = if health.retries == 0 { RETRIES } else { health.retries };
    let checks = (or(given(&health.interval)) + or(given(&health.timeout))).saturating_mul(retries);
    given(&health.start_period).saturating_add(checks).min(CHECKING_MAX)
}

fn step(state: TaskState) -> usize {
    match state {
        TaskState::Unspecified | TaskState::New => 1,
        TaskState::Pending => 2,
        TaskState::Assigned => 3,
        TaskState::Accepted => 4,
        TaskState::Preparing => 5,
        TaskState::Starting => 6,
        TaskState::Running => Line::STEPS,
        TaskState::Complete
        | TaskState::Shutdown
        | TaskState::Failed
        | TaskState::Rejected
        | TaskState::Orphaned => 0,
    }
}
