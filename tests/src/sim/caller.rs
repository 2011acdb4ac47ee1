//! Who calls the managers: tries as often as it takes, under one name for each write, so that in the end
//! it is known what came of it.

use std::time::Duration;

use rand::{RngExt as _, rngs::StdRng};
use tonic::Status;
use weft_model::NodeId;
use weft_proto::v1::RotateKeyRequest;

use super::{
    HOSTS,
    book::{Book, Entries},
    daemon::host_name,
    local::{Local, Verdict},
    net::{Answer, HostId, Net, Parcel},
    request::{Call, Reply, Shown, is_open},
    trace::Trace,
};

/// Where all callers are.
pub(super) const CLIENTS: HostId = 0;
/// How long a caller waits for one answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries.
pub(super) const RETRY: Duration = Duration::from_millis(200);

/// How a call ended, after as many tries as it took.
pub(super) enum Outcome {
    Done(Shown),
    Refused { status: Status, tries: u32 },
}

/// See the module.
pub(super) struct Caller {
    /// Its name in the trace.
    pub(super) name: String,
    pub(super) net: Net,
    pub(super) trace: Trace,
    pub(super) book: Book,
    pub(super) random: StdRng,
    /// Calls so far.
    calls: u64,
    /// Who answered last.
    manager: HostId,
}

impl Caller {
    pub(super) fn new(name: &str, net: Net, trace: Trace, book: Book, random: StdRng) -> Self {
        Self { name: name.to_owned(), net, trace, book, random, calls: 0, manager: 1 }
    }

    /// A name for a write.
    pub(super) fn request(&mut self) -> String {
        self.calls += 1;
        format!("{}-request-{:06}", self.name, self.calls)
    }

    /// Asks the managers until it is known what came of it.
    pub(super) async fn call(&mut self, what: &str, body: impl Fn(String) -> Call) -> Outcome {
        let request = self.request();
        self.call_as(request, what, body).await
    }

    /// The same under a name that was perhaps used before.
    pub(super) async fn call_as(
        &mut self,
        request: String,
        what: &str,
        body: impl Fn(String) -> Call,
    ) -> Outcome {
        self.note(format!("{what}?"));
        let mut tries = 0;
        loop {
            tries += 1;
            match self.attempt(body(request.clone())).await {
                Some(Ok(shown)) => {
                    self.note(format!("{what}: done, tries {tries}"));
                    self.count(tries, |entries| entries.acknowledged += 1);
                    return Outcome::Done(shown);
                }
                Some(Err(status)) if !is_open(status.code()) => {
                    self.note(format!("{what}: refused, tries {tries}: {}", status.message()));
                    self.count(tries, |entries| entries.refused += 1);
                    return Outcome::Refused { status, tries };
                }
                Some(Err(_)) | None => {
                    self.manager = self.random.random_range(1..=HOSTS);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Has the key of a host's node rotated; refused if the node has not said one yet.
    pub(super) async fn rotate_key(&mut self, host: HostId, node: NodeId) {
        let what = format!("rotate the key of {}", host_name(host));
        let node = node.to_string();
        let call =
            |request_id| Call::RotateKey(RotateKeyRequest { node: node.clone(), request_id });
        let _ = self.call(&what, call).await;
    }

    async fn attempt(&self, body: Call) -> Option<Reply> {
        let parcel = |call| Parcel::Api { call, client: CLIENTS, hops: 0, body };
        match self.net.ask(CLIENTS, self.manager, parcel).answer(PATIENCE).await {
            Some(Answer::Api(reply)) => Some(reply),
            Some(Answer::Raft(_) | Answer::Local(_) | Answer::Taken | Answer::Refused) | None => {
                None
            }
        }
    }

    /// Asks the daemon of a host until it is known what came of it; true if it was done.
    pub(super) async fn ask(&mut self, host: HostId, what: &str, body: &Local) -> bool {
        self.note(format!("{what}?"));
        let mut tries = 0;
        loop {
            tries += 1;
            let parcel = |call| Parcel::Local { call, body: body.clone() };
            match self.net.ask(CLIENTS, host, parcel).answer(PATIENCE).await {
                Some(Answer::Local(Verdict::Done)) => {
                    self.note(format!("{what}: done, tries {tries}"));
                    self.count(tries, |entries| entries.acknowledged += 1);
                    return true;
                }
                Some(Answer::Local(Verdict::Never(why))) => {
                    self.note(format!("{what}: refused, tries {tries}: {why}"));
                    self.count(tries, |entries| entries.refused += 1);
                    return false;
                }
                Some(
                    Answer::Local(Verdict::Again)
                    | Answer::Api(_)
                    | Answer::Raft(_)
                    | Answer::Taken
                    | Answer::Refused,
                )
                | None => tokio::time::sleep(RETRY).await,
            }
        }
    }

    fn count(&self, tries: u32, count: impl FnOnce(&mut Entries)) {
        let mut entries = self.book.lock();
        entries.retried += u64::from(tries > 1);
        count(&mut entries);
    }

    pub(super) fn pick(&mut self, count: usize) -> Option<usize> {
        (count > 0).then(|| self.random.random_range(0..count))
    }

    pub(super) fn note(&self, what: impl std::fmt::Display) {
        self.trace.note(&self.name, what);
    }

    pub(super) fn violated(&self, what: impl std::fmt::Display) {
        self.trace.violated(&self.name, what);
    }
}
