//! What is known of one sandbox while it is served: who it is, what it may use, what it has used.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use rand::Rng;
use tokio::sync::watch;

use super::{Origin, Shared};
use crate::answer::{Answer, Foreign, Transport, answer};
use crate::asker::Asker;
use crate::forward::{Found, Quota};
use crate::wire::Rcode;

/// One sandbox.
#[derive(Debug)]
pub(crate) struct Sandbox {
    shared: Arc<Shared>,
    asker: ArcSwap<Asker>,
    /// Whether it has been said who it is.
    known: watch::Sender<bool>,
    quota: Quota,
    pub(crate) counters: Counters,
}

/// What to do about a message now.
pub(crate) enum Step<F> {
    /// The reply is in the buffer.
    Reply,
    Silence,
    /// The reply comes later.
    Later(F),
}

impl Sandbox {
    /// Without an asker nothing is read from its sockets until [`Self::update`].
    pub(crate) fn new(shared: Arc<Shared>, asker: Option<Asker>) -> Self {
        Self {
            shared,
            known: watch::Sender::new(asker.is_some()),
            asker: ArcSwap::from_pointee(asker.unwrap_or_default()),
            quota: Quota::new(Instant::now()),
            counters: Counters::default(),
        }
    }

    pub(crate) fn update(&self, asker: Asker) {
        self.asker.store(Arc::new(asker));
        self.known.send_if_modified(|known| !std::mem::replace(known, true));
    }

    /// Returns when it has been said who it is.
    pub(crate) async fn known(&self) {
        // The other end is this value's own, so it is not closed meanwhile.
        let _ = self.known.subscribe().wait_for(|known| *known).await;
    }

    /// Answers a message into `out`, or says what is to be awaited for the reply.
    pub(crate) fn step<R: Rng>(
        &self,
        message: &[u8],
        transport: Transport,
        rng: &mut R,
        out: &mut Vec<u8>,
    ) -> Step<impl Future<Output = Vec<u8>> + Send + use<R>> {
        Counters::add(&self.counters.queries, 1);
        Counters::add(&self.counters.query_bytes, message.len());
        let (zones, asker) = (self.shared.zones.load(), self.asker.load());
        match answer(&zones, &asker, message, transport, rng, out) {
            Answer::Reply => {
                self.shared.counts.answered(Origin::Own, out);
                Step::Reply
            }
            Answer::Silence => {
                self.shared.counts.unanswered();
                Step::Silence
            }
            Answer::Forward(foreign) => self.forward(foreign, &asker, out),
        }
    }

    fn forward(
        &self,
        foreign: Foreign,
        asker: &Asker,
        out: &mut Vec<u8>,
    ) -> Step<impl Future<Output = Vec<u8>> + Send + use<>> {
        Counters::add(&self.counters.foreign, 1);
        let (forwarder, now) = (&self.shared.forwarder, Instant::now());
        let found = forwarder.find(&asker.upstreams, &foreign, now);
        if let Found::Kept(reply) = found {
            Counters::add(&self.counters.cached, 1);
            self.shared.counts.answered(Origin::Kept, &reply);
            *out = reply;
            return Step::Reply;
        }
        let refused = foreign.reply(Rcode::Refused);
        let waiting = self.quota.wait().and_then(|place| match found {
            Found::Flying(waiting) => Some((place, waiting)),
            Found::Kept(_) | Found::Nothing => {
                let permit = self.quota.take(now)?;
                Some((place, forwarder.ask(&asker.upstreams, foreign, permit)))
            }
        });
        let Some((place, waiting)) = waiting else {
            Counters::add(&self.counters.refused, 1);
            self.shared.counts.answered(Origin::Own, &refused);
            *out = refused;
            return Step::Reply;
        };
        let shared = Arc::clone(&self.shared);
        Step::Later(async move {
            let _place = place;
            let reply = waiting.reply().await;
            shared.counts.answered(Origin::Upstream, &reply);
            shared.counts.waited(now.elapsed());
            reply
        })
    }
}

/// Counts since the sandbox was added.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    queries: AtomicU64,
    query_bytes: AtomicU64,
    replies: AtomicU64,
    reply_bytes: AtomicU64,
    foreign: AtomicU64,
    cached: AtomicU64,
    refused: AtomicU64,
    closed: AtomicU64,
}

/// What a sandbox has asked and been told since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub queries: u64,
    pub query_bytes: u64,
    pub replies: u64,
    /// Against `query_bytes`, how much an abuser would gain by asking.
    pub reply_bytes: u64,
    /// Queries that were not ours to answer.
    pub foreign: u64,
    /// Of those, answered from what was kept.
    pub cached: u64,
    /// Of those, refused because of `FORWARD_IN_FLIGHT`, `FORWARD_WAITING` or `FORWARD_RATE`.
    pub refused: u64,
    /// TCP connections closed because of a limit.
    pub closed: u64,
}

impl Counters {
    fn add(counter: &AtomicU64, more: impl TryInto<u64>) {
        counter.fetch_add(more.try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn replied(&self, bytes: usize) {
        Self::add(&self.replies, 1);
        Self::add(&self.reply_bytes, bytes);
    }

    pub(crate) fn closed(&self) {
        Self::add(&self.closed, 1);
    }

    pub(crate) fn read(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            queries: read(&self.queries),
            query_bytes: read(&self.query_bytes),
            replies: read(&self.replies),
            reply_bytes: read(&self.reply_bytes),
            foreign: read(&self.foreign),
            cached: read(&self.cached),
            refused: read(&self.refused),
            closed: read(&self.closed),
        }
    }
}
