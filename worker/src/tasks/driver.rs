//! One task's way: made, plumbed, started, watched, ended, released, and at last forgotten.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use weft_model::{
    Desired, Task, TaskId, TaskState,
    command::TaskReport,
    object::{HealthState, Holder},
};

use super::{Context, make, plumbed, unwell};
use crate::{
    container::{Created, Error, Exit, Found, Phase, chain},
    desired::{LocalSandbox, Sorted},
    health::{self, Checked, Health},
    plumbing::Plumbed,
};

/// How long a sandbox may take to be plumbed before the task counts as failed.
const PLUMBING_DEADLINE: Duration = Duration::from_secs(10);
/// How long the network of an ended container may take to go; it goes with its namespace anyway.
const UNPLUMBING_DEADLINE: Duration = Duration::from_secs(5);
/// Between tries to remove what is left of a container, while the runtime refuses.
const REMOVAL_RETRY: Duration = Duration::from_secs(2);

type Wanted = watch::Receiver<Option<Arc<Task>>>;

/// How a task ended.
struct End {
    state: TaskState,
    message: String,
    error: String,
    exit_code: Option<i32>,
}

impl End {
    fn failed(error: impl ToString) -> Self {
        Self {
            state: TaskState::Failed,
            message: "failed".to_owned(),
            error: error.to_string(),
            exit_code: None,
        }
    }

    fn shutdown() -> Self {
        Self {
            state: TaskState::Shutdown,
            message: "shutdown".to_owned(),
            error: String::new(),
            exit_code: None,
        }
    }

    /// What a container's end means for its task.
    fn of(exit: &Exit, was_wanted: bool) -> Self {
        let (state, message, error) = match (was_wanted, exit.code) {
            (false, _) => (TaskState::Shutdown, "shutdown", String::new()),
            (true, 0) => (TaskState::Complete, "finished", String::new()),
            (true, code) => {
                let why = match &exit.error {
                    Some(error) => error.clone(),
                    None if exit.oom => format!("task: out of memory ({code})"),
                    None => format!("task: non-zero exit ({code})"),
                };
                (TaskState::Failed, "failed", why)
            }
        };
        Self { state, message: message.to_owned(), error, exit_code: Some(exit.code) }
    }
}

/// Takes one task all its way. Ends when nothing of it is left and nobody wants it.
pub(super) async fn drive(
    context: Arc<Context>,
    id: TaskId,
    mut wanted: Wanted,
    found: Option<Found>,
) {
    let driver = Driver { context, id };
    let first = wanted.borrow_and_update().clone();
    if let Some(task) = first {
        let over = task.status.state.is_final() && task.released;
        if !over {
            let end = driver.live(&task, &mut wanted, found).await;
            driver.end(end).await;
        }
        // What is left, the output above all, stays until the managers forget the task.
        while wanted.borrow_and_update().is_some() {
            if wanted.changed().await.is_err() {
                return;
            }
        }
    } else {
        driver.unplumb().await;
    }
    driver.remove().await;
}

struct Driver {
    context: Arc<Context>,
    id: TaskId,
}

impl Driver {
    fn holder(&self) -> Holder {
        Holder::Task(self.id)
    }

    /// Everything up to the end of the container.
    async fn live(&self, task: &Task, wanted: &mut Wanted, found: Option<Found>) -> End {
        let container = make::container_id(self.id);
        match found {
            Some(found) => match found.status.phase.clone() {
                Phase::Running => {
                    if let Err(why) = self.adopt(&found).await {
                        tracing::warn!(task = %self.id, why, "names are not answered");
                    }
                    self.running(task, found.status.pid.unwrap_or(0), wanted).await
                }
                Phase::Exited(exit) => End::of(&exit, is_wanted(wanted)),
                Phase::Failed { reason } => End::failed(reason),
                // Half made: begun anew, with the same addresses.
                Phase::Created | Phase::Starting => {
                    if let Err(error) = self.context.runtime.remove(&container).await {
                        return End::failed(chain(&error));
                    }
                    self.begin(task, wanted).await
                }
            },
            None if task.status.state > TaskState::Preparing => {
                End::failed("the container is gone; the machine was restarted, perhaps")
            }
            None => self.begin(task, wanted).await,
        }
    }

    async fn begin(&self, task: &Task, wanted: &mut Wanted) -> End {
        if !is_wanted(wanted) {
            return End::shutdown();
        }
        self.report(task_report(self.id, TaskState::Preparing, "preparing"));
        match self.make(task, wanted).await {
            Ok(Some(pid)) => self.running(task, pid, wanted).await,
            Ok(None) => End::shutdown(),
            Err(end) => end,
        }
    }

    /// Makes, plumbs and starts the container; nothing if it is no longer wanted.
    async fn make(&self, task: &Task, wanted: &mut Wanted) -> Result<Option<i32>, End> {
        let config = self.config(task)?;
        let created = self
            .context
            .runtime
            .create(config)
            .await
            .map_err(|error| End::failed(chain(&error)))?;
        self.plumb(task, created)?;
        if !self.is_plumbed(wanted).await? {
            return Ok(None);
        }
        self.report(task_report(self.id, TaskState::Starting, "starting"));
        match self.context.runtime.start(&make::container_id(self.id)).await {
            Ok(pid) => Ok(Some(pid)),
            Err(error) => {
                let mut end = End::failed(why_not_started(&error));
                let status = self.context.runtime.status(&make::container_id(self.id)).await;
                if let Ok(Phase::Exited(exit)) = status.map(|status| status.phase) {
                    end.exit_code = Some(exit.code);
                }
                Err(end)
            }
        }
    }

    fn config(&self, task: &Task) -> Result<crate::container::ContainerConfig, End> {
        let assigned = self.context.assigned.borrow().clone();
        let sorted = Sorted::new(&assigned.1);
        let endpoints: Vec<_> =
            task.attachments.iter().filter_map(|id| sorted.endpoints.get(id).copied()).collect();
        if endpoints.len() != task.attachments.len() {
            return Err(End::failed("the addresses of the task are not known here"));
        }
        make::config(task, &endpoints).map_err(End::failed)
    }

    /// Gives the sandbox to the loop that plumbs it, and its sockets to the resolver.
    fn plumb(&self, task: &Task, created: Created) -> Result<(), End> {
        let local = LocalSandbox {
            netns: created.netns,
            dns_port: created.dns.as_ref().map(|dns| dns.port),
            attachments: task.attachments.clone(),
            ifname: None,
            default_gateway: true,
        };
        if let Some(dns) = created.dns {
            self.context
                .names
                .add_unknown(&self.id.to_string(), dns.udp, dns.tcp)
                .map_err(End::failed)?;
        }
        let resolving = make::resolving(task);
        self.context.plumbing.put(self.holder(), Plumbed { local, resolving });
        Ok(())
    }

    /// Waits until the kernel has what the sandbox needs; false when it is no longer wanted.
    async fn is_plumbed(&self, wanted: &mut Wanted) -> Result<bool, End> {
        let mut standing = self.context.plumbing.standing();
        let deadline = tokio::time::Instant::now() + PLUMBING_DEADLINE;
        loop {
            let trouble = {
                let now = standing.borrow_and_update();
                if now.sandboxes.contains(&self.holder()) {
                    match now.troubled.get(&self.holder()) {
                        None => return Ok(true),
                        Some(why) => Some(why.clone()),
                    }
                } else {
                    None
                }
            };
            if !is_wanted(wanted) {
                return Ok(false);
            }
            tokio::select! {
                _ = standing.changed() => {}
                _ = wanted.changed() => {}
                () = tokio::time::sleep_until(deadline) => {
                    let why = trouble.unwrap_or_else(|| "the kernel was not looked at".to_owned());
                    return Err(End::failed(format!("network: {why}")));
                }
            }
        }
    }

    /// Takes over a container that runs: its sandbox is plumbed already.
    async fn adopt(&self, found: &Found) -> Result<(), String> {
        let sandbox = plumbed(found).ok_or("its configuration is lost")?;
        let dns =
            self.context.runtime.dns_sockets(&found.id).await.map_err(|error| error.to_string())?;
        self.context
            .names
            .add_unknown(&self.id.to_string(), dns.udp, dns.tcp)
            .map_err(|error| error.to_string())?;
        self.context.plumbing.put(self.holder(), sandbox);
        self.context.plumbing.look_again();
        Ok(())
    }

    /// Waits for the end, and brings it about when the task is no longer wanted, or not well. With a
    /// health check the task runs once a check has succeeded.
    async fn running(&self, task: &Task, pid: i32, wanted: &mut Wanted) -> End {
        let mut report = task_report(self.id, TaskState::Running, "started");
        report.pid = u32::try_from(pid).unwrap_or(0);
        let (mut health, _watching) = self.check(task);
        let container = make::container_id(self.id);
        let exit = self.context.runtime.wait(&container);
        tokio::pin!(exit);
        let mut is_told = false;
        loop {
            if !is_wanted(wanted) {
                return self.stop(task, None).await;
            }
            let seen = health.borrow_and_update().clone();
            match seen {
                Some(Health { state: HealthState::Unhealthy, probes, .. }) => {
                    let why = unwell::reason(probes.back());
                    if is_told {
                        // From now on nobody is to find it.
                        report.unhealthy = true;
                        self.report(report);
                    }
                    return self.stop(task, Some(why)).await;
                }
                Some(Health { state: HealthState::Starting, .. }) => {}
                Some(Health { state: HealthState::Healthy, .. }) | None => {
                    if !is_told {
                        self.report(report.clone());
                    }
                    is_told = true;
                }
            }
            tokio::select! {
                exit = &mut exit => return match exit {
                    Ok(exit) => End::of(&exit, is_wanted(wanted)),
                    Err(error) => End::failed(chain(&error)),
                },
                // With nothing to check there is no sender.
                Ok(()) = health.changed() => {}
                changed = wanted.changed() => if changed.is_err() {
                    // The daemon ends; the container does not.
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Begins to check the container's health, if its spec has a check.
    fn check(&self, task: &Task) -> (watch::Receiver<Option<Health>>, Option<health::Watching>) {
        // What an earlier run of the daemon has seen healthy is so until checks say otherwise.
        let was_healthy = task.status.state == TaskState::Running;
        let state = if was_healthy { HealthState::Healthy } else { HealthState::Starting };
        let checked = Checked {
            runtime: Arc::clone(&self.context.runtime),
            id: make::container_id(self.id),
            health: Health::unprobed(state),
        };
        let spec = task.container.health.as_ref();
        let first = health::command(spec).map(|_| checked.health.clone());
        if let Some(health) = &first {
            self.context.health.note(self.id, health.clone());
        }
        let (seen, seeing) = watch::channel(first);
        let (id, book) = (self.id, Arc::clone(&self.context.health));
        let watching = health::watch(checked, spec, move |health| {
            book.note(id, health.clone());
            seen.send_replace(Some(health.clone()));
        });
        (seeing, watching)
    }

    /// Stops the container, which is not wanted any more, or not well.
    async fn stop(&self, task: &Task, unhealthy: Option<String>) -> End {
        let container = make::container_id(self.id);
        match self.context.runtime.stop(&container, task.container.stop_grace).await {
            Ok(exit) => match unhealthy {
                None => End::of(&exit, false),
                Some(why) => End { exit_code: Some(exit.code), ..End::failed(why) },
            },
            Err(error) => End::failed(chain(&error)),
        }
    }

    /// Tells that the container has ended, lets go of its network, and tells that.
    async fn end(&self, end: End) {
        self.context.health.forget(self.id);
        let mut report = task_report(self.id, end.state, &end.message);
        report.error = end.error;
        report.exit_code = end.exit_code;
        self.report(report.clone());
        self.unplumb().await;
        while let Err(error) = self.context.runtime.release(&make::container_id(self.id)).await {
            tracing::warn!(task = %self.id, %error, "the container holds on");
            tokio::time::sleep(REMOVAL_RETRY).await;
        }
        report.released = true;
        self.report(report);
    }

    async fn unplumb(&self) {
        // It may never have been served.
        let _ = self.context.names.remove(&self.id.to_string());
        let mut standing = self.context.plumbing.standing();
        self.context.plumbing.take(self.holder());
        let gone = standing.wait_for(|standing| !standing.sandboxes.contains(&self.holder()));
        // If the loop is stuck, the links go with the namespace, which goes with the container.
        let _ = tokio::time::timeout(UNPLUMBING_DEADLINE, gone).await;
    }

    async fn remove(&self) {
        while let Err(error) = self.context.runtime.remove(&make::container_id(self.id)).await {
            tracing::warn!(task = %self.id, %error, "the container cannot be removed");
            tokio::time::sleep(REMOVAL_RETRY).await;
        }
        self.context.reports.forget(self.id);
    }

    fn report(&self, report: TaskReport) {
        tracing::info!(task = %self.id.short(), state = %report.state, error = report.error, "task");
        self.context.reports.note(report);
    }
}

/// The container's name is known to whoever reads the reason, and what the library says after the
/// first line is the same again.
fn why_not_started(error: &Error) -> String {
    match error {
        Error::NotStarted { reason, .. } => {
            format!("cannot start: {}", reason.lines().next().unwrap_or_default())
        }
        other => chain(other),
    }
}

fn is_wanted(wanted: &mut Wanted) -> bool {
    wanted.borrow_and_update().as_ref().is_some_and(|task| task.desired == Desired::Running)
}

fn task_report(task: TaskId, state: TaskState, message: &str) -> TaskReport {
    TaskReport {
        task,
        state,
        message: message.to_owned(),
        error: String::new(),
        exit_code: None,
        pid: 0,
        released: false,
        unhealthy: false,
    }
}
