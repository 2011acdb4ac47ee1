//! Watching the objects change.

use std::{collections::VecDeque, pin::Pin, sync::Arc};

use futures::{Stream, stream};
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status};
use weft_model::{ServiceId, State, spec::Invalid};
use weft_proto::{
    convert::{
        network, service,
        status::{hinted, invalid},
        task,
    },
    v1::{
        WatchKind, WatchRequest, WatchResponse, watch_response, watch_service_server::WatchService,
    },
};

use super::{
    Api,
    history::{Event, Kind, Next, Object, Step, listing},
    nodes, resolve,
};
use crate::manager::Manager;

/// The words of `WatchRequest.objects`.
const WORDS: [&str; 4] = ["node", "network", "service", "task"];

type Changes = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl WatchService for Api {
    type WatchStream = Changes;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Changes>, Status> {
        let manager = self.manager()?;
        let request = request.into_inner();
        // What the caller was told of before must be in what it watches now.
        let filter = Filter::new(&*manager.current().await?, &request)?;
        let mut watching = Watching {
            newest: manager.core.history.watch(),
            manager,
            filter,
            seen: request.from_revision,
            ready: VecDeque::new(),
        };
        match request.from_revision {
            0 => watching.list(),
            _ => watching.check()?,
        }
        let changes = stream::unfold(watching, |mut watching| async move {
            let next = watching.next().await?;
            Some((next, watching))
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

/// What the caller wants to see.
struct Filter {
    /// Some of [`WORDS`]; empty is all.
    objects: Vec<String>,
    service: Option<ServiceId>,
}

impl Filter {
    fn new(state: &State, request: &WatchRequest) -> Result<Self, Status> {
        if let Some(bad) = request.objects.iter().find(|word| !WORDS.contains(&word.as_str())) {
            let reason = format!("must be one of {}", WORDS.join(", "));
            return Err(invalid(&Invalid::new("objects", bad, reason)));
        }
        let service = match request.service.as_str() {
            "" => None,
            text => Some(resolve::service(state, text)?.id),
        };
        Ok(Self { objects: request.objects.clone(), service })
    }

    fn wants(&self, event: &Event) -> bool {
        let (word, of_service) = match &event.object {
            Object::Node(_) => ("node", true),
            Object::Network(_) => ("network", true),
            Object::Service(_) => ("service", true),
            Object::Task(task) => ("task", self.service.is_none_or(|id| task.service == id)),
        };
        of_service && (self.objects.is_empty() || self.objects.iter().any(|it| it == word))
    }
}

/// One watch. It takes from the history when its reader asks for more, so a slow reader costs
/// nothing until it has fallen out of the history.
struct Watching {
    manager: Manager,
    newest: watch::Receiver<u64>,
    filter: Filter,
    seen: u64,
    ready: VecDeque<WatchResponse>,
}

impl Watching {
    /// Everything there is, and a bookmark. Whoever is interrupted before the bookmark starts again.
    fn list(&mut self) {
        let state = self.manager.core.history.newest();
        let events = listing(&state);
        let wanted = events.iter().filter(|event| self.filter.wants(event));
        self.ready = wanted.map(|event| self.message(event, &state, 0)).collect();
        self.seen = state.revision();
        self.ready.push_back(WatchResponse {
            revision: self.seen,
            kind: WatchKind::Bookmark.into(),
            object: None,
        });
    }

    /// Whether the changes after the revision asked for are kept; one that is yet to come may be.
    fn check(&self) -> Result<(), Status> {
        match self.manager.core.history.after(self.seen) {
            Next::Step(_) | Next::Wait => Ok(()),
            Next::Lost => Err(lost(self.seen)),
        }
    }

    async fn next(&mut self) -> Option<Result<WatchResponse, Status>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(Ok(message));
            }
            self.newest.mark_unchanged();
            match self.manager.core.history.after(self.seen) {
                Next::Step(step) => self.take(&step),
                Next::Lost => {
                    let seen = std::mem::replace(&mut self.seen, u64::MAX);
                    // After the error the stream ends: nothing is newer than the last revision.
                    return (seen != u64::MAX).then(|| Err(lost(seen)));
                }
                Next::Wait if self.seen == u64::MAX => return None,
                Next::Wait => self.newest.changed().await.ok()?,
            }
        }
    }

    /// Only the last message of a step names its revision: whoever is interrupted before it gets the
    /// whole step again.
    fn take(&mut self, step: &Step) {
        let wanted: Vec<_> = step.events.iter().filter(|event| self.filter.wants(event)).collect();
        let last = wanted.len().saturating_sub(1);
        for (index, event) in wanted.into_iter().enumerate() {
            let revision = if index == last { step.revision } else { self.seen };
            let state = match event.kind {
                Kind::Created | Kind::Updated => &step.after,
                // What it was on may be gone with it.
                Kind::Removed => &step.before,
            };
            let message = self.message(event, state, revision);
            self.ready.push_back(message);
        }
        self.seen = step.revision;
    }

    fn message(&self, event: &Event, state: &Arc<State>, revision: u64) -> WatchResponse {
        let kind = match event.kind {
            Kind::Created => WatchKind::Created,
            Kind::Updated => WatchKind::Updated,
            Kind::Removed => WatchKind::Removed,
        };
        let object = match &event.object {
            Object::Node(node) => {
                let status = self.manager.store().status();
                watch_response::Object::Node(nodes::shown(state, node, &status))
            }
            Object::Network(it) => watch_response::Object::Network(network::network(state, it)),
            Object::Service(it) => watch_response::Object::Service(service::service(state, it)),
            Object::Task(it) => watch_response::Object::Task(task::task(state, it)),
        };
        WatchResponse { revision, kind: kind.into(), object: Some(object) }
    }
}

fn lost(revision: u64) -> Status {
    let message = format!("the changes after revision {revision} are no longer kept");
    hinted(Code::OutOfRange, message, Some("start again from revision 0"))
}
