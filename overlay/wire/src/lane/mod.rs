//! One lane: a thread with a UDP socket for each identity of this node and a queue of each TAP device.
//! What it holds is its own, so nothing is locked where packets pass.
//!
//! Reading order: here is the loop, `send` goes from a TAP device to a node, `receive` the other way,
//! `handshake` is everything about sessions but their use. `link` is the state of WireGuard for a pair
//! of keys, `links` finds it.

mod handshake;
mod link;
mod links;
mod outbox;
mod receive;
mod send;
mod tally;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use boringtun::noise::rate_limiter::RateLimiter;

pub use link::Pair;
pub use tally::{Tally, youngest};

use self::{
    link::Link,
    links::{Links, Means},
    outbox::Outbox,
    receive::Arena,
};
use crate::{
    Key, Reason,
    packet::{Coalescer, Merging},
    sys::{Poller, Sending, Tap, Udp, Wake},
    tables::Tables,
    verifier::{Initiation, Shared},
};

/// How often sessions are looked at: handshakes are repeated, keepalives sent, old keys forgotten.
const TICK: Duration = Duration::from_millis(250);
/// Most of what is added to a tick, so that nodes which began together do not stay together.
const JITTER_MS: u64 = 25;
/// Most orders that wait for a lane and came from packets.
const WAITING: usize = 1024;
/// Most orders that are done before packets are looked at again: a handshake takes 0.2 ms.
const ORDERS: usize = 8;
/// Longest frame of a TAP device: a packet of 64 KB, its Ethernet header, and the device's header.
const FRAME: usize = 65_536 + 64;

/// What a lane is told.
pub enum Order {
    /// To work by these from now on.
    Configure(Box<Setup>),
    /// An initiation of a configured node, found authentic, to be answered.
    Initiation(Initiation, Pair),
    /// A frame, with its device's header, for a node that does not have the other lane.
    Frame { vni: u32, node: u64, bytes: Vec<u8> },
    /// To say how it is doing.
    Report(mpsc::SyncSender<Report>),
    /// To end.
    Stop,
}

/// What a lane works by.
pub struct Setup {
    pub tables: Arc<Tables>,
    /// The lane's sockets, by port.
    pub sockets: BTreeMap<u16, Arc<Udp>>,
    /// By identity of this node.
    pub limiters: BTreeMap<Key, Arc<RateLimiter>>,
    /// All lanes, in their order.
    pub lanes: Vec<Handle>,
}

/// How a lane is doing.
pub struct Report {
    pub tally: Tally,
    /// By network: why its TAP device is not open.
    pub devices: BTreeMap<u32, String>,
    /// Nodes whose packets still go by former keys.
    pub moving: BTreeSet<u64>,
}

/// How others reach a lane.
#[derive(Clone, Debug)]
pub struct Handle {
    orders: mpsc::Sender<Order>,
    wake: Arc<Wake>,
    waiting: Arc<AtomicUsize>,
}

impl Handle {
    /// Tells it something; false when it has ended.
    pub fn tell(&self, order: Order) -> bool {
        let told = self.orders.send(order).is_ok();
        self.wake.wake();
        told
    }

    /// Tells it something that a packet has caused; false when too much waits already.
    pub fn offer(&self, order: Order) -> bool {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.tell(order)
    }
}

/// A network's TAP queue on this lane.
struct Port {
    name: String,
    tap: Result<Tap, String>,
    coalescer: Coalescer,
}

/// The lane itself.
pub struct Lane {
    number: usize,
    /// Where initiations are checked.
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Order>,
    wake: Arc<Wake>,
    waiting: Arc<AtomicUsize>,
    poller: Poller,
    setup: Setup,
    links: Links,
    ports: BTreeMap<u32, Port>,
    outbox: Outbox,
    arena: Arena,
    frame: Vec<u8>,
    packet: Vec<u8>,
    tally: Tally,
    hints: BTreeMap<u64, Instant>,
    ticked: Instant,
    ended: bool,
}

/// What the poller says is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    Wake,
    Socket(u16),
    Tap(u32),
}

impl Ready {
    const SOCKET: u64 = 1 << 32;
    const TAP: u64 = 2 << 32;

    fn token(self) -> u64 {
        match self {
            Self::Wake => 0,
            Self::Socket(port) => Self::SOCKET | u64::from(port),
            Self::Tap(vni) => Self::TAP | u64::from(vni),
        }
    }

    fn of(token: u64) -> Self {
        let low = token as u32;
        match token & !u64::from(u32::MAX) {
            Self::SOCKET => Self::Socket(low as u16),
            Self::TAP => Self::Tap(low),
            _ => Self::Wake,
        }
    }
}

impl Lane {
    /// Makes a lane, which does nothing until it is configured.
    pub fn new(number: usize, shared: Arc<Shared>) -> io::Result<(Self, Handle)> {
        let (sender, orders) = mpsc::channel();
        let wake = Arc::new(Wake::new()?);
        let poller = Poller::new()?;
        poller.watch(&*wake, Ready::Wake.token())?;
        let waiting = Arc::new(AtomicUsize::new(0));
        let handle =
            Handle { orders: sender, wake: Arc::clone(&wake), waiting: Arc::clone(&waiting) };
        let setup = Setup {
            tables: Arc::default(),
            sockets: BTreeMap::new(),
            limiters: BTreeMap::new(),
            lanes: Vec::new(),
        };
        let lane = Self {
            number,
            shared,
            orders,
            wake,
            waiting,
            poller,
            setup,
            links: Links::default(),
            ports: BTreeMap::new(),
            outbox: Outbox::new(),
            arena: Arena::new(),
            frame: vec![0; FRAME],
            packet: vec![0; FRAME],
            tally: Tally::default(),
            hints: BTreeMap::new(),
            ticked: Instant::now(),
            ended: false,
        };
        Ok((lane, handle))
    }

    /// Carries packets until it is told to stop.
    ///
    /// # Errors
    /// The kernel refuses to say what is ready, which nothing can be done about.
    pub fn run(mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        while !self.ended {
            self.poller.wait(self.until_tick(), &mut ready)?;
            self.tick_if_due();
            let youngest = self.by_age(&mut ready);
            for token in &ready {
                match Ready::of(*token) {
                    Ready::Wake => self.obey(),
                    Ready::Socket(port) if Some(port) != youngest => self.drain(port),
                    // What is left makes it ready again.
                    Ready::Socket(port) => _ = self.receive(port),
                    Ready::Tap(vni) => self.send_from(vni),
                }
            }
            self.flush();
        }
        Ok(())
    }

    /// Puts the sockets in the order in which they were opened, and says which is the last: while keys
    /// are changed, what came by the former ones was sent before.
    fn by_age(&self, ready: &mut [u64]) -> Option<u16> {
        let age = |port: &u16| self.setup.sockets.get(port).map(|socket| socket.opened());
        if self.setup.sockets.len() > 1 {
            ready.sort_by_key(|token| match Ready::of(*token) {
                Ready::Socket(port) => age(&port),
                Ready::Wake | Ready::Tap(_) => None,
            });
        }
        self.setup.sockets.keys().copied().max_by_key(age)
    }

    /// Nothing is due while there is neither a session, nor one to be begun ahead of need, nor a device to
    /// wait for.
    fn until_tick(&self) -> Option<Duration> {
        let nodes = &self.setup.tables.config.nodes;
        let idle = self.links.is_empty()
            && self.ports.values().all(|port| port.tap.is_ok())
            && nodes.values().all(|node| node.keepalive.is_none());
        (!idle).then(|| TICK.saturating_sub(self.ticked.elapsed()))
    }

    fn tick_if_due(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.ticked) < TICK {
            return;
        }
        self.ticked = now + Duration::from_millis(rand::random_range(0..JITTER_MS));
        self.tick(now);
        self.open_missing();
    }

    /// Obeys what it was told so far, and sends what follows.
    pub fn step(&mut self) {
        self.obey();
        self.flush();
    }

    /// What it has counted.
    pub fn tally(&mut self) -> Tally {
        self.report().tally
    }

    fn obey(&mut self) {
        self.wake.take();
        for _ in 0..ORDERS {
            let Ok(order) = self.orders.try_recv() else { return };
            match order {
                Order::Configure(setup) => self.configure(*setup),
                Order::Initiation(initiation, pair) => {
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    self.answer(&initiation, pair);
                }
                Order::Frame { vni, node, bytes } => {
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    self.send_to(node, vni, &bytes);
                }
                Order::Report(to) => {
                    // Who asked may have gone.
                    let _ = to.send(self.report());
                }
                Order::Stop => self.ended = true,
            }
        }
        // More may wait: packets first.
        self.wake.wake();
    }

    fn configure(&mut self, setup: Setup) {
        self.flush();
        // Packets of keys that are about to be forgotten may still wait at any port.
        if self.setup.tables.forgets_keys(&setup.tables) {
            let ports: Vec<u16> = self.setup.sockets.keys().copied().collect();
            ports.into_iter().for_each(|port| self.drain(port));
        }
        for (port, socket) in &self.setup.sockets {
            if !setup.sockets.get(port).is_some_and(|kept| Arc::ptr_eq(kept, socket)) {
                self.poller.forget(&**socket);
            }
        }
        for (port, socket) in &setup.sockets {
            if !self.setup.sockets.get(port).is_some_and(|had| Arc::ptr_eq(had, socket)) {
                // A socket that cannot be watched is deaf: the handshakes fail, which the status says.
                let _ = self.poller.watch(&**socket, Ready::Socket(*port).token());
            }
        }
        self.setup = setup;
        let networks = &self.setup.tables.config.networks;
        self.ports.retain(|vni, port| {
            networks.get(vni).is_some_and(|network| network.device == port.name)
        });
        for (vni, network) in networks {
            self.ports.entry(*vni).or_insert_with(|| Port {
                name: network.device.clone(),
                tap: Err("not opened yet".to_owned()),
                coalescer: Coalescer::default(),
            });
        }
        self.open_missing();
        let means = means(&self.setup, self.number);
        self.links.follow(&means);
        let nodes = &self.setup.tables.config.nodes;
        self.tally.keep(|node| nodes.contains_key(&node));
        self.hints.retain(|node, _| nodes.contains_key(node));
        self.greet_new_keys();
    }

    fn open_missing(&mut self) {
        for (vni, port) in self.ports.iter_mut().filter(|(_, port)| port.tap.is_err()) {
            port.tap = Tap::open(&port.name).map_err(|error| error.to_string());
            let Ok(tap) = &port.tap else { continue };
            let merging = if tap.segments_udp() { Merging::TcpAndUdp } else { Merging::Tcp };
            port.coalescer = Coalescer::new(merging);
            if let Err(error) = self.poller.watch(tap, Ready::Tap(*vni).token()) {
                port.tap = Err(error.to_string());
            }
        }
    }

    /// A device is gone; it is opened again when it is back.
    fn lose(&mut self, vni: u32, error: &io::Error) {
        if let Some(port) = self.ports.get_mut(&vni) {
            port.tap = Err(error.to_string());
        }
    }

    /// Sends what waits to be sent together.
    fn flush(&mut self) {
        let Some(slot) = self.outbox.pending() else { return };
        let Some(link) = self.links.get(slot) else {
            self.outbox.clear();
            return;
        };
        let node = link.node;
        link.spoke = self.ticked;
        let (bytes, packets, sent) = self.outbox.flush(link);
        match sent {
            Ok(()) => self.tally.peer(node).sent += bytes as u64,
            Err(_) => self.tally.dropped_many(Some(node), Reason::Device, packets as u64),
        }
    }

    /// Sends one message outside of the queue.
    fn post(&mut self, slot: usize, message: &[u8], to: Option<SocketAddr>) {
        let Some(link) = self.links.get(slot) else { return };
        let (node, to) = (link.node, to.unwrap_or(link.endpoint));
        link.spoke = Instant::now();
        match link.socket.send(Sending::one(message), to) {
            Ok(()) => self.tally.peer(node).sent += message.len() as u64,
            Err(_) => self.tally.dropped(Some(node), Reason::Device),
        }
    }

    fn report(&mut self) -> Report {
        let mut tally = self.tally.clone();
        for slot in self.links.all() {
            let Some(link) = self.links.get(slot) else { continue };
            let peer = tally.peer(link.node);
            if peer.endpoint.is_none() || (link.live && is_first(&self.setup.tables, link)) {
                peer.endpoint = Some(link.endpoint);
            }
            let age = link.tunn.time_since_last_handshake();
            peer.handshake_age = youngest(peer.handshake_age, age);
        }
        let broken = self
            .ports
            .iter()
            .filter_map(|(vni, port)| Some((*vni, port.tap.as_ref().err()?.clone())));
        let devices = broken.collect();
        Report { tally, devices, moving: self.moving() }
    }
}

/// Whether a link is of the keys that are sent with.
fn is_first(tables: &Tables, link: &Link) -> bool {
    let node = tables.config.nodes.get(&link.node);
    let theirs = node.and_then(|node| node.identities.first());
    tables.own.first().is_some_and(|own| own.public == link.pair.own)
        && theirs.is_some_and(|identity| identity.public_key == link.pair.peer)
}

fn means(setup: &Setup, lane: usize) -> Means<'_> {
    Means { tables: &setup.tables, lane, sockets: &setup.sockets, limiters: &setup.limiters }
}
