//! One run: a cluster is formed, harmed while clients use it, left in peace, and looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use weft_manager::{
    Manager,
    ca::{Authority, Subject},
};
use weft_model::{object::NodeState, spec::Role};
use weft_proto::tls::{LiveIdentity, Role as TlsRole};

use super::{
    HOSTS, MANAGERS, TICK,
    audit::Audit,
    book::{Book, Certainty},
    caller::{CLIENTS, Caller},
    chaos::{self, Fault},
    client::{Client, essence},
    clock::{SimClock, millis},
    daemon::{KEY_ROTATION, Site, first_member, host_name, node_id},
    home::Home,
    host::{self, Death, Host},
    keys::{self, Told},
    link::{Links, Liveness},
    local,
    machine::Machine,
    net::{Answer, Arrival, HostId, Net, Parcel, Weather},
    operator::{Operator, Orders},
    request, rest,
    trace::Trace,
};

/// How long the cluster may take to form.
const FORMING: Duration = Duration::from_secs(30);
/// How long it is harmed; in a soak longer.
const CHAOS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(40));
/// How long it may take to be at rest again.
const HEALING: Duration = Duration::from_secs(60);
/// How often it is looked whether the cluster is as it should be.
const LOOK: Duration = Duration::from_millis(100);
/// How long before their time keys are when the cluster begins to be harmed, in milliseconds.
const YOUNG: (u64, u64) = (2_000, 9_000);
/// What makes the second sequence of a seed another than the first.
const PURPOSE: u64 = 0x5eed;
/// How many clients there are.
const CLIENTS_COUNT: u64 = 3;
/// The most a host's wall clock is wrong, in milliseconds.
const SKEW: i64 = 300;

/// How a run ended.
#[derive(Debug)]
pub struct Ending {
    /// What should not have happened.
    pub violations: Vec<String>,
    /// How much was done and looked at, in one line.
    pub figures: String,
}

/// Runs a cluster through everything that follows from `seed`. `tell` takes what happens, a line at a
/// time: two runs with one seed tell the same.
pub fn run(seed: u64, tell: impl Fn(&str) + Send + Sync + 'static) -> Ending {
    let clock = SimClock::default();
    World::new(seed, clock.clone(), Trace::new(clock, tell)).run()
}

struct World {
    random: StdRng,
    clock: SimClock,
    net: Net,
    links: Links,
    trace: Trace,
    audit: Audit,
    hosts: Vec<Host>,
    clients: Runtime,
    book: Book,
    /// Set when clients make no more calls.
    stop: Arc<AtomicBool>,
    /// Decides on what is done on purpose, so that the rest comes as it would without.
    purpose: StdRng,
    /// What the operator has done to machines.
    orders: Orders,
    /// What is done at a time, in the order in which it was decided.
    agenda: BTreeMap<(u64, u64), Fault>,
    planned: u64,
    /// Changes of kernels that were looked at.
    kernel_changes: u64,
    /// Ways between nodes of which it was looked whether a packet would be lost.
    ways: u64,
}

impl World {
    fn new(seed: u64, clock: SimClock, trace: Trace) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let net = Net::new(clock.clone(), random.random());
        let audit = Audit::new(trace.clone());
        let links = Links::new(net.clone(), clock.clone());
        let identity = identity();
        let hosts = (1..=HOSTS)
            .map(|id| {
                Host::new(Site {
                    id,
                    seed: random.random(),
                    clock: clock.clone(),
                    net: net.clone(),
                    trace: trace.clone(),
                    audit: audit.clone(),
                    identity: identity.clone(),
                    links: links.clone(),
                    home: Home::new(first_member(id)),
                    dir: Arc::new(directory()),
                    machine: Machine::new(clock.clone(), random.random()),
                    told: Told::new(host_name(id), trace.clone()),
                    skew: random.random_range(-SKEW..=SKEW),
                    founded: Arc::default(),
                })
            })
            .collect();
        Self {
            random,
            clock,
            net,
            links,
            trace,
            audit,
            hosts,
            clients: host::runtime(),
            book: Book::new(),
            stop: Arc::default(),
            purpose: StdRng::seed_from_u64(seed ^ PURPOSE),
            orders: Orders::default(),
            agenda: BTreeMap::new(),
            planned: 0,
            kernel_changes: 0,
            ways: 0,
        }
    }

    fn run(mut self) -> Ending {
        self.hosts.iter_mut().for_each(Host::start);
        if self.until("the cluster is formed", FORMING, Self::unformed) {
            self.age_keys();
            self.start_clients();
            self.harm();
            self.heal();
            self.stop.store(true, Ordering::Relaxed);
            self.until("at rest again", HEALING, Self::unrest);
            self.account();
        }
        self.end()
    }

    /// Lives until nothing is missing any more; not for ever. To look is dear, so it is done seldom.
    fn until(&mut self, what: &str, patience: Duration, missing: fn(&Self) -> Vec<String>) -> bool {
        let deadline = self.clock.now() + millis(patience);
        let mut last: Vec<String> = Vec::new();
        while self.clock.now() < deadline && self.trace.violations().is_empty() {
            self.live(LOOK);
            let now = missing(self);
            if let Some(first) = now.first().filter(|first| last.first() != Some(*first)) {
                self.trace.note("all", format!("not yet: {first}"));
            }
            last = now;
            if last.is_empty() {
                self.trace.note("all", what);
                return true;
            }
        }
        self.trace.violated("all", format!("not within {patience:?}: {what}"));
        last.into_iter().for_each(|what| self.trace.violated("all", what));
        false
    }

    fn live(&mut self, span: Duration) {
        let end = self.clock.now() + millis(span);
        while self.clock.now() < end {
            self.tick();
        }
    }

    /// Everybody lives through one tick.
    fn tick(&mut self) {
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > self.clock.now() {
                break;
            }
            let fault = entry.remove();
            self.inflict(fault);
        }
        while let Some(order) = self.orders.take() {
            self.inflict(order);
        }
        self.hosts.iter().for_each(|host| host.site.machine.tick());
        let asleep: Vec<_> = self.hosts.iter().filter(|h| h.is_asleep()).map(Host::id).collect();
        for arrival in self.net.arrived(|host| asleep.contains(&host)) {
            self.deliver(arrival);
        }
        self.watch_machines();
        self.links.tick(|host| self.host(host).map_or(Liveness::Gone, Host::liveness));
        self.hosts.iter().for_each(Host::tick);
        self.clients.block_on(async { tokio::time::sleep(TICK).await });
        self.clock.advance(TICK);
    }

    fn deliver(&self, Arrival { from, to, parcel }: Arrival) {
        let host = self.host(to);
        match host.and_then(Host::death) {
            Some(Death::PowerCut) => return,
            Some(Death::Killed) => return self.refuse(from, to, &parcel),
            None => {}
        }
        match (parcel, host) {
            (Parcel::Answer { call, answer }, _) => self.net.answered(call, answer),
            (Parcel::Raft { call, sender, bytes }, Some(host)) => {
                let Some(manager) = host.slots.manager.load_full() else {
                    let refused = Parcel::Answer { call, answer: Answer::Refused };
                    return self.net.send(to, from, refused);
                };
                let net = self.net.clone();
                host.spawn(async move {
                    let bytes = manager.store().handle(sender, bytes).await;
                    net.send(to, from, Parcel::Answer { call, answer: Answer::Raft(bytes) });
                });
            }
            (Parcel::Api { call, client, hops, body }, Some(host)) => {
                let (net, slot) = (self.net.clone(), Arc::clone(&host.slots.manager));
                host.spawn(request::take((net, to), slot, (call, client, hops, body)));
            }
            (Parcel::Local { call, body }, Some(host)) => {
                let (net, worker) = (self.net.clone(), Arc::clone(&host.slots.worker));
                host.spawn(local::take((net, to), worker, (call, body)));
            }
            (Parcel::Open { call, link, node, hops }, Some(host)) => {
                let slot = Arc::clone(&host.slots.manager);
                host.spawn(self.links.clone().take(slot, to, (call, link, node, hops)));
            }
            // Only hosts are asked.
            (
                Parcel::Raft { .. }
                | Parcel::Api { .. }
                | Parcel::Local { .. }
                | Parcel::Open { .. },
                None,
            ) => {}
        }
    }

    /// The machine is there, the daemon is not.
    fn refuse(&self, from: HostId, to: HostId, parcel: &Parcel) {
        match parcel {
            Parcel::Raft { call, .. }
            | Parcel::Api { call, .. }
            | Parcel::Local { call, .. }
            | Parcel::Open { call, .. } => {
                let refused = Parcel::Answer { call: *call, answer: Answer::Refused };
                self.net.send(to, from, refused);
            }
            Parcel::Answer { .. } => {}
        }
    }

    fn host(&self, id: HostId) -> Option<&Host> {
        self.hosts.iter().find(|host| host.id() == id)
    }

    fn host_mut(&mut self, id: HostId) -> &mut Host {
        self.hosts
            .iter_mut()
            .find(|host| host.id() == id)
            .expect("faults name hosts that are there")
    }

    fn managers(&self) -> impl Iterator<Item = (HostId, Arc<Manager>)> {
        self.hosts.iter().filter_map(|host| Some((host.id(), host.slots.manager.load_full()?)))
    }

    fn leader(&self) -> Option<(HostId, Arc<Manager>)> {
        self.managers().find(|(_, manager)| manager.is_leader())
    }

    // ---- forming

    /// All managers vote, and all nodes are in touch.
    fn unformed(&self) -> Vec<String> {
        let Some((_, leader)) = self.leader() else { return vec!["nobody leads".to_owned()] };
        let voters = leader.store().voters().len();
        let state = leader.view();
        let ready = state.nodes().filter(|node| node.state == NodeState::Ready).count();
        if voters == usize::from(MANAGERS) && ready == usize::from(HOSTS) {
            return Vec::new();
        }
        vec![format!("{voters} managers vote, {ready} nodes are ready")]
    }

    fn start_clients(&self) {
        let caller = |name: &str, number: u64| {
            let random = StdRng::seed_from_u64(self.hosts[0].site.seed.wrapping_add(number));
            let (net, trace) = (self.net.clone(), self.trace.clone());
            Caller::new(name, net, trace, self.book.clone(), random)
        };
        for number in 1..=CLIENTS_COUNT {
            let machines = self.hosts.iter().map(|host| host.site.machine.clone()).collect();
            let caller = caller(&format!("c{number}"), number);
            let client = Client { caller, stop: Arc::clone(&self.stop), machines, made: 0 };
            self.clients.spawn(client.run());
        }
        let machines = self.hosts.iter().map(|h| (h.site.home.clone(), h.slots.clone())).collect();
        let operator = Operator {
            caller: caller("op", 0),
            stop: Arc::clone(&self.stop),
            orders: self.orders.clone(),
            machines,
        };
        self.clients.spawn(operator.run());
    }

    /// Keys come of age while the cluster is harmed.
    fn age_keys(&mut self) {
        let young = YOUNG.0 + self.hosts[0].site.seed % (YOUNG.1 - YOUNG.0);
        self.clock.skip(KEY_ROTATION - Duration::from_millis(young));
    }

    // ---- harming

    fn harm(&mut self) {
        let chaos = if crate::soak() { CHAOS.1 } else { CHAOS.0 };
        let end = self.clock.now() + millis(chaos);
        for (after, fault) in chaos::pointed(&mut self.purpose, millis(chaos)) {
            self.plan(after, fault);
        }
        while self.clock.now() < end && self.trace.violations().is_empty() {
            if self.agenda.is_empty() || self.random.random_ratio(1, 400) {
                for (after, fault) in chaos::next(&mut self.random) {
                    self.plan(after, fault);
                }
            }
            self.tick();
        }
    }

    fn plan(&mut self, after: u64, fault: Fault) {
        self.planned += 1;
        self.agenda.insert((self.clock.now() + after, self.planned), fault);
    }

    fn inflict(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(host, death) => self.host_mut(host).kill(death),
            Fault::Start(host) => self.host_mut(host).start(),
            Fault::Wipe(host) => self.host_mut(host).wipe(),
            Fault::Pause(host) => self.host_mut(host).pause(),
            Fault::Resume(host) => self.host_mut(host).resume(),
            Fault::Split(hosts) => self.split(&hosts),
            Fault::SplitLeader => {
                if let Some((leader, _)) = self.leader() {
                    self.split(&[leader, HOSTS]);
                }
            }
            Fault::OneWay { from, to } => {
                self.trace.note("net", format!("cut from {from} to {to}"));
                self.net.cut(from, to);
            }
            Fault::Heal => {
                self.trace.note("net", "whole");
                self.net.heal();
            }
            Fault::Weather(weather) => {
                self.trace.note("net", format!("{weather:?}"));
                self.net.set_weather(weather);
            }
            Fault::SlowDisk(host, takes) => {
                self.trace.note(&host_name(host), format!("syncs in {takes:?}"));
                self.host_mut(host).site.home.set_sync_time(takes);
            }
            Fault::Refusals(host) => {
                self.trace.note(&host_name(host), "its kernel will refuse");
                self.host_mut(host).site.machine.refuse();
            }
            Fault::Apart => self.rotate_apart(),
            Fault::Clinging => self.cling(),
            Fault::Ends => self.end_containers(),
            Fault::Drift(host) => {
                // Where there is nothing of ours to remove, the next host that has something.
                for host in (host..=HOSTS).chain(1..host) {
                    if let Some(what) = self.host_mut(host).site.machine.drift() {
                        self.trace.note(&host_name(host), format!("by hand: {what}"));
                        break;
                    }
                }
            }
        }
    }

    /// Has a key changed while one that must know of it is away.
    fn rotate_apart(&mut self) {
        let pairs = keys::pairs(&self.hosts);
        if pairs.is_empty() {
            return;
        }
        let (near, far, node) = pairs[self.purpose.random_range(0..pairs.len())];
        self.split(&[far]);
        let name = format!("apart{}", self.clock.now());
        let random = StdRng::seed_from_u64(self.purpose.random());
        let (net, trace, book) = (self.net.clone(), self.trace.clone(), self.book.clone());
        let mut caller = Caller::new(&name, net, trace, book, random);
        self.clients.spawn(async move { caller.rotate_key(near, node).await });
    }

    /// All containers end; on one machine that has addresses what was theirs stays for a while.
    fn cling(&mut self) {
        let holders: Vec<_> =
            self.hosts.iter().filter(|host| host.site.machine.has_addresses()).collect();
        if !holders.is_empty() {
            let host = holders[self.purpose.random_range(0..holders.len())];
            self.trace.note(&host_name(host.id()), "its kernel clings to all it has");
            host.site.machine.cling();
        }
        self.end_containers();
    }

    fn end_containers(&self) {
        self.trace.note("all", "containers end");
        self.hosts.iter().for_each(|host| host.site.machine.end_all());
    }

    /// Clients stay on the side of the majority.
    fn split(&self, island: &[HostId]) {
        self.trace.note("net", format!("{island:?} cut off"));
        for other in (CLIENTS..=HOSTS).filter(|host| !island.contains(host)) {
            for inside in island {
                self.net.cut(*inside, other);
                self.net.cut(other, *inside);
            }
        }
    }

    /// Ends all faults.
    fn heal(&mut self) {
        self.trace.note("all", "no more faults");
        self.agenda.clear();
        self.net.heal();
        self.net.set_weather(Weather::FAIR);
        for host in &mut self.hosts {
            host.site.machine.calm();
            host.resume();
            host.start();
        }
    }

    // ---- looking

    /// No two sandboxes have an address of one network, no task runs twice, and no packet is lost by a
    /// rotation of keys, whatever is going on.
    fn watch_machines(&mut self) {
        let changes = |host: &Host| host.site.machine.lock().changes + host.site.told.changes();
        let changes = self.hosts.iter().map(changes).sum();
        if changes != self.kernel_changes {
            self.kernel_changes = changes;
            let (lost, ways) = keys::lost(&self.hosts);
            self.ways += ways;
            lost.into_iter().for_each(|what| self.trace.violated("all", what));
            for what in rest::doubled(&self.hosts).into_iter().chain(rest::cloned(&self.hosts)) {
                self.trace.violated("all", what);
            }
        }
    }

    /// What is not yet as it should be at rest, as far as it was looked for.
    fn unrest(&self) -> Vec<String> {
        let clients = self.clients.metrics().num_alive_tasks();
        if clients > 0 {
            return vec![format!("{clients} clients have calls that were not brought to an end")];
        }
        let leaders: Vec<_> = self.managers().filter(|(_, m)| m.is_leader()).collect();
        let [(_, leader)] = &leaders[..] else {
            return vec![format!("{} managers lead", leaders.len())];
        };
        let (state, voters) = (leader.view(), leader.store().voters());
        let mut found = rest::services(&state);
        found.extend(keys::unrest(&state));
        let entries = self.book.entries();
        found.extend(rest::nodes(&self.hosts, &state, &entries));
        found.extend(rest::attachments(&self.hosts, &state, &entries));
        let wanted = state.nodes().filter(|node| node.spec.role == Role::Manager);
        let wanted: BTreeSet<u64> = wanted.map(|node| node.number).collect();
        for (host, manager) in self.managers() {
            let own: BTreeSet<u64> = manager.store().voters().iter().map(|v| v.number).collect();
            if manager.store().voters() != voters || own != wanted {
                found.push(format!("n{host} has members {own:?}, not {wanted:?}"));
            }
            if manager.view().revision() != state.revision() || *manager.view() != *state {
                found.push(format!("n{host} has another state"));
            }
        }
        if found.is_empty() {
            found.extend(self.hosts.iter().flat_map(|host| rest::worker(host, &state)));
            found.extend(keys::leftover(&self.hosts, &state));
        }
        found
    }

    /// What was acknowledged must be there, and nothing else.
    fn account(&self) {
        let Some((_, leader)) = self.leader() else { return };
        let (state, entries) = (leader.view(), self.book.entries());
        let networks: Vec<_> = state.networks().map(|n| n.spec.name.clone()).collect();
        for (name, certainty) in &entries.networks {
            if *certainty == Certainty::Known && !networks.contains(name) {
                self.trace.violated("all", format!("network {name} is lost"));
            }
        }
        for name in networks.iter().filter(|name| !entries.networks.contains_key(*name)) {
            self.trace.violated("all", format!("network {name} was removed or never made"));
        }
        for (name, entry) in &entries.services {
            let found = state.services().find(|service| service.spec.name == *name);
            let found = found.map(|s| essence(&weft_proto::convert::service::spec(&s.spec)));
            if found.as_ref() != Some(&essence(&entry.spec)) {
                let asked = essence(&entry.spec);
                self.trace.violated("all", format!("service {asked:?} is {found:?}"));
            }
        }
        for service in state.services() {
            if !entries.services.contains_key(&service.spec.name) {
                let name = &service.spec.name;
                self.trace.violated("all", format!("service {name} was removed or never made"));
            }
        }
    }

    fn end(self) -> Ending {
        let (audit, entries) = (self.audit.figures(), self.book.entries());
        let figures = format!(
            "{} ms simulated, revision {}, {} states checked and {} compared, {} tasks followed \
             others, {} encrypted ways looked at, {} calls acknowledged, {} refused, {} retried",
            self.clock.now(),
            audit.revision,
            audit.checked,
            audit.compared,
            audit.followers,
            self.ways,
            entries.acknowledged,
            entries.refused,
            entries.retried,
        );
        Ending { violations: self.trace.violations(), figures }
    }
}

/// A directory in memory, if the machine has such: what is kept there is synced often.
fn directory() -> TempDir {
    const MEMORY: &str = "/dev/shm";
    let made = tempfile::tempdir_in(MEMORY).or_else(|_| tempfile::tempdir());
    made.expect("a directory for the worker's files can be made")
}

/// Something to show; nothing here looks at it.
fn identity() -> LiveIdentity {
    let now = SystemTime::now();
    let cluster = "c1".repeat(32);
    let authority = Authority::create(&cluster, now).expect("a name of 64 hex digits is good");
    let subject = Subject { role: TlsRole::Manager, node_id: node_id(1, 0).to_string() };
    let day = Duration::from_secs(24 * 3600);
    let identity = authority.issue_identity(&subject, day, now);
    LiveIdentity::new(identity.expect("the authority signs for its own cluster"))
}
