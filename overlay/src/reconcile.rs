//! Observe, plan, apply, put together: once as a plain function over any kernel, once for async callers.

use std::collections::{BTreeMap, BTreeSet};

use crate::dataplane::{Dataplane, NetnsRef};
use crate::kernel::{HostLook, Kernel, KernelError, Look, Observation, SandboxLook};
use crate::lower::{Facts, Wanted, lower};
use crate::op::Op;
use crate::plan::plan;
use crate::plane::{self, Key, Object, Objects, Place};

mod service;

pub use crate::plan::Completeness;
pub use service::{Changes, Reconciler, ReconcilerError};

/// How often one call looks again after an operation failed: `EEXIST` and `ENOENT` are no failures if the
/// next look agrees, and what depends on a failed operation gets its second chance.
const ROUNDS: u32 = 2;

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere, kernel parameters included.
    Full,
    /// At the host, at sandboxes whose wish changed, whose port is not in order, or which are named here.
    Changed(BTreeSet<String>),
}

/// What one reconciliation did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Operations in the order they were executed, failed ones included.
    pub executed: Vec<Op>,
    /// Operations that failed and whose effect is still missing.
    pub failed: Vec<Failure>,
    /// Places that could not be looked at: the host (`None`) or sandboxes, by key.
    pub unreachable: BTreeMap<Option<String>, KernelError>,
    /// Whether a firewall that is not ours drops forwarded packets by default, and offers no place for an
    /// exception: containers may not get out. The fix is a rule of the administrator's that accepts packets
    /// with mark 0x1000/0x1000 ([`FOREIGN_DROP_HINT`]).
    pub foreign_drop: bool,
}

/// What to tell an administrator when [`Report::foreign_drop`] is set.
pub const FOREIGN_DROP_HINT: &str =
    "another firewall drops forwarded packets; let it accept those with mark 0x1000/0x1000";

impl Report {
    /// Whether the kernel is as wanted.
    pub fn is_settled(&self) -> bool {
        self.failed.is_empty() && self.unreachable.is_empty()
    }

    /// The keys of sandboxes that are not as wanted, with the reason.
    pub fn troubled(&self) -> BTreeMap<String, String> {
        let failed = self.failed.iter().filter_map(|failure| match &failure.op.place {
            Place::Sandbox(key) => Some((key.clone(), failure.to_string())),
            Place::Host => None,
        });
        let unreachable = self.unreachable.iter();
        let unreachable =
            unreachable.filter_map(|(key, error)| Some((key.clone()?, error.to_string())));
        failed.chain(unreachable).collect()
    }
}

/// One operation that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{op}: {error}")]
pub struct Failure {
    /// The operation.
    pub op: Op,
    /// Why.
    pub error: KernelError,
}

/// The loop over one kernel. It remembers what was settled, nothing else: a new one finds out by looking.
#[derive(Debug)]
pub struct Driver<K> {
    kernel: K,
    settled: BTreeMap<String, (NetnsRef, Objects)>,
    /// Operations that failed and that no look would plan again: flows are not observed.
    unfinished: Vec<Op>,
}

impl<K: Kernel> Driver<K> {
    /// A loop that has seen nothing yet.
    pub fn new(kernel: K) -> Self {
        Self { kernel, settled: BTreeMap::new(), unfinished: Vec::new() }
    }

    /// The kernel.
    pub fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// Looks, plans and applies. Goes on after failures and reports them all.
    pub fn reconcile(
        &mut self,
        desired: &Dataplane,
        completeness: Completeness,
        scope: &Scope,
    ) -> Report {
        let mut report = Report::default();
        for round in 1..=ROUNDS {
            let Some((wanted, seen)) = self.look(desired, scope, &mut report) else {
                return report;
            };
            let mut ops = plan(&wanted, &seen.plane, completeness);
            ops.append(&mut self.unfinished);
            if ops.is_empty() {
                report.failed.clear();
                self.remember(desired, &wanted, &seen, &report);
                break;
            }
            report.failed = self.apply(&ops);
            let unseen = |failure: &&Failure| matches!(failure.op.object, Object::Flows { .. });
            self.unfinished
                .extend(report.failed.iter().filter(unseen).map(|failure| failure.op.clone()));
            report.executed.extend(ops);
            self.remember(desired, &wanted, &seen, &report);
            if report.failed.is_empty() || round == ROUNDS {
                break;
            }
        }
        if completeness == Completeness::Complete {
            let keep = desired.sandboxes.iter();
            self.kernel.release(
                &keep.map(|(key, sandbox)| (key.clone(), sandbox.netns.clone())).collect(),
            );
            self.settled.retain(|key, _| desired.sandboxes.contains_key(key));
            self.unfinished.retain(|op| match &op.place {
                Place::Host => true,
                Place::Sandbox(key) => desired.sandboxes.contains_key(key),
            });
        }
        report
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Failure> {
        let results = self.kernel.execute(ops);
        let failures = ops
            .iter()
            .zip(results)
            .filter_map(|(op, result)| Some(Failure { op: op.clone(), error: result.err()? }));
        failures.collect()
    }

    /// Looks at the host, then at the sandboxes that need it.
    fn look(
        &mut self,
        desired: &Dataplane,
        scope: &Scope,
        report: &mut Report,
    ) -> Option<(Wanted, Observation)> {
        let vtep = desired.underlay.as_ref().map(|underlay| underlay.vtep);
        // The names of the parameters do not depend on the facts, only whether two of them are wanted.
        let first = lower(desired, Facts::default());
        let sysctls = first.plane.places.get(&Place::Host).map(sysctls).unwrap_or_default();
        let host = Some(HostLook { vtep, sysctls });
        let mut seen = self.kernel.observe(&Look { host, sandboxes: BTreeMap::new() });
        report.unreachable = seen.errors.clone();
        if !seen.plane.places.contains_key(&Place::Host) {
            return None;
        }
        report.foreign_drop = seen.facts.foreign_drop && !desired.networks.is_empty();
        let wanted = lower(desired, seen.facts);
        let sandboxes = self.sandboxes_to_see(desired, &wanted, &seen, scope);
        let inside = self.kernel.observe(&Look { host: None, sandboxes });
        seen.plane.places.extend(inside.plane.places);
        report.unreachable.extend(inside.errors);
        Some((wanted, seen))
    }

    fn sandboxes_to_see(
        &self,
        desired: &Dataplane,
        wanted: &Wanted,
        seen: &Observation,
        scope: &Scope,
    ) -> BTreeMap<String, SandboxLook> {
        let disturbed = disturbed(wanted, seen);
        let mut looks = BTreeMap::new();
        for (key, sandbox) in &desired.sandboxes {
            let Some(objects) = wanted.plane.places.get(&Place::Sandbox(key.clone())) else {
                continue;
            };
            let settled = self.settled.get(key);
            let same =
                settled.is_some_and(|(netns, old)| *netns == sandbox.netns && old == objects);
            let (look, parameters) = match scope {
                Scope::Full => (true, true),
                Scope::Changed(named) => {
                    (!same || named.contains(key) || disturbed.contains(key), !same)
                }
            };
            if look {
                let links = objects.values().filter_map(link_name).collect();
                let sysctls = if parameters { sysctls(objects) } else { BTreeSet::new() };
                let netns = Some(sandbox.netns.clone());
                looks.insert(key.clone(), SandboxLook { netns, links, sysctls });
            }
        }
        for key in self.kernel.held() {
            let empty =
                SandboxLook { netns: None, links: BTreeSet::new(), sysctls: BTreeSet::new() };
            if !desired.sandboxes.contains_key(&key) {
                looks.insert(key, empty);
            }
        }
        looks
    }

    /// Notes which sandboxes were seen and left with nothing failed.
    fn remember(
        &mut self,
        desired: &Dataplane,
        wanted: &Wanted,
        seen: &Observation,
        report: &Report,
    ) {
        let failed = |place: &Place| report.failed.iter().any(|failure| failure.op.place == *place);
        for (place, objects) in &wanted.plane.places {
            let Place::Sandbox(key) = place else { continue };
            let Some(sandbox) = desired.sandboxes.get(key) else { continue };
            if failed(place) {
                self.settled.remove(key);
            } else if seen.plane.places.contains_key(place) {
                self.settled.insert(key.clone(), (sandbox.netns.clone(), objects.clone()));
            }
        }
    }
}

/// Sandboxes whose outer end is not there.
fn disturbed(wanted: &Wanted, seen: &Observation) -> BTreeSet<String> {
    let host = seen.plane.places.get(&Place::Host);
    let missing = |name: &String| {
        host.and_then(|host| plane::link(host, name)).is_none_or(|link| {
            let wish =
                wanted.plane.places.get(&Place::Host).and_then(|host| plane::link(host, name));
            wish.is_some_and(|wish| wish.kind != link.kind)
        })
    };
    let pairs = wanted.pairs.iter().filter(|(name, _)| missing(name));
    pairs.map(|(_, end)| end.sandbox.clone()).collect()
}

fn sysctls(objects: &Objects) -> BTreeSet<String> {
    let paths = objects.keys().filter_map(|key| match key {
        Key::Sysctl(path) => Some(path.clone()),
        _ => None,
    });
    paths.collect()
}

fn link_name(object: &Object) -> Option<String> {
    match object {
        Object::Link(name, _) => Some(name.clone()),
        _ => None,
    }
}
