//! A network in memory, a small state machine, and clusters of stores on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use weft_manager::store::{
    Backend, Machine, Member, MemberError, MemoryDisk, Peer, ProposeError, Store, StoreConfig,
    Transport, TransportError,
};

/// How long a condition may take to come true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// A line that cannot be applied.
pub(crate) const POISON: &str = "poison";

/// What was written, by its place in the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Book {
    pub(crate) lines: Arc<BTreeMap<u64, String>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Write(pub(crate) String);

impl Machine for Book {
    type Proposal = Write;
    type Outcome = usize;

    fn apply(&mut self, index: u64, Write(line): &Write) -> usize {
        assert_ne!(line, POISON, "a test asked for this panic");
        Arc::make_mut(&mut self.lines).insert(index, line.clone());
        self.lines.len()
    }
}

impl Book {
    pub(crate) fn texts(&self) -> Vec<String> {
        self.lines.values().cloned().collect()
    }
}

pub(crate) type BookStore = Store<Book>;

/// Who is there and which ways are cut.
#[derive(Clone, Default)]
pub(crate) struct Net(Arc<Mutex<Wires>>);

#[derive(Default)]
struct Wires {
    stores: BTreeMap<u64, BookStore>,
    cut: BTreeSet<(u64, u64)>,
    /// Messages that went nowhere since the last cut, by sender.
    lost: BTreeMap<u64, usize>,
    /// Loses and delays messages when it is there.
    weather: Option<StdRng>,
}

/// One way in so many loses a message in bad weather.
const LOSS: u32 = 20;
/// Longest time on one way in bad weather.
const LONGEST_WAY: Duration = Duration::from_millis(30);

impl Net {
    pub(crate) fn plug(&self, number: u64, store: BookStore) {
        self.0.lock().expect("lock").stores.insert(number, store);
    }

    pub(crate) fn unplug(&self, number: u64) {
        self.0.lock().expect("lock").stores.remove(&number);
    }

    /// Cuts `number` off from everybody, both ways.
    pub(crate) fn isolate(&self, number: u64) {
        let mut wires = self.0.lock().expect("lock");
        wires.lost.clear();
        for other in 1..=9 {
            wires.cut.insert((number, other));
            wires.cut.insert((other, number));
        }
    }

    /// Messages of `number` that went nowhere since the last cut.
    pub(crate) fn lost(&self, number: u64) -> usize {
        self.0.lock().expect("lock").lost.get(&number).copied().unwrap_or_default()
    }

    pub(crate) fn heal(&self) {
        self.0.lock().expect("lock").cut.clear();
    }

    /// From now on messages are lost and late, as `seed` decides.
    pub(crate) fn bad_weather(&self, seed: u64) {
        self.0.lock().expect("lock").weather = Some(StdRng::seed_from_u64(seed));
    }

    pub(crate) fn good_weather(&self) {
        self.0.lock().expect("lock").weather = None;
    }

    /// How long a message is on its way; `None` when it never arrives.
    fn way(&self) -> Option<Duration> {
        let mut wires = self.0.lock().expect("lock");
        let Some(weather) = &mut wires.weather else { return Some(Duration::ZERO) };
        let lost = weather.random_ratio(1, LOSS);
        let way = LONGEST_WAY.mul_f64(weather.random::<f64>().powi(4));
        (!lost).then_some(way)
    }

    /// Waits for a message to arrive; forever when it is lost.
    async fn travel(&self) {
        match self.way() {
            Some(Duration::ZERO) => {}
            Some(way) => tokio::time::sleep(way).await,
            None => std::future::pending().await,
        }
    }

    fn route(&self, from: u64, to: u64) -> Option<BookStore> {
        let mut wires = self.0.lock().expect("lock");
        if wires.cut.contains(&(from, to)) || wires.cut.contains(&(to, from)) {
            *wires.lost.entry(from).or_default() += 1;
            return None;
        }
        wires.stores.get(&to).cloned()
    }
}

/// The end of the network that one store holds.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) from: u64,
    pub(crate) net: Net,
    pub(crate) alive: Arc<AtomicBool>,
    /// Bytes of the largest message sent.
    pub(crate) largest: Arc<AtomicUsize>,
    /// The number the connection proves; its own, unless a test says otherwise.
    pub(crate) proves: Arc<AtomicU64>,
}

impl Link {
    pub(crate) fn new(from: u64, net: Net) -> Self {
        Link {
            from,
            net,
            alive: Arc::new(AtomicBool::new(true)),
            largest: Arc::default(),
            proves: Arc::new(AtomicU64::new(from)),
        }
    }
}

impl Transport for Link {
    async fn call(
        &self,
        to: &Peer,
        request: Bytes,
        _deadline: Duration,
    ) -> Result<Bytes, TransportError> {
        let gone = || TransportError::Unreachable {
            address: to.address.clone(),
            reason: "not plugged in".into(),
        };
        self.largest.fetch_max(request.len(), Ordering::Relaxed);
        if !self.alive.load(Ordering::SeqCst) {
            return Err(gone());
        }
        self.net.travel().await;
        let store = self.net.route(self.from, to.number).ok_or_else(gone)?;
        let from = self.proves.load(Ordering::SeqCst);
        // A server goes on with a request whose caller has given up.
        let handled = tokio::spawn(async move { store.handle(from, request).await });
        let answer = handled.await.map_err(|_| gone())?;
        // The way back can be cut as well.
        self.net.travel().await;
        self.net.route(self.from, to.number).ok_or_else(gone)?;
        Ok(answer)
    }
}

/// Waits for a condition, or fails naming it.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// One manager of a test cluster.
pub(crate) struct Node {
    pub(crate) store: BookStore,
    pub(crate) link: Link,
}

/// A cluster whose stores live on memory disks or in directories.
pub(crate) struct Cluster {
    pub(crate) net: Net,
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) disks: BTreeMap<u64, Backend>,
    pub(crate) tune: fn(&mut StoreConfig),
    pub(crate) home: Option<tempfile::TempDir>,
    /// Where the seeds of the managers begin.
    pub(crate) first_seed: u64,
    starts: u64,
}

impl Cluster {
    pub(crate) fn in_memory(tune: fn(&mut StoreConfig)) -> Self {
        Self::new(None, tune)
    }

    pub(crate) fn on_disk(tune: fn(&mut StoreConfig)) -> Self {
        Self::new(Some(tempfile::tempdir().expect("a directory")), tune)
    }

    fn new(home: Option<tempfile::TempDir>, tune: fn(&mut StoreConfig)) -> Self {
        let (net, nodes, disks) = Default::default();
        Cluster { net, nodes, disks, tune, home, first_seed: 0, starts: 0 }
    }

    pub(crate) fn backend(&mut self, number: u64) -> Backend {
        let fresh = match &self.home {
            Some(home) => Backend::Disk(home.path().join(number.to_string())),
            None => Backend::Memory(MemoryDisk::default()),
        };
        self.disks.entry(number).or_insert(fresh).clone()
    }

    pub(crate) fn memory(&self, number: u64) -> MemoryDisk {
        match &self.disks[&number] {
            Backend::Memory(disk) => disk.clone(),
            Backend::Disk(dir) => panic!("{} is no memory disk", dir.display()),
        }
    }

    /// Starts a manager on what its disk holds.
    pub(crate) async fn start(&mut self, number: u64) -> BookStore {
        let backend = self.backend(number);
        self.starts += 1;
        let seed = self.first_seed.wrapping_add(number * 1_000_003 + self.starts);
        let mut config = StoreConfig::new("/nowhere".into(), number, "test", seed);
        (self.tune)(&mut config);
        let link = Link::new(number, self.net.clone());
        let store = BookStore::open_with(config, backend, link.clone()).await.expect("opens");
        self.net.plug(number, store.clone());
        self.nodes.insert(number, Node { store: store.clone(), link });
        store
    }

    /// A cluster of `size` voters with a leader.
    pub(crate) async fn grow(&mut self, size: u64) {
        let first = self.start(1).await;
        first.initialize("host-1").await.expect("initializes");
        self.leader().await;
        for number in 2..=size {
            self.join(number).await;
        }
    }

    /// Starts a new manager and makes it a voter.
    pub(crate) async fn join(&mut self, number: u64) {
        self.learn(number).await;
        let leader = self.leader().await;
        let until = Instant::now() + PATIENCE;
        loop {
            match leader.promote(number).await {
                Ok(()) => return,
                Err(MemberError::NotCaughtUp { .. } | MemberError::InProgress) => {}
                Err(error) => panic!("promote {number}: {error}"),
            }
            assert!(Instant::now() < until, "manager {number} does not catch up");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts a new manager and lets it in as a learner.
    pub(crate) async fn learn(&mut self, number: u64) -> BookStore {
        let store = self.start(number).await;
        let member = Member {
            number,
            address: format!("host-{number}"),
            incarnation: store.boot().incarnation,
        };
        self.leader().await.add_learner(member).await.expect("lets in");
        store
    }

    /// Stops a manager the way a power cut does.
    pub(crate) async fn kill(&mut self, number: u64) {
        let node = self.nodes.remove(&number).expect("runs");
        node.link.alive.store(false, Ordering::SeqCst);
        self.net.unplug(number);
        match &self.disks[&number] {
            Backend::Memory(disk) => disk.crash(),
            // One process cannot open a directory twice: its lock must be let go.
            Backend::Disk(_) => node.store.shutdown().await,
        }
    }

    pub(crate) fn store(&self, number: u64) -> &BookStore {
        &self.nodes[&number].store
    }

    /// The leader, once exactly one running manager leads and has a majority behind it.
    pub(crate) async fn leader(&self) -> BookStore {
        let until = Instant::now() + PATIENCE;
        loop {
            for node in self.nodes.values() {
                let leads = node.store.leadership().borrow().is_leader();
                if leads && node.store.read_barrier().await.is_ok() {
                    return node.store.clone();
                }
            }
            assert!(Instant::now() < until, "no leader within {PATIENCE:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Writes a line through whoever leads, again and again until it is surely in.
    pub(crate) async fn write(&self, line: &str) -> u64 {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.leader().await.propose(Write(line.into())).await {
                Ok((index, _)) => return index,
                Err(ProposeError::NotLeader { .. } | ProposeError::NoQuorum) => {}
                // It may be in twice then; no test here that cuts the network minds.
                Err(ProposeError::Unknown { .. }) => {}
                Err(error) => panic!("write {line}: {error}"),
            }
            assert!(Instant::now() < until, "cannot write {line}");
        }
    }

    /// Waits until every running manager has applied `index`.
    pub(crate) async fn settled(&self, index: u64) {
        for (number, node) in &self.nodes {
            eventually(&format!("manager {number} applies {index}"), || {
                *node.store.watch().borrow() >= index
            })
            .await;
        }
    }

    pub(crate) async fn close(self) {
        for node in self.nodes.into_values() {
            self.net.unplug(node.link.from);
            node.store.shutdown().await;
        }
    }
}
