//! Observe, plan, apply, put together: once as a plain function over any kernel, once for async callers.

use std::collections::{BTreeMap, BTreeSet};

use crate::dataplane::{Dataplane, NetnsRef};
use crate::kernel::{HostLook, Kernel, KernelError, Look, Observation, SandboxLook};
use crate::lower::{
    Cause, Facts, TUNNEL_USERS, Wanted, cause, host_links, host_parameters, inside, outside,
    switches, tunnel_parameters, wired_to, without_switches,
};
use crate::op::{Op, Verb};
use crate::plan::plan;
use crate::plane::{self, Field, Object, Place};

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
    /// Sandboxes that rest on what failed in the host, and why.
    pub affected: BTreeMap<String, String>,
    /// Sandboxes that cannot be attached as is wanted, and why.
    pub refused: BTreeMap<String, String>,
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
        self.failed.is_empty() && self.unreachable.is_empty() && self.refused.is_empty()
    }

    /// The keys of sandboxes that are not as wanted, with the reason.
    pub fn troubled(&self) -> BTreeMap<String, String> {
        let mut troubled = self.affected.clone();
        troubled.extend(self.refused.clone());
        for failure in &self.failed {
            if let Place::Sandbox(key) = &failure.op.place {
                // The first is the cause, what follows its consequences.
                troubled.entry(key.clone()).or_insert_with(|| failure.to_string());
            }
        }
        for (key, error) in &self.unreachable {
            if let Some(key) = key {
                troubled.insert(key.clone(), error.to_string());
            }
        }
        troubled
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
    settled: BTreeMap<String, Cause>,
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
        let mut left = ROUNDS;
        let mut opened = false;
        while left > 0 {
            let Some((wanted, seen)) = self.look(desired, scope, &mut report) else {
                return report;
            };
            report.refused = wanted.refused.clone();
            let places: BTreeSet<Place> = seen.plane.places.keys().cloned().collect();
            let mut ops = plan(&wanted, seen.plane, completeness);
            ops.append(&mut self.unfinished);
            if ops.is_empty() {
                report.failed.clear();
                report.affected.clear();
                self.remember(desired, &places, seen.facts, &report);
                break;
            }
            let opens = ops.iter().any(opens_namespace);
            report.failed = self.apply(&ops);
            report.affected = affected(&report.failed, &wanted);
            let unseen = |failure: &&Failure| {
                matches!(failure.op.object, Object::Flows { .. } | Object::Datagrams { .. })
            };
            self.unfinished
                .extend(report.failed.iter().filter(unseen).map(|failure| failure.op.clone()));
            report.executed.extend(ops);
            self.remember(desired, &places, seen.facts, &report);
            // What is in a new namespace is planned once it can be looked at.
            if opens && !opened {
                opened = true;
                continue;
            }
            left -= 1;
            if report.failed.is_empty() {
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
                Place::Host | Place::Tunnel => true,
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
        let sysctls = host_parameters(desired);
        let host = Some(HostLook {
            vtep,
            links: host_links(desired),
            sysctls,
            switches: switches(desired),
            tunnel: tunnel_parameters(desired),
            thorough: *scope == Scope::Full,
        });
        let mut seen = self.kernel.observe(&Look { host, sandboxes: BTreeMap::new() });
        report.unreachable = seen.errors.clone();
        if !seen.plane.places.contains_key(&Place::Host) {
            return None;
        }
        report.foreign_drop = seen.facts.foreign_drop && !desired.networks.is_empty();
        let mut wanted = outside(desired, seen.facts);
        if let Some(error) = &seen.switch_error {
            without_switches(&mut wanted, desired, &error.to_string());
        }
        let sandboxes = self.sandboxes_to_see(desired, &mut wanted, &seen, scope);
        let within = self.kernel.observe(&Look { host: None, sandboxes });
        seen.plane.places.extend(within.plane.places);
        report.unreachable.extend(within.errors);
        Some((wanted, seen))
    }

    /// Decides which sandboxes to look into, and computes what is wanted inside them.
    fn sandboxes_to_see(
        &self,
        desired: &Dataplane,
        wanted: &mut Wanted,
        seen: &Observation,
        scope: &Scope,
    ) -> BTreeMap<String, SandboxLook> {
        let disturbed = disturbed(wanted, seen);
        let mut looks = BTreeMap::new();
        let same = |key: &String| self.settled.get(key) == cause(desired, key, seen.facts).as_ref();
        let concerned = |key: &String| match scope {
            Scope::Full => true,
            Scope::Changed(named) => !same(key) || named.contains(key) || disturbed.contains(key),
        };
        for (key, sandbox) in &desired.sandboxes {
            let parameters = *scope == Scope::Full || !same(key);
            // A cable is seen at both ends or not at all.
            if concerned(key) || wired_to(key, desired).any(concerned) {
                inside(wanted, desired, key, seen.facts);
                let netns = Some(sandbox.netns.clone());
                looks.insert(key.clone(), look_inside(wanted, key, netns, parameters));
            }
        }
        for key in self.kernel.held() {
            if !desired.sandboxes.contains_key(&key) {
                looks.insert(key.clone(), look_inside(wanted, &key, None, false));
            }
        }
        looks
    }

    /// Notes which sandboxes were seen and left with nothing failed.
    fn remember(
        &mut self,
        desired: &Dataplane,
        seen: &BTreeSet<Place>,
        facts: Facts,
        report: &Report,
    ) {
        let failed: BTreeSet<&Place> =
            report.failed.iter().map(|failure| &failure.op.place).collect();
        for key in desired.sandboxes.keys() {
            let place = Place::Sandbox(key.clone());
            if failed.contains(&place) {
                self.settled.remove(key);
            } else if seen.contains(&place) {
                self.settled.extend(cause(desired, key, facts).map(|cause| (key.clone(), cause)));
            }
        }
    }
}

fn opens_namespace(op: &Op) -> bool {
    op.verb == Verb::Add && op.object == Object::Namespace
}

/// The sandboxes that rest on a link, or on the tunnel, whose making or changing failed, with the first reason.
fn affected(failed: &[Failure], wanted: &Wanted) -> BTreeMap<String, String> {
    let mut affected = BTreeMap::new();
    let shared = |place: &Place| matches!(place, Place::Host | Place::Tunnel);
    for failure in failed.iter().filter(|failure| shared(&failure.op.place)) {
        let names = match &failure.op.object {
            _ if failure.op.place == Place::Tunnel => vec![TUNNEL_USERS],
            Object::Namespace | Object::Wire(_) => vec![TUNNEL_USERS],
            Object::Link(name, _) | Object::Switch { name, .. } => vec![name.as_str()],
            Object::Element(element) => {
                let names = element.key.iter().filter_map(|field| match field {
                    Field::Name(name) => Some(name.as_str()),
                    _ => None,
                });
                names.collect()
            }
            other => other.links(),
        };
        for sandbox in names.into_iter().filter_map(|name| wanted.users.get(name)).flatten() {
            affected.entry(sandbox.clone()).or_insert_with(|| failure.to_string());
        }
    }
    affected
}

/// How to look into one sandbox.
fn look_inside(
    wanted: &Wanted,
    key: &str,
    netns: Option<NetnsRef>,
    parameters: bool,
) -> SandboxLook {
    let objects = wanted.plane.places.get(&Place::Sandbox(key.to_owned()));
    let links = objects.map(|objects| objects.values().filter_map(link_name).collect());
    let sysctls = objects.filter(|_| parameters).map(plane::parameters);
    SandboxLook { netns, links: links.unwrap_or_default(), sysctls: sysctls.unwrap_or_default() }
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

fn link_name(object: &Object) -> Option<String> {
    match object {
        Object::Link(name, _) => Some(name.clone()),
        _ => None,
    }
}
