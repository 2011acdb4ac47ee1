//! The network between the hosts, as messages: late, lost, doubled, overtaken, cut one way or both.
//!
//! Nothing arrives earlier than one tick after it was sent. So every host can live through a tick by
//! itself, and the outcome does not depend on which host goes first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::sync::oneshot;
use weft_manager::store::{Peer, Transport, TransportError};
use weft_model::NodeId;

use super::{
    TICK,
    clock::{SimClock, millis},
    local::{Local, Verdict},
    request::{Call, Reply},
};

/// A host, counted from 1; 0 is where the clients are.
pub(super) type HostId = u8;

/// What is on its way.
#[derive(Clone, Debug)]
pub(super) enum Parcel {
    /// Between the stores of two managers; `sender` is the number the connection proves.
    Raft { call: u64, sender: u64, bytes: Bytes },
    /// From a client to a manager, perhaps by way of another one.
    Api { call: u64, client: HostId, hops: u8, body: Call },
    /// From an administrator to a daemon.
    Local { call: u64, body: Local },
    /// From a worker to a manager: a stream to be taken.
    Open { call: u64, link: u64, node: NodeId, hops: u8 },
    /// Back to who has asked.
    Answer { call: u64, answer: Answer },
}

/// What an asker gets.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Raft(Bytes),
    Api(Reply),
    Local(Verdict),
    /// The stream is open.
    Taken,
    /// There is nobody at that address.
    Refused,
}

/// A parcel that has arrived.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) from: HostId,
    pub(super) to: HostId,
    pub(super) parcel: Parcel,
}

/// What happens to messages that are not cut off.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    /// One in so many is lost; 0 for none.
    pub(super) loss: u32,
    /// One in so many comes twice; 0 for none.
    pub(super) doubled: u32,
    /// The longest delay beyond one tick.
    pub(super) jitter: Duration,
}

impl Weather {
    pub(super) const FAIR: Self = Self { loss: 0, doubled: 0, jitter: Duration::ZERO };
}

/// The network. Clones are the same one.
#[derive(Clone)]
pub(super) struct Net(Arc<Mutex<Wires>>);

struct Wires {
    clock: SimClock,
    random: StdRng,
    weather: Weather,
    /// Ways that are cut, from and to.
    cut: BTreeSet<(HostId, HostId)>,
    /// By time of arrival, then in the order of sending.
    under_way: BTreeMap<(u64, u64), Arrival>,
    asked: BTreeMap<u64, oneshot::Sender<Answer>>,
    /// Number of the last message or call.
    last: u64,
}

impl Net {
    pub(super) fn new(clock: SimClock, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Wires {
            clock,
            random: StdRng::seed_from_u64(seed),
            weather: Weather::FAIR,
            cut: BTreeSet::new(),
            under_way: BTreeMap::new(),
            asked: BTreeMap::new(),
            last: 0,
        })))
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// Cuts one way.
    pub(super) fn cut(&self, from: HostId, to: HostId) {
        self.lock().cut.insert((from, to));
    }

    /// Opens all ways.
    pub(super) fn heal(&self) {
        self.lock().cut.clear();
    }

    /// Whether messages pass from one to the other.
    pub(super) fn passes(&self, from: HostId, to: HostId) -> bool {
        !self.lock().cut.contains(&(from, to))
    }

    /// Sends without knowing whether it arrives.
    pub(super) fn send(&self, from: HostId, to: HostId, parcel: Parcel) {
        self.lock().send(from, to, parcel);
    }

    /// Sends, and gives what brings the answer. `parcel` is told the number of the call.
    pub(super) fn ask(
        &self,
        from: HostId,
        to: HostId,
        parcel: impl FnOnce(u64) -> Parcel,
    ) -> Asked {
        let mut wires = self.lock();
        let call = wires.number();
        let (sender, answer) = oneshot::channel();
        wires.asked.insert(call, sender);
        wires.send(from, to, parcel(call));
        Asked { call, answer, net: self.clone() }
    }

    /// How long a message of a stream takes, being sent again while it gets lost.
    pub(super) fn stream_delay(&self) -> u64 {
        self.lock().stream_delay()
    }

    /// A number that was never given before.
    pub(super) fn number(&self) -> u64 {
        self.lock().number()
    }

    /// Takes out what arrives now. What is for a host that sleeps waits there.
    pub(super) fn arrived(&self, asleep: impl Fn(HostId) -> bool) -> Vec<Arrival> {
        let mut wires = self.lock();
        let now = wires.clock.now();
        let later = wires.under_way.split_off(&(now + 1, 0));
        let due = std::mem::replace(&mut wires.under_way, later);
        let mut arrived = Vec::new();
        for (key, arrival) in due {
            if wires.cut.contains(&(arrival.from, arrival.to)) {
                continue;
            }
            if asleep(arrival.to) {
                wires.under_way.insert((now + millis(TICK), key.1), arrival);
            } else {
                arrived.push(arrival);
            }
        }
        arrived
    }

    /// Hands an answer to who has asked, if he still waits.
    pub(super) fn answered(&self, call: u64, answer: Answer) {
        let asker = self.lock().asked.remove(&call);
        if let Some(asker) = asker {
            // He may just have given up.
            let _ = asker.send(answer);
        }
    }

    /// Each change of the wires is whole before anything in it can panic.
    fn lock(&self) -> MutexGuard<'_, Wires> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wires {
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn one_in(&mut self, count: u32) -> bool {
        count > 0 && self.random.random_ratio(1, count)
    }

    /// Mostly short, sometimes as long as the weather allows.
    fn delay(&mut self) -> u64 {
        let late = self.random.random::<f64>().powi(4);
        millis(TICK + self.weather.jitter.mul_f64(late))
    }

    fn stream_delay(&mut self) -> u64 {
        /// What TCP waits at least before it sends again.
        const SENT_AGAIN: u64 = 200;
        let mut delay = self.delay();
        while self.one_in(self.weather.loss) {
            delay += SENT_AGAIN;
        }
        delay
    }

    fn send(&mut self, from: HostId, to: HostId, parcel: Parcel) {
        let copies = 1 + u8::from(self.one_in(self.weather.doubled));
        for _ in 0..copies {
            if self.one_in(self.weather.loss) {
                continue;
            }
            let key = (self.clock.now() + self.delay(), self.number());
            self.under_way.insert(key, Arrival { from, to, parcel: parcel.clone() });
        }
    }
}

/// A question that was sent. Dropping it gives it up.
pub(super) struct Asked {
    call: u64,
    answer: oneshot::Receiver<Answer>,
    net: Net,
}

impl Asked {
    /// The answer, if it comes within `patience`.
    pub(super) async fn answer(mut self, patience: Duration) -> Option<Answer> {
        tokio::time::timeout(patience, &mut self.answer).await.ok()?.ok()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.net.lock().asked.remove(&self.call);
    }
}

/// The end of the network that one manager's store holds.
#[derive(Clone)]
pub(super) struct Wire {
    pub(super) net: Net,
    pub(super) host: HostId,
    /// Of the manager, as its certificate has it.
    pub(super) number: u64,
}

impl Transport for Wire {
    async fn call(
        &self,
        to: &Peer,
        request: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, TransportError> {
        let address = to.address.clone();
        let unreachable = |reason: &str| TransportError::Unreachable {
            address: to.address.clone(),
            reason: reason.to_owned(),
        };
        let Some(host) = super::host_at(&address) else {
            return Err(unreachable("no host has this address"));
        };
        let sender = self.number;
        let asked =
            self.net.ask(self.host, host, |call| Parcel::Raft { call, sender, bytes: request });
        match asked.answer(deadline).await {
            Some(Answer::Raft(bytes)) => Ok(bytes),
            Some(Answer::Api(_) | Answer::Local(_) | Answer::Taken) => {
                Err(unreachable("an answer to another question"))
            }
            Some(Answer::Refused) => Err(unreachable("connection refused")),
            None => Err(TransportError::Timeout { after: deadline }),
        }
    }
}
