//! Getting a call to the leader: the request goes on as it is, with a note of who sent it.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response};
use tonic::{Code, Status, body::Body};
use tower::{Service as _, ServiceExt as _};
use weft_proto::convert::status::hinted;

use super::Origin;
use crate::{
    manager::{Core, no_leader},
    store::Peer,
};

/// The header with the note. Only a manager's counts; everybody else's is taken out.
const NOTE: &str = "weft-origin";

/// Takes the note out of a request's headers, if it has one.
pub(super) fn take_note(headers: &mut HeaderMap) -> Option<Origin> {
    let note = headers.remove(NOTE)?;
    serde_json::from_slice(note.as_bytes()).ok()
}

fn note(origin: &Origin) -> Result<HeaderValue, Status> {
    let text =
        serde_json::to_string(origin).map_err(|error| Status::internal(error.to_string()))?;
    HeaderValue::from_str(&text).map_err(|error| Status::internal(error.to_string()))
}

/// Who leads, after a bounded wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Leader {
    Own,
    Other(Peer),
}

/// Waits until somebody leads.
pub(super) async fn leader(core: &Core) -> Result<Leader, Status> {
    let mut leadership = core.store.leadership();
    let known = leadership.wait_for(|now| now.is_leader() || now.leader.is_some());
    match tokio::time::timeout(core.timings.leader_wait, known).await {
        Ok(Ok(now)) if now.is_leader() => Ok(Leader::Own),
        Ok(Ok(now)) => match &now.leader {
            Some(peer) if peer.number != core.number => Ok(Leader::Other(peer.clone())),
            // The log names us, but we have not yet taken over.
            Some(_) | None => Err(moving()),
        },
        Ok(Err(_)) => Err(Status::unavailable("this manager stops")),
        Err(_) => Err(no_leader(&core.store.status())),
    }
}

/// A call that was already sent on once arrived where nobody leads.
pub(super) fn moving() -> Status {
    let hint = "retry with the same request id";
    hinted(Code::Unavailable, "leadership is just moving to another manager", Some(hint))
}

/// Sends the request to the manager `to` and brings the answer back, trailers and all.
pub(super) async fn forward(
    core: Arc<Core>,
    to: Peer,
    mut request: Request<Body>,
    origin: &Origin,
) -> Response<Body> {
    match note(origin) {
        Ok(note) => request.headers_mut().insert(NOTE, note),
        Err(status) => return status.into_http(),
    };
    let unreachable = |reason: String| {
        let message = format!("the leader at {} cannot be reached: {reason}", to.address);
        hinted(Code::Unavailable, message, Some("retry with the same request id"))
    };
    let mut channel = match core.channels.manager(&to.address) {
        Ok(channel) => channel,
        Err(error) => return unreachable(error.to_string()).into_http(),
    };
    let ready = match channel.ready().await {
        Ok(ready) => ready,
        Err(error) => return unreachable(chain(&error)).into_http(),
    };
    match ready.call(request).await {
        Ok(response) => response,
        Err(error) => unreachable(chain(&error)).into_http(),
    }
}

/// An error with its causes: tonic's own sentence is only "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    std::iter::once(error.to_string())
        .chain(causes.map(ToString::to_string))
        .collect::<Vec<_>>()
        .join(": ")
}
