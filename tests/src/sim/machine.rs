//! What of a machine a daemon's death does not touch: its containers, namespaces of others, and its
//! kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::sync::{Notify, watch};
use weft_overlay::{
    Op, Place,
    fake::FakeKernel,
    plane::{LinkKind, Object},
};
use weft_worker::{
    attach::Identity,
    container::{ContainerConfig, ContainerId, Exit, Found, Phase, Status},
};

use super::{clock::SimClock, ground};

/// Parameters of the kernel that the data plane reads or sets.
const PARAMETERS: [(&str, &str); 8] = [
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv6/conf/all/forwarding", "0"),
    ("net/bridge/bridge-nf-call-iptables", "1"),
    ("net/bridge/bridge-nf-call-ip6tables", "1"),
    ("net/ipv4/neigh/default/gc_thresh1", "128"),
    ("net/ipv4/neigh/default/gc_thresh2", "512"),
    ("net/ipv4/neigh/default/gc_thresh3", "1024"),
    ("net/ipv6/neigh/default/gc_thresh1", "128"),
];
/// MTU of the machine's network.
const MTU: u32 = 1500;
/// Exit code of a container that SIGTERM has ended.
const TERMINATED: i32 = 143;
/// Exit code of a container that has crashed.
const CRASHED: i32 = 1;
/// Operations that a kernel refuses while it clings to what it has: some seconds of tries.
const CLUNG_TO: usize = 60;
/// SIGTERM.
const TERM: i32 = 15;

/// A machine. Clones are the same one.
#[derive(Clone)]
pub(super) struct Machine {
    clock: SimClock,
    inner: Arc<Mutex<Inner>>,
    /// Tells the daemon that something in the kernel was changed by hand.
    pub(super) touched: Arc<Notify>,
}

pub(super) struct Inner {
    pub(super) random: StdRng,
    pub(super) containers: BTreeMap<ContainerId, Container>,
    /// Network namespaces that somebody else owns.
    pub(super) namespaces: BTreeMap<PathBuf, Identity>,
    /// Which of them the daemon holds, by the ID of the attachment.
    pub(super) held: BTreeMap<ContainerId, PathBuf>,
    last_namespace: u64,
    pub(super) kernel: FakeKernel,
    /// When containers end, with their codes.
    ends: BTreeMap<(u64, ContainerId), i32>,
    last_pid: i32,
    /// Whether things go wrong by themselves.
    pub(super) mood: Mood,
    /// Grows with every change in the kernel.
    pub(super) changes: u64,
    /// Sandboxes in which something was changed by hand: the kernel's events name them.
    pub(super) dirty: BTreeSet<String>,
}

/// Whether containers end by themselves and runtimes and kernels refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    Bad,
}

/// A container.
pub(super) struct Container {
    /// `None` while it is half made.
    pub(super) config: Option<ContainerConfig>,
    pub(super) phase: Phase,
    /// 0 without one.
    pub(super) shim: i32,
    pub(super) pid: Option<i32>,
    /// Tells its end.
    pub(super) end: watch::Sender<Option<Exit>>,
}

impl Machine {
    pub(super) fn new(clock: SimClock, seed: u64) -> Self {
        let inner = Inner {
            random: StdRng::seed_from_u64(seed),
            containers: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            held: BTreeMap::new(),
            last_namespace: 0,
            kernel: new_kernel(),
            ends: BTreeMap::new(),
            last_pid: 1,
            mood: Mood::Bad,
            changes: 0,
            dirty: BTreeSet::new(),
        };
        Self { clock, inner: Arc::new(Mutex::new(inner)), touched: Arc::default() }
    }

    /// Each change is whole before anything in it can panic.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the beginning.
    pub(super) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Ends the containers whose time has come.
    pub(super) fn tick(&self) {
        let now = self.clock.now();
        let mut inner = self.lock();
        while let Some(entry) = inner.ends.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let ((_, id), code) = entry.remove_entry();
            inner.end(&id, code);
        }
    }

    /// Everything but the disk is lost.
    pub(super) fn lose_power(&self) {
        let mut inner = self.lock();
        inner.ends.clear();
        inner.kernel = new_kernel();
        inner.namespaces.clear();
        inner.held.clear();
        inner.changes += 1;
        for container in inner.containers.values_mut() {
            container.shim = 0;
            container.pid = None;
            if !matches!(container.phase, Phase::Exited(_)) {
                container.phase = Phase::Failed { reason: "its shim died".to_owned() };
            }
        }
    }

    /// Everything is lost, what was on the disk too.
    pub(super) fn wipe(&self) {
        self.lose_power();
        self.lock().containers.clear();
    }

    /// Somebody makes a network namespace; gives its path.
    pub(super) fn open_namespace(&self) -> PathBuf {
        let mut inner = self.lock();
        inner.last_namespace += 1;
        let (path, identity) =
            (ground::path(inner.last_namespace), ground::identity(inner.last_namespace));
        inner.namespaces.insert(path.clone(), identity);
        path
    }

    /// The last process in a namespace of somebody else ends, and with it the namespace.
    pub(super) fn close_namespace(&self, path: &Path) {
        let mut inner = self.lock();
        inner.namespaces.remove(path);
        let held: Vec<_> =
            inner.held.iter().filter(|(_, of)| *of == path).map(|(id, _)| id.clone()).collect();
        for id in held {
            inner.close_held(&id);
        }
        drop(inner);
        self.touched.notify_one();
    }

    /// The daemon holds a namespace; false if there is none.
    pub(super) fn hold(&self, id: &ContainerId, path: &Path) -> bool {
        let mut inner = self.lock();
        if !inner.namespaces.contains_key(path) {
            return false;
        }
        if inner.held.insert(id.clone(), path.to_owned()).is_none()
            && let Some(key) = ground::key(id)
        {
            inner.changes += 1;
            inner.kernel.open_sandbox(&key);
        }
        true
    }

    /// The daemon holds it no more.
    pub(super) fn let_go(&self, id: &ContainerId) {
        self.lock().close_held(id);
    }

    /// Somebody removes something of ours by hand; gives what.
    pub(super) fn drift(&self) -> Option<String> {
        let mut inner = self.lock();
        let removable: Vec<(Place, Object)> = inner
            .kernel
            .plane
            .places
            .iter()
            .flat_map(|(place, objects)| objects.values().map(move |o| (place.clone(), o.clone())))
            .filter(|(_, object)| match object {
                Object::Link(_, link) => link.kind != LinkKind::Loopback,
                Object::Sysctl(..) => false,
                _ => true,
            })
            .collect();
        if removable.is_empty() {
            return None;
        }
        let chosen = inner.random.random_range(0..removable.len());
        let (place, object) = removable[chosen].clone();
        let op = Op::remove(place, object);
        let text = op.to_string();
        inner.changes += 1;
        if let Place::Sandbox(key) = &op.place {
            inner.dirty.insert(key.clone());
        }
        let done = inner.kernel.by_hand(&op);
        drop(inner);
        self.touched.notify_one();
        done.is_ok().then_some(text)
    }

    /// Has some of the kernel's next operations fail.
    pub(super) fn refuse(&self) {
        let mut inner = self.lock();
        for _ in 0..20 {
            let fails = inner.random.random_ratio(1, 4);
            inner.kernel.failures.push_back(fails);
        }
    }

    /// Has the next operations of the kernel fail, all of them.
    pub(super) fn cling(&self) {
        self.lock().kernel.failures.extend([true; CLUNG_TO]);
    }

    /// Whether a container here has an address.
    pub(super) fn has_addresses(&self) -> bool {
        let inner = self.lock();
        let sandboxes = inner
            .kernel
            .plane
            .places
            .iter()
            .filter(|(place, _)| matches!(place, Place::Sandbox(_)));
        let mut objects = sandboxes.flat_map(|(_, objects)| objects.values());
        objects.any(|object| matches!(object, Object::Address(..)))
    }

    /// All containers end by themselves.
    pub(super) fn end_all(&self) {
        let mut inner = self.lock();
        let running = |(id, container): (&ContainerId, &Container)| {
            (container.phase == Phase::Running).then(|| id.clone())
        };
        let all: Vec<_> = inner.containers.iter().filter_map(running).collect();
        all.iter().for_each(|id| inner.end(id, CRASHED));
    }

    /// From now on nothing goes wrong by itself.
    pub(super) fn calm(&self) {
        let mut inner = self.lock();
        inner.mood = Mood::Good;
        inner.kernel.failures.clear();
    }
}

impl Inner {
    pub(super) fn pid(&mut self) -> i32 {
        self.last_pid += 1;
        self.last_pid
    }

    pub(super) fn is_bad(&mut self, one_in: u32) -> bool {
        self.mood == Mood::Bad && self.random.random_ratio(1, one_in)
    }

    /// Has a container end in so many milliseconds, as the process decides or as it is told.
    pub(super) fn end_at(&mut self, at: u64, id: &ContainerId, code: i32) {
        self.ends.insert((at, id.clone()), code);
    }

    /// Ends a container, if it runs.
    pub(super) fn end(&mut self, id: &ContainerId, code: i32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.phase != Phase::Running {
            return;
        }
        let signal = (code == TERMINATED).then_some(TERM);
        let finished = SystemTime::UNIX_EPOCH;
        let exit = Exit { code, signal, oom: false, finished, error: None };
        container.phase = Phase::Exited(exit.clone());
        container.pid = None;
        container.end.send_replace(Some(exit));
    }

    /// Stops a container as SIGTERM does.
    pub(super) fn terminate(&mut self, id: &ContainerId) {
        self.end(id, TERMINATED);
    }

    /// The end of a container's namespace.
    pub(super) fn close(&mut self, id: &ContainerId) {
        self.changes += 1;
        self.kernel.close_sandbox(id.as_str());
        if let Some(container) = self.containers.get_mut(id) {
            container.shim = 0;
        }
    }

    fn close_held(&mut self, id: &ContainerId) {
        self.held.remove(id);
        if let Some(key) = ground::key(id) {
            self.changes += 1;
            self.kernel.close_sandbox(&key);
        }
    }

    pub(super) fn found(&self) -> Vec<Found> {
        let found = self.containers.iter().map(|(id, container)| Found {
            id: id.clone(),
            config: container.config.clone(),
            status: container.status(),
            missing: Vec::new(),
        });
        found.collect()
    }
}

impl Container {
    pub(super) fn status(&self) -> Status {
        Status {
            phase: self.phase.clone(),
            pid: self.pid,
            shim_pid: self.shim,
            dns_port: None,
            created: None,
            started: None,
            log_lost: 0,
        }
    }
}

fn new_kernel() -> FakeKernel {
    let mut kernel = FakeKernel::new(PARAMETERS);
    kernel.facts.underlay_mtu = Some(MTU);
    kernel
}
