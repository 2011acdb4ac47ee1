//! Sessions between workers and managers: streams in order, which stall while a way is cut, and break
//! when they have stalled for too long or when one end dies.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::mpsc::{self, error::TrySendError};
use weft_manager::{
    ManagerSlot,
    dispatcher::{FromWorker, Hello, ToWorker, Welcome},
};
use weft_model::{Assignments, NodeId};
use weft_worker::session::{Dial, Ended, FromManager, Pipe, QUEUE, ToManager};

use super::{
    clock::{SimClock, millis},
    keys::Told,
    net::{Answer, HostId, Net, Parcel},
    request,
};

/// A stream that has stalled for so long is dead: keep-alive of the connections between nodes.
const STALL: Duration = Duration::from_secs(5);
/// How long a worker waits for its stream to be taken.
const OPENING: Duration = Duration::from_secs(5);

/// All streams. Clones are the same.
#[derive(Clone)]
pub(super) struct Links(Arc<Mutex<BTreeMap<u64, Link>>>, Net, SimClock);

/// What goes to a worker: a message, or why there are no more.
type Down = Result<FromManager, Ended>;

struct Link {
    worker: HostId,
    manager: HostId,
    up: Lane<FromWorker>,
    down: Lane<Down>,
    /// What the worker has heard in this session.
    heard: Assignments,
    told: Told,
    stalled_since: Option<u64>,
}

/// One direction.
struct Lane<T> {
    /// With the time of arrival, which never goes back.
    under_way: VecDeque<(u64, T)>,
    /// `None` while the stream is not yet taken.
    end: Option<mpsc::Sender<T>>,
    /// Nothing more will be sent.
    closed: bool,
}

impl<T> Lane<T> {
    fn new(end: Option<mpsc::Sender<T>>) -> Self {
        Self { under_way: VecDeque::new(), end, closed: false }
    }

    fn push(&mut self, at: u64, message: T) {
        let last = self.under_way.back().map_or(0, |(at, _)| *at);
        self.under_way.push_back((at.max(last), message));
    }

    /// Hands over what has arrived, as far as there is room. `false` when nobody takes it any more.
    fn flush(&mut self, now: u64, mut note: impl FnMut(&T)) -> bool {
        let Some(end) = &self.end else { return true };
        while let Some((at, message)) = self.under_way.pop_front() {
            if at > now {
                self.under_way.push_front((at, message));
                break;
            }
            match end.try_reserve() {
                Ok(room) => {
                    note(&message);
                    room.send(message);
                }
                Err(TrySendError::Full(())) => {
                    self.under_way.push_front((at, message));
                    break;
                }
                Err(TrySendError::Closed(())) => return false,
            }
        }
        if self.closed && self.under_way.is_empty() {
            self.end = None;
            return false;
        }
        true
    }
}

/// What a host is doing, as far as its streams are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Liveness {
    Awake,
    /// Asleep, or without power: nothing comes from there.
    Silent,
    /// The machine says that the process is gone.
    Gone,
}

impl Links {
    pub(super) fn new(net: Net, clock: SimClock) -> Self {
        Self(Arc::default(), net, clock)
    }

    /// Lets the streams go on by one tick.
    pub(super) fn tick(&self, liveness: impl Fn(HostId) -> Liveness) {
        let now = self.2.now();
        self.lock().retain(|_, link| {
            let ends = [liveness(link.worker), liveness(link.manager)];
            if ends.contains(&Liveness::Gone) {
                link.breaks("connection reset");
                return false;
            }
            let awake = ends == [Liveness::Awake, Liveness::Awake];
            let up = awake && self.1.passes(link.worker, link.manager);
            let down = awake && self.1.passes(link.manager, link.worker);
            if up && down {
                link.stalled_since = None;
            } else if now - *link.stalled_since.get_or_insert(now) > millis(STALL) {
                link.breaks("no answer to keep-alive");
                return false;
            }
            // Without a way back nothing is acknowledged, so nothing more comes.
            let alive = !(up && down) || link.flush(now);
            if !alive {
                link.breaks("the other end hung up");
            }
            alive
        });
    }

    /// Takes a stream at a manager, or sends it on to the leader.
    pub(super) async fn take(
        self,
        slot: ManagerSlot,
        own: HostId,
        (call, link, node, hops): (u64, u64, NodeId, u8),
    ) {
        let net = self.1.clone();
        let worker = self.lock().get(&link).map(|link| link.worker);
        let Some(worker) = worker else { return };
        let refused = |net: &Net| {
            net.send(own, worker, Parcel::Answer { call, answer: Answer::Refused });
        };
        let Some(manager) = slot.load_full() else { return refused(&net) };
        match request::leader(&manager, own).await {
            Some(host) if host == own => {
                let (to_desk, inbound) = mpsc::channel(QUEUE);
                let (outbound, mut from_desk) = mpsc::channel(QUEUE);
                let taken = self.lock().get_mut(&link).map(|link| {
                    link.manager = own;
                    link.up.end = Some(to_desk);
                });
                if taken.is_none() {
                    return;
                }
                net.send(own, worker, Parcel::Answer { call, answer: Answer::Taken });
                let serving = manager.session(node, inbound, outbound);
                tokio::pin!(serving);
                let ended = loop {
                    tokio::select! {
                        ended = &mut serving => break ended,
                        Some(message) = from_desk.recv() => self.down(link, Ok(to_worker(message))),
                    }
                };
                self.down(link, Err(ended.to_string().into()));
            }
            Some(host) if hops == 0 => {
                net.send(own, host, Parcel::Open { call, link, node, hops: 1 });
            }
            Some(_) | None => refused(&net),
        }
    }

    fn open(
        &self,
        (worker, told): (HostId, Told),
        manager: HostId,
        end: mpsc::Sender<Down>,
    ) -> u64 {
        let number = self.1.number();
        let (up, down) = (Lane::new(None), Lane::new(Some(end)));
        let heard = Assignments::default();
        let link = Link { worker, manager, up, down, heard, told, stalled_since: None };
        self.lock().insert(number, link);
        number
    }

    fn up(&self, link: u64, message: FromWorker) {
        let at = self.2.now() + self.1.stream_delay();
        if let Some(link) = self.lock().get_mut(&link) {
            link.up.push(at, message);
        }
    }

    fn hang_up(&self, link: u64) {
        if let Some(link) = self.lock().get_mut(&link) {
            link.up.closed = true;
        }
    }

    fn down(&self, link: u64, message: Down) {
        let at = self.2.now() + self.1.stream_delay();
        if let Some(link) = self.lock().get_mut(&link) {
            link.down.closed = message.is_err();
            link.down.push(at, message);
        }
    }

    /// Each change is one call on the map or one of a link, which cannot panic half way.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Link>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Hands over what has arrived at both ends; false when one of them takes nothing more.
    fn flush(&mut self, now: u64) -> bool {
        let (told, heard) = (&self.told, &mut self.heard);
        let up = self.up.flush(now, |_| {});
        let down = self.down.flush(now, |message| {
            if let Ok(FromManager::Assignments(update)) = message {
                told.hear(heard, update);
            }
        });
        up & down
    }

    /// Tells both ends, as far as they listen; the ends are dropped with the link.
    fn breaks(&mut self, why: &str) {
        if let Some(end) = &self.down.end {
            // A full queue ends without a reason.
            let _ = end.try_send(Err(why.to_owned().into()));
        }
    }
}

/// A worker's way to its managers.
pub(super) struct Dialler {
    pub(super) links: Links,
    pub(super) host: HostId,
    pub(super) node: NodeId,
    pub(super) told: Told,
}

impl Dial for Dialler {
    async fn dial(&mut self, manager: SocketAddr) -> Result<Pipe, Ended> {
        let to = super::host_at(&manager.to_string());
        let to = to.ok_or_else(|| "nobody has this address".to_owned())?;
        let (to_worker, down) = mpsc::channel(QUEUE);
        let link = self.links.open((self.host, self.told.clone()), to, to_worker);
        let (net, node) = (&self.links.1, self.node);
        let asked = net.ask(self.host, to, |call| Parcel::Open { call, link, node, hops: 0 });
        match asked.answer(OPENING).await {
            Some(Answer::Taken) => {}
            other => {
                self.links.lock().remove(&link);
                return Err(format!("{manager} does not take a session: {other:?}").into());
            }
        }
        let (up, mut outgoing) = mpsc::channel(QUEUE);
        let (links, told) = (self.links.clone(), self.told.clone());
        // It ends with the session, whose end drops the sender.
        tokio::spawn(async move {
            while let Some(message) = outgoing.recv().await {
                if let ToManager::Applied(revision) = &message {
                    told.applied(*revision);
                }
                links.up(link, from_worker(message));
            }
            links.hang_up(link);
        });
        Ok(Pipe { up, down })
    }
}

fn from_worker(message: ToManager) -> FromWorker {
    match message {
        ToManager::Hello { description, boot, raft_incarnation } => {
            FromWorker::Hello(Hello { description, boot_id: boot, raft_incarnation })
        }
        ToManager::Heartbeat => FromWorker::Heartbeat,
        ToManager::Applied(revision) => FromWorker::Applied(revision),
        ToManager::Reports(reports) => FromWorker::Reports(reports),
        ToManager::Tunnel(report) => FromWorker::Tunnel(report),
    }
}

fn to_worker(message: ToWorker) -> FromManager {
    match message {
        ToWorker::Welcome(Welcome { heartbeat, managers, role }) => FromManager::Welcome {
            heartbeat,
            managers: managers.iter().filter_map(|(_, _, address)| address.parse().ok()).collect(),
            role,
            seen_from: None,
        },
        ToWorker::Assignments(update) => FromManager::Assignments(update),
        ToWorker::ReportsTaken(number) => FromManager::ReportsTaken(number),
    }
}
