//! The loop that keeps the kernel and the names as the assignments and the sandboxes want them.
//!
//! Level-triggered: new assignments, a sandbox that comes or goes, a kernel event and a slow timer
//! all mean "look again". Names are published only after the kernel can carry what they point at.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle, time::Instant};
use weft_dns::{Asker, Server, Synced, asker::Outside};
use weft_model::{Assignments, State, object::Holder};
use weft_overlay::{Completeness, Dataplane, FOREIGN_DROP_HINT, Report, Scope};

use crate::{
    desired::{LocalSandbox, LocalSandboxes, Sorted, holder_of, key_of, troubles},
    local::{self, Defaults},
    metrics::{self, Spread},
    tunnel::End,
};

mod kernel;

pub use kernel::{Gone, HostKernel, LiveKernel};

/// How long changes are gathered before the kernel is looked at: a burst of tasks costs one look.
const DEBOUNCE: Duration = Duration::from_millis(2);
/// How often everything is looked at though nothing has happened.
const RESYNC: Duration = Duration::from_secs(30);
/// How soon it is tried again after the kernel refused something; doubles up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_millis(100);
/// Longest time between two tries.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// A kernel that changes all the time must not keep the loop busy: at most one look in this time.
const EVENT_PAUSE: Duration = Duration::from_millis(20);

/// What a sandbox asks names with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolving {
    /// Servers for names that are not ours.
    pub upstreams: Vec<SocketAddr>,
    /// What the user set.
    pub ndots: Option<u8>,
}

/// One sandbox of this node, as the loop needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plumbed {
    /// Where it is and what it is attached to.
    pub local: LocalSandbox,
    /// What it asks names with.
    pub resolving: Resolving,
}

/// Where the loop stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Number of looks that ended.
    pub looks: u64,
    /// Of the assignments that the kernel agrees with.
    pub revision: u64,
    /// Of the assignments that the last look was for, whatever came of it.
    pub seen: u64,
    /// Sandboxes that were in the last look.
    pub sandboxes: BTreeSet<Holder>,
    /// Those that are not as wanted, and why.
    pub troubled: BTreeMap<Holder, String>,
    /// Revision of this node's own state that the last look was for.
    pub own: u64,
    /// What else the kernel refused, in words.
    pub errors: Vec<String>,
    /// Objects that were put back after they were found missing or changed.
    pub repairs: u64,
    /// Changes that the kernel refused, since the start, by what they were of.
    pub failures: BTreeMap<&'static str, u64>,
    /// How long the looks took, with the changes they led to.
    pub applying: Spread,
    /// Whether another firewall drops forwarded packets where no exception can be made.
    pub foreign_drop: bool,
}

/// The loop's handle. Dropping it ends the loop and changes nothing in the kernel.
#[derive(Debug)]
pub struct Plumbing {
    sandboxes: watch::Sender<BTreeMap<Holder, Plumbed>>,
    standing: watch::Receiver<Standing>,
    task: JoinHandle<()>,
}

impl Drop for Plumbing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How far the assignments can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// There are none, though the node may be in a cluster.
    None,
    /// There can be none: the node is in no cluster, and nothing of one is wanted.
    Alone,
    /// From this node's disk: enough to go on with.
    Kept,
    /// From a manager, in this run: what is not in them is not wanted.
    Managers,
}

impl Source {
    /// Whether what is not in the assignments is not wanted.
    fn completeness(self) -> Completeness {
        match self {
            Self::None | Self::Kept => Completeness::Partial,
            Self::Alone | Self::Managers => Completeness::Complete,
        }
    }
}

/// The assignments and where they came from.
pub type Assigned = (Source, Arc<Assignments>);

/// What the loop needs of this node's own networks and containers.
#[derive(Clone, Debug)]
pub struct Own {
    /// They; on the disk, so complete from the first look on.
    pub state: watch::Receiver<Arc<State>>,
    /// What the daemon was told.
    pub defaults: Arc<Defaults>,
}

impl Plumbing {
    /// Starts the loop over `kernel`, with the sandboxes that were adopted from an earlier run: the
    /// first look must not take them for strangers.
    pub fn start(
        kernel: impl HostKernel,
        assigned: watch::Receiver<Assigned>,
        own: Option<Own>,
        end: watch::Receiver<Arc<End>>,
        names: Arc<Server>,
        adopted: BTreeMap<Holder, Plumbed>,
    ) -> Self {
        let (sandboxes, wanted) = watch::channel(adopted);
        let (told, standing) = watch::channel(Standing::default());
        let task = tokio::spawn(Loop { kernel, assigned, own, end, wanted, names, told }.run());
        Self { sandboxes, standing, task }
    }

    /// Adds a sandbox, or changes it.
    pub fn put(&self, holder: Holder, plumbed: Plumbed) {
        self.sandboxes
            .send_if_modified(|all| all.insert(holder, plumbed.clone()).as_ref() != Some(&plumbed));
    }

    /// Takes a sandbox away.
    pub fn take(&self, holder: Holder) {
        self.sandboxes.send_if_modified(|all| all.remove(&holder).is_some());
    }

    /// Asks for a look though nothing has changed: a sandbox began to be served.
    pub fn look_again(&self) {
        self.sandboxes.send_modify(|_| {});
    }

    /// Where the loop stands.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Waits until the kernel has what a sandbox needs as of this revision of the node's own state.
    /// Abandoned, it has changed nothing.
    ///
    /// # Errors
    /// What the kernel refuses, when `patience` is over.
    pub async fn carried(
        &self,
        holder: Holder,
        own: u64,
        patience: Duration,
    ) -> Result<(), String> {
        let mut standing = self.standing();
        let carries = |now: &Standing| {
            now.own >= own && now.sandboxes.contains(&holder) && !now.troubled.contains_key(&holder)
        };
        let carried = standing.wait_for(carries);
        match tokio::time::timeout(patience, carried).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err("the data plane has ended".to_owned()),
            Err(_) => {
                let trouble = self.standing.borrow().troubled.get(&holder).cloned();
                Err(trouble.unwrap_or_else(|| "the kernel was not looked at".to_owned()))
            }
        }
    }

    /// Takes a sandbox away and waits until the kernel has let go of it; if the loop is stuck, not
    /// longer than `patience`: the links go with the namespace anyway.
    pub async fn let_go(&self, holder: Holder, patience: Duration) {
        let mut standing = self.standing();
        self.take(holder);
        let gone = standing.wait_for(|standing| !standing.sandboxes.contains(&holder));
        let _ = tokio::time::timeout(patience, gone).await;
    }
}

/// Who a sandbox is to the resolver.
pub(crate) fn asker_of(plumbed: &Plumbed, sorted: &Sorted<'_>) -> Asker {
    let (networks, way_out) = sorted.membership(&plumbed.local.attachments);
    Asker {
        networks,
        upstreams: plumbed.resolving.upstreams.clone(),
        outside: if way_out { Outside::Open } else { Outside::Closed },
        ndots: plumbed.resolving.ndots,
        ..Asker::default()
    }
}

struct Loop<K> {
    kernel: K,
    assigned: watch::Receiver<Assigned>,
    own: Option<Own>,
    end: watch::Receiver<Arc<End>>,
    wanted: watch::Receiver<BTreeMap<Holder, Plumbed>>,
    names: Arc<Server>,
    told: watch::Sender<Standing>,
}

impl<K: HostKernel> Loop<K> {
    async fn run(mut self) {
        let mut scope = Scope::Full;
        let mut retry = RETRY;
        let mut settled: Option<Arc<Dataplane>> = None;
        let mut dropped = false;
        loop {
            let seen = self.look();
            let local: LocalSandboxes = seen
                .sandboxes
                .iter()
                .map(|(holder, plumbed)| (*holder, plumbed.local.clone()))
                .collect();
            let sorted = Sorted::new(&seen.assignments);
            let own = seen.own(&sorted, &local);
            let mut desired = sorted.dataplane(&local);
            desired.tunnel = sorted.tunnel(&seen.end);
            if let Some(own) = &own {
                own.add_to(&mut desired);
            }
            let desired = Arc::new(desired);
            let same = settled.as_ref().is_some_and(|settled| *settled == desired);
            let began = Instant::now();
            // A node of whose cluster nothing is known has nothing to do, but for its own.
            let looked = if seen.source == Source::None && own.is_none() {
                Ok(Report::default())
            } else {
                let completeness = seen.source.completeness();
                self.kernel.reconcile(Arc::clone(&desired), completeness, scope).await
            };
            let report = match looked {
                Ok(report) => report,
                Err(error) => return tracing::error!(%error, "the data plane has ended"),
            };
            for failure in &report.failed {
                tracing::warn!(op = %failure.op, error = %failure.error, "the kernel refuses");
            }
            if report.foreign_drop && !dropped {
                tracing::warn!(hint = FOREIGN_DROP_HINT, "another firewall is in the way");
            }
            dropped = report.foreign_drop;
            let repaired = if same { report.executed.len() } else { 0 };
            if repaired > 0 {
                let first = report.executed.first().map(ToString::to_string).unwrap_or_default();
                tracing::info!(objects = repaired, first, "put back what was found changed");
            }
            self.publish_names(&seen, &sorted, own.as_ref());
            let troubles = troubles(&desired, &report, |id| seen.name_of(&sorted, id));
            self.tell(&seen, &report, &troubles, repaired, began.elapsed());
            let wait = if report.is_settled() {
                settled = Some(desired);
                retry = RETRY;
                RESYNC
            } else {
                settled = None;
                retry = (retry * 2).min(RETRY_MAX);
                retry
            };
            scope = self.next_look(wait).await;
        }
    }

    /// What is wanted now.
    fn look(&mut self) -> Seen {
        let (source, assignments) = self.assigned.borrow_and_update().clone();
        let own = self.own.as_mut().map(|own| {
            let state = own.state.borrow_and_update().clone();
            (state, Arc::clone(&own.defaults))
        });
        let sandboxes = self.wanted.borrow_and_update().clone();
        // After the assignments: keys that they ask for were made before.
        let end = Arc::clone(&self.end.borrow_and_update());
        Seen { source, assignments, own, end, sandboxes }
    }

    /// Waits for a reason to look again, and says where to look.
    async fn next_look(&mut self, wait: Duration) -> Scope {
        let at = Instant::now() + wait;
        let wish = wish(&mut self.assigned, self.own.as_mut(), &mut self.end, &mut self.wanted);
        tokio::pin!(wish);
        tokio::select! {
            () = &mut wish => {}
            () = self.kernel.changed() => {
                let pause = tokio::time::sleep(EVENT_PAUSE);
                tokio::select! {
                    // Only the kernel is made to wait.
                    () = &mut wish => {}
                    () = pause => return Scope::Changed(BTreeSet::new()),
                }
            }
            () = tokio::time::sleep_until(at) => return Scope::Full,
        }
        tokio::time::sleep(DEBOUNCE).await;
        Scope::Changed(BTreeSet::new())
    }

    fn publish_names(&self, seen: &Seen, sorted: &Sorted<'_>, own: Option<&local::plane::Own<'_>>) {
        if seen.source == Source::None && own.is_none() {
            return;
        }
        let synced = if seen.source == Source::Alone { Synced::Complete } else { Synced::NotYet };
        self.names.publish(sorted.zones(own.map(|own| own.names()).unwrap_or_default(), synced));
        for (holder, plumbed) in &seen.sandboxes {
            let asker = match (holder, own) {
                (Holder::Container(id), Some(own)) => own.asker(*id, &plumbed.resolving),
                (Holder::Container(_) | Holder::Task(_) | Holder::Foreign(_), _) => {
                    asker_of(plumbed, sorted)
                }
            };
            // A sandbox that is not served yet, or no longer, is told when it is added.
            let _ = self.names.update(&key_of(*holder), asker);
        }
    }

    fn tell(
        &self,
        seen: &Seen,
        report: &Report,
        troubled: &BTreeMap<String, String>,
        repaired: usize,
        took: Duration,
    ) {
        let revision = seen.assignments.revision;
        self.told.send_modify(|standing| {
            standing.looks += 1;
            standing.seen = revision;
            standing.own = seen.own.as_ref().map_or(0, |(state, _)| state.revision());
            if report.is_settled() {
                standing.revision = revision;
            }
            standing.sandboxes = seen.sandboxes.keys().copied().collect();
            standing.troubled = troubled
                .iter()
                .filter_map(|(key, why)| Some((holder_of(key)?, why.clone())))
                .collect();
            standing.errors = report.failed.iter().map(ToString::to_string).collect();
            standing.repairs += repaired as u64;
            for failure in &report.failed {
                *standing.failures.entry(metrics::kind(&failure.op.object)).or_default() += 1;
            }
            standing.applying.note(took);
            standing.foreign_drop = report.foreign_drop;
        });
    }
}

/// Waits until something else is wanted than at the last look.
async fn wish(
    assigned: &mut watch::Receiver<Assigned>,
    own: Option<&mut Own>,
    end: &mut watch::Receiver<Arc<End>>,
    sandboxes: &mut watch::Receiver<BTreeMap<Holder, Plumbed>>,
) {
    let own = async {
        let changed = match own {
            Some(own) => own.state.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            // There is none, or it ends with the worker.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = own => {}
        _ = assigned.changed() => {}
        _ = end.changed() => {}
        _ = sandboxes.changed() => {}
    }
}

/// What one look is for.
struct Seen {
    source: Source,
    assignments: Arc<Assignments>,
    own: Option<(Arc<State>, Arc<Defaults>)>,
    end: Arc<End>,
    sandboxes: BTreeMap<Holder, Plumbed>,
}

impl Seen {
    /// What users call a network, the cluster's or this node's.
    fn name_of(&self, sorted: &Sorted<'_>, id: &str) -> Option<String> {
        let id = id.parse().ok()?;
        let shared = sorted.networks.get(&id).map(|network| network.name.clone());
        let own = || Some(self.own.as_ref()?.0.network(id)?.spec.name.clone());
        shared.or_else(own)
    }

    fn own<'a>(
        &'a self,
        sorted: &'a Sorted<'a>,
        sandboxes: &'a LocalSandboxes,
    ) -> Option<local::plane::Own<'a>> {
        let (state, defaults) = self.own.as_ref()?;
        Some(local::plane::Own { state, defaults, sorted, sandboxes })
    }
}

#[cfg(test)]
mod tests;
