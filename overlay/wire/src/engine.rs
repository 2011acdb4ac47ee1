//! The engine: it turns a configuration into sockets and lanes, and keeps what stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use boringtun::{noise::rate_limiter::RateLimiter, x25519::PublicKey};

use crate::{
    Config, Key, Status,
    lane::{Handle, Lane, Order, Report, Setup, Tally},
    sys::Udp,
    tables::{BadConfig, Tables},
    verifier::{self, Limiters, RESPONSES, Rules, Shared, lock},
};

/// How long a lane may take to say how it is doing: it is never busy for long.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How long packets may go by former keys after others were put first. A node that does not answer
/// within this time has no packets to lose, and holds up nobody for longer.
const MOVED_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks at whether they do: a handshake takes about a millisecond.
const MOVED_LOOK: Duration = Duration::from_millis(5);

/// Carries packets from the moment it is configured until it is dropped.
pub struct Engine {
    tables: Arc<Tables>,
    sockets: BTreeMap<u16, Arc<Udp>>,
    limiters: BTreeMap<Key, Arc<RateLimiter>>,
    lanes: Vec<Running>,
    /// What lanes that have ended had counted.
    ended: Tally,
    sifters: BTreeMap<Key, Arc<Limiters>>,
    shared: Arc<Shared>,
}

/// A lane and its thread.
struct Running {
    handle: Handle,
    thread: JoinHandle<io::Result<()>>,
}

/// Why a configuration was not taken. What was done before goes on.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("the configuration cannot be")]
    Config(#[from] BadConfig),
    #[error("cannot listen on UDP port {port}")]
    Port {
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

impl Engine {
    /// Starts one that does nothing yet.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("verifier".to_owned()).spawn(move || verifier::run(&theirs))?;
        Ok(Self {
            tables: Arc::default(),
            sockets: BTreeMap::new(),
            limiters: BTreeMap::new(),
            lanes: Vec::new(),
            ended: Tally::default(),
            sifters: BTreeMap::new(),
            shared,
        })
    }

    /// Does what the configuration says from now on; when it comes back after other keys were put first,
    /// packets go by those. Sessions, sockets and devices that stay in it are
    /// not touched, and no packet of theirs is lost.
    ///
    /// # Errors
    /// It cannot be; nothing has changed then. A device that is missing is no error: it is waited for.
    pub fn set(&mut self, config: Config) -> Result<(), Refused> {
        if config == self.tables.config {
            return Ok(());
        }
        let tables = Arc::new(Tables::new(config)?);
        let turned = self.tables.sends_by_other_keys(&tables);
        let sockets = self.bind(&tables)?;
        while self.lanes.len() < tables.lanes() {
            let lane = self.start(self.lanes.len()).map_err(Refused::Thread)?;
            self.lanes.push(lane);
        }
        self.sockets = sockets;
        self.tables = tables;
        self.follow_identities();
        // The others must not hand frames to a lane that ends, so it ends after they know.
        let ending = self.lanes.split_off(self.tables.lanes());
        self.publish();
        for lane in ending {
            self.end(lane);
        }
        if turned {
            self.wait_until_moved();
        }
        Ok(())
    }

    /// When this comes back, former keys may be forgotten: nothing is sent by them any more.
    fn wait_until_moved(&self) {
        let begun = Instant::now();
        let moving = |lane: &Running| ask(&lane.handle).is_some_and(|it| !it.moving.is_empty());
        while begun.elapsed() < MOVED_WITHIN && self.lanes.iter().any(moving) {
            thread::sleep(MOVED_LOOK);
        }
    }

    /// The sockets of a configuration; those that are open already stay.
    fn bind(&self, tables: &Tables) -> Result<BTreeMap<u16, Arc<Udp>>, Refused> {
        let ports: BTreeSet<u16> = tables.own.iter().flat_map(|own| own.ports.clone()).collect();
        let bind = |port| match self.sockets.get(&port) {
            Some(socket) => Ok((port, Arc::clone(socket))),
            None => Udp::bind(port)
                .map(|socket| (port, Arc::new(socket)))
                .map_err(|source| Refused::Port { port, source }),
        };
        ports.into_iter().map(bind).collect()
    }

    fn start(&self, number: usize) -> io::Result<Running> {
        let (lane, handle) = Lane::new(number, Arc::clone(&self.shared))?;
        let thread = thread::Builder::new().name(format!("lane-{number}")).spawn(|| lane.run())?;
        Ok(Running { handle, thread })
    }

    fn end(&mut self, lane: Running) {
        if let Some(report) = ask(&lane.handle) {
            self.ended.merge(report.tally);
        }
        lane.handle.tell(Order::Stop);
        // Its result says only that the kernel refused to poll, after which nothing is left to end.
        let _ = lane.thread.join();
    }

    fn follow_identities(&mut self) {
        let own: Vec<Key> = self.tables.own.iter().map(|own| own.public).collect();
        self.limiters.retain(|key, _| own.contains(key));
        self.sifters.retain(|key, _| own.contains(key));
        for key in own {
            let limiter = || Arc::new(RateLimiter::new(&PublicKey::from(key.0), RESPONSES));
            self.limiters.entry(key).or_insert_with(limiter);
            self.sifters.entry(key).or_insert_with(|| Arc::new(Limiters::new(&key)));
        }
        let nodes = &self.tables.config.nodes;
        self.ended.keep(|node| nodes.contains_key(&node));
    }

    /// Tells all threads, and waits until the lanes work by it: what was set holds from then on.
    fn publish(&self) {
        let lanes: Vec<Handle> = self.lanes.iter().map(|lane| lane.handle.clone()).collect();
        for (number, lane) in lanes.iter().enumerate() {
            let ports = self.tables.own.iter().filter_map(|own| own.ports.get(number));
            let socket = |port: &u16| Some((*port, Arc::clone(self.sockets.get(port)?)));
            lane.tell(Order::Configure(Box::new(Setup {
                tables: Arc::clone(&self.tables),
                sockets: ports.filter_map(socket).collect(),
                limiters: self.limiters.clone(),
                lanes: lanes.clone(),
            })));
        }
        // They obey in order, so an answer says that what was told before is done.
        for lane in &lanes {
            ask(lane);
        }
        // After the lanes, which must know a node before they are handed its initiations.
        *lock(&self.shared.rules) = Arc::new(Rules {
            tables: Arc::clone(&self.tables),
            limiters: self.sifters.clone(),
            lanes,
        });
    }

    /// What it does: the configuration, each private key replaced by its public half.
    pub fn config(&self) -> Config {
        self.tables.config.without_private_keys()
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        let mut tally = self.ended.clone();
        let mut devices = BTreeMap::new();
        for report in self.lanes.iter().filter_map(|lane| ask(&lane.handle)) {
            tally.merge(report.tally);
            devices.extend(report.devices);
        }
        tally.merge(lock(&self.shared.tally).clone());
        let (peers, drops) = tally.into_parts();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            peers,
            drops,
            devices,
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.queue.close();
        for lane in std::mem::take(&mut self.lanes) {
            self.end(lane);
        }
    }
}

/// A lane that has ended says nothing.
fn ask(lane: &Handle) -> Option<Report> {
    let (sender, answer) = mpsc::sync_channel(1);
    lane.tell(Order::Report(sender));
    answer.recv_timeout(ANSWER_WITHIN).ok()
}
