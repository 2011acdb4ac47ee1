//! Names that are not ours: asked of the asker's upstream servers, from the host's namespace, and
//! kept for a while.
//!
//! What is sent upstream is written anew (random id, random port, random case of the name, only
//! the question and an OPT record), and what comes back is taken apart and checked before any of
//! it is passed on, so that nothing of a client reaches a server except its question, and nothing
//! of a server reaches a client that does not answer it (D6).

mod bucket;
mod cache;
mod relay;
mod upstream;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use bucket::Bucket;
use cache::{Cache, Key};
use relay::Relay;
pub use upstream::UpstreamError;

use crate::answer::Foreign;
use crate::limits::{
    FORWARD_BURST, FORWARD_IN_FLIGHT, FORWARD_RATE, UPSTREAM_HEDGE, UPSTREAM_TOTAL, UPSTREAMS,
};
use crate::wire::Rcode;

/// Asks upstream servers for all sandboxes and keeps what they say. Answers are kept by question
/// and list of servers, so sandboxes with other servers never meet each other's answers.
#[derive(Debug, Default)]
pub(crate) struct Forwarder {
    cache: Mutex<Cache>,
}

/// What one sandbox may have upstream at a time.
#[derive(Debug)]
pub(crate) struct Quota {
    in_flight: Arc<Semaphore>,
    bucket: Mutex<Bucket>,
}

/// The right to send one query upstream.
pub(crate) struct Permit {
    _in_flight: OwnedSemaphorePermit,
}

impl Quota {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            in_flight: Arc::new(Semaphore::new(FORWARD_IN_FLIGHT)),
            bucket: Mutex::new(Bucket::new(FORWARD_RATE, FORWARD_BURST, now)),
        }
    }

    /// None if the sandbox has too many queries in flight or sends them too fast.
    pub(crate) fn take(&self, now: Instant) -> Option<Permit> {
        let in_flight = self.in_flight.clone().try_acquire_owned().ok()?;
        lock(&self.bucket).take(now).then_some(Permit { _in_flight: in_flight })
    }
}

impl Forwarder {
    /// The reply, if it is kept.
    pub(crate) fn cached(
        &self,
        servers: &[SocketAddr],
        foreign: &Foreign,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let key = Key::new(servers, foreign);
        let (relay, age) = lock(&self.cache).get(&key, now)?;
        Some(relay.reply(foreign, age))
    }

    /// Asks the servers; SERVFAIL if none answers in time. The permit lasts as long as this does.
    pub(crate) async fn ask(
        &self,
        servers: &[SocketAddr],
        foreign: &Foreign,
        _permit: Permit,
    ) -> Vec<u8> {
        let found = tokio::time::timeout(UPSTREAM_TOTAL, first_answer(servers, foreign)).await;
        let Ok(Some(relay)) = found else {
            return foreign.reply(Rcode::ServFail);
        };
        let relay = Arc::new(relay);
        let reply = relay.reply(foreign, 0);
        lock(&self.cache).insert(Key::new(servers, foreign), relay, Instant::now());
        reply
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
