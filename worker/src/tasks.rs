//! The tasks of this node: one driver for each, which takes its container from nothing to its end.
//!
//! A driver is told what is wanted through a `watch`, so it sees the newest wish only. Whatever step
//! a crash interrupts, the next run finds the container in its directories and goes on from there.

mod driver;
mod make;
mod unwell;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use tokio::{
    sync::watch,
    task::{Id, JoinSet},
};
use weft_model::{Task, TaskId, object::Holder};

use crate::{
    container::{Found, Phase, Runtime},
    desired::{LocalSandbox, Sorted},
    health::HealthBook,
    plumbing::{Assigned, Plumbed, Plumbing, Resolving, Source},
    report::ReportBook,
};

pub use make::{attachments_label, labels};
pub(crate) use make::{host_resolv_conf, of_spec};

/// What drivers work with.
pub struct Context {
    /// Runs containers.
    pub runtime: Arc<dyn Runtime>,
    /// Gives them their networks.
    pub plumbing: Plumbing,
    /// Answers their names.
    pub names: Arc<weft_dns::Server>,
    /// Where what they see goes.
    pub reports: Arc<ReportBook>,
    /// How well the containers are.
    pub health: Arc<HealthBook>,
    /// What this node is told.
    pub assigned: watch::Receiver<Assigned>,
}

/// The containers that an earlier run left, by task.
pub type Leftovers = BTreeMap<TaskId, Found>;

/// Sorts what the runtime found: containers of tasks, and others that nobody knows.
pub fn sort_found(found: Vec<Found>) -> (Leftovers, Vec<Found>) {
    let mut leftovers = Leftovers::new();
    let mut strangers = Vec::new();
    for found in found {
        match found.id.as_str().parse() {
            Ok(task) => {
                leftovers.insert(task, found);
            }
            Err(_) => strangers.push(found),
        }
    }
    (leftovers, strangers)
}

/// The sandboxes of containers that run: the first look at the kernel must know them.
pub fn adopted(leftovers: &Leftovers) -> BTreeMap<Holder, Plumbed> {
    leftovers
        .iter()
        .filter(|(_, found)| found.status.phase == Phase::Running)
        .filter_map(|(task, found)| Some((Holder::Task(*task), plumbed(found)?)))
        .collect()
}

fn plumbed(found: &Found) -> Option<Plumbed> {
    let config = found.config.as_ref()?;
    let local = LocalSandbox {
        netns: found.netns()?,
        dns_port: found.status.dns_port,
        attachments: attachments_label(&config.labels),
        ifname: None,
        default_gateway: true,
    };
    // The overrides are in the text that the container got; the host's servers may have changed.
    let resolving = make::resolving_of(&config.resolv_conf, &make::host_resolv_conf());
    Some(Plumbed { local, resolving })
}

/// Runs a driver for each assigned task, for ever.
pub async fn run(
    context: Arc<Context>,
    mut assigned: watch::Receiver<Assigned>,
    mut leftovers: Leftovers,
) {
    let mut drivers = Drivers::default();
    loop {
        let (source, assignments) = assigned.borrow_and_update().clone();
        let sorted = Sorted::new(&assignments);
        for (id, task) in &sorted.tasks {
            drivers.want(&context, *id, task, &mut leftovers);
        }
        if source == Source::Managers {
            drivers.drop_others(&sorted);
            for (id, found) in std::mem::take(&mut leftovers) {
                drivers.spawn_removal(&context, id, found);
            }
        }
        loop {
            tokio::select! {
                changed = assigned.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                Some(ended) = drivers.set.join_next_with_id() => drivers.reap(ended),
            }
        }
    }
}

#[derive(Default)]
struct Drivers {
    wanted: BTreeMap<TaskId, watch::Sender<Option<Arc<Task>>>>,
    ids: BTreeMap<Id, TaskId>,
    set: JoinSet<()>,
}

impl Drivers {
    fn want(&mut self, context: &Arc<Context>, id: TaskId, task: &Task, leftovers: &mut Leftovers) {
        if let Some(driver) = self.wanted.get(&id) {
            driver.send_if_modified(|wanted| {
                let same = wanted.as_deref() == Some(task);
                if !same {
                    *wanted = Some(Arc::new(task.clone()));
                }
                !same
            });
            return;
        }
        let (sender, wanted) = watch::channel(Some(Arc::new(task.clone())));
        let found = leftovers.remove(&id);
        let running = self.set.spawn(driver::drive(Arc::clone(context), id, wanted, found));
        self.ids.insert(running.id(), id);
        self.wanted.insert(id, sender);
    }

    /// Tasks that the managers no longer know end, and nothing of them stays.
    fn drop_others(&self, sorted: &Sorted<'_>) {
        for (_, driver) in self.wanted.iter().filter(|(id, _)| !sorted.tasks.contains_key(id)) {
            driver.send_if_modified(|wanted| wanted.take().is_some());
        }
    }

    fn spawn_removal(&mut self, context: &Arc<Context>, id: TaskId, found: Found) {
        let (sender, wanted) = watch::channel(None);
        let driving = driver::drive(Arc::clone(context), id, wanted, Some(found));
        let running = self.set.spawn(driving);
        self.ids.insert(running.id(), id);
        self.wanted.insert(id, sender);
    }

    fn reap(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "a task's driver has failed");
                error.id()
            }
        };
        if let Some(task) = self.ids.remove(&id) {
            self.wanted.remove(&task);
        }
    }
}

/// Servers a sandbox's other questions go to.
pub fn upstreams(host: &str) -> Vec<SocketAddr> {
    weft_dns::files::upstreams_from_resolv_conf(host)
}

/// What a sandbox asks names with when nothing was set for it.
pub fn default_resolving() -> Resolving {
    Resolving { upstreams: upstreams(&make::host_resolv_conf()), ndots: None }
}
