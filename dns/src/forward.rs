//! Names that are not ours: asked of the asker's upstream servers, from the host's namespace, and
//! kept for a while.
//!
//! What is sent upstream is written anew (random id, random port, random case of the name, only
//! the question and an OPT record), and what comes back is taken apart and checked before any of
//! it is passed on, so that nothing of a client reaches a server except its question, and nothing
//! of a server reaches a client that does not answer it (D6).

mod bucket;
mod cache;
#[doc(hidden)]
pub mod fuzzing;
mod relay;
mod upstream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use bucket::Bucket;
use cache::{Cache, Key};
use relay::Relay;
pub use upstream::UpstreamError;

use crate::answer::Foreign;
use crate::limits::{
    FORWARD_BURST, FORWARD_IN_FLIGHT, FORWARD_RATE, FORWARD_WAITING, UPSTREAM_HEDGE,
    UPSTREAM_TOTAL, UPSTREAMS,
};
use crate::wire::Rcode;

/// A question on its way, for all who wait for its answer.
type Flight = Shared<BoxFuture<'static, Option<Arc<Relay>>>>;

/// Asks upstream servers for all sandboxes and keeps what they say. Answers are kept, and
/// questions on their way shared, by question and list of servers: sandboxes with other servers
/// never meet each other's answers.
#[derive(Debug, Default)]
pub(crate) struct Forwarder {
    cache: Mutex<Cache>,
    flights: Mutex<BTreeMap<Key, WeakShared<BoxFuture<'static, Option<Arc<Relay>>>>>>,
}

/// What one sandbox may have upstream at a time.
#[derive(Debug)]
pub(crate) struct Quota {
    waiting: Arc<Semaphore>,
    in_flight: Arc<Semaphore>,
    bucket: Mutex<Bucket>,
}

/// The right to send one query upstream.
pub(crate) struct Permit {
    _in_flight: OwnedSemaphorePermit,
}

/// What there is for a question now.
pub(crate) enum Found {
    /// The reply, made of what was kept.
    Kept(Vec<u8>),
    /// The same question is on its way.
    Flying(Waiting),
    Nothing,
}

/// A client waiting for an answer.
pub(crate) struct Waiting {
    flight: Flight,
    foreign: Foreign,
}

impl Quota {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            waiting: Arc::new(Semaphore::new(FORWARD_WAITING)),
            in_flight: Arc::new(Semaphore::new(FORWARD_IN_FLIGHT)),
            bucket: Mutex::new(Bucket::new(FORWARD_RATE, FORWARD_BURST, now)),
        }
    }

    /// The right to have one more client wait, while it is held.
    pub(crate) fn wait(&self) -> Option<OwnedSemaphorePermit> {
        self.waiting.clone().try_acquire_owned().ok()
    }

    /// None if the sandbox has too many queries in flight or sends them too fast.
    pub(crate) fn take(&self, now: Instant) -> Option<Permit> {
        let in_flight = self.in_flight.clone().try_acquire_owned().ok()?;
        lock(&self.bucket).take(now).then_some(Permit { _in_flight: in_flight })
    }
}

impl Waiting {
    /// The reply; SERVFAIL if no server answered in time.
    pub(crate) async fn reply(self) -> Vec<u8> {
        match self.flight.await {
            Some(relay) => relay.reply(&self.foreign, 0),
            None => self.foreign.reply(Rcode::ServFail),
        }
    }
}

impl Forwarder {
    /// Looks for an answer that is kept or coming.
    pub(crate) fn find(&self, servers: &[SocketAddr], foreign: &Foreign, now: Instant) -> Found {
        let key = Key::new(servers, foreign);
        if let Some((relay, age)) = lock(&self.cache).get(&key, now) {
            return Found::Kept(relay.reply(foreign, age));
        }
        let flight = lock(&self.flights).get(&key).and_then(WeakShared::upgrade);
        match flight {
            Some(flight) => Found::Flying(Waiting { flight, foreign: foreign.clone() }),
            None => Found::Nothing,
        }
    }

    /// Asks the servers. The question is on its way for as long as somebody waits for it, also if
    /// that is not who asked first; the permit lasts as long.
    pub(crate) fn ask(
        self: &Arc<Self>,
        servers: &[SocketAddr],
        foreign: Foreign,
        permit: Permit,
    ) -> Waiting {
        let key = Key::new(servers, &foreign);
        let landing = Landing { forwarder: self.clone(), key: key.clone(), _permit: permit };
        let (servers, question) = (servers.to_vec(), foreign.clone());
        let flight = async move {
            let found = tokio::time::timeout(UPSTREAM_TOTAL, first_answer(&servers, &question));
            let relay = Arc::new(found.await.ok().flatten()?);
            let kept = (landing.key.clone(), relay.clone());
            lock(&landing.forwarder.cache).insert(kept.0, kept.1, Instant::now());
            Some(relay)
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            lock(&self.flights).insert(key, weak);
        }
        Waiting { flight, foreign }
    }
}

/// Forgets a flight when it ends, by an answer or because nobody waits any more.
struct Landing {
    forwarder: Arc<Forwarder>,
    key: Key,
    _permit: Permit,
}

impl Drop for Landing {
    fn drop(&mut self) {
        lock(&self.forwarder.flights).remove(&self.key);
    }
}

/// The first good answer. The next server is asked when one fails, or when all asked so far have
/// been silent for `UPSTREAM_HEDGE`; who was slow may still be the one who answers.
async fn first_answer(servers: &[SocketAddr], foreign: &Foreign) -> Option<Relay> {
    let mut waiting = servers.iter().copied().take(UPSTREAMS);
    let mut asked = FuturesUnordered::new();
    loop {
        match waiting.next() {
            Some(server) => asked.push(upstream::exchange(server, foreign)),
            None if asked.is_empty() => return None,
            None => {}
        }
        tokio::select! {
            Some(result) = asked.next() => match result {
                Ok(relay) => return Some(relay),
                Err(error) => tracing::debug!(%error, "upstream"),
            },
            () = tokio::time::sleep(UPSTREAM_HEDGE), if waiting.len() > 0 => {}
        }
    }
}

/// A panic while the lock was held cannot leave these tables half changed in a way that matters:
/// at worst an entry is missing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
