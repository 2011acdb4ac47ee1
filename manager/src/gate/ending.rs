//! Streams that end when the caller's standing does.
//!
//! A stream may last for days, and a node that is removed must not hear another word: so the bodies
//! of streams, both ways, are watched by one future that is asked anew at each change of the state.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};
use tonic::{Status, body::Body};

use super::{Credential, Rule, admit};
use crate::manager::Core;

/// Ready with the reason when a stream must end.
pub(super) type Over = Shared<BoxFuture<'static, Status>>;

/// Looks at every change of the state until `credential` no longer allows `rule`, or the manager
/// stops.
pub(super) fn over(core: Arc<Core>, credential: Credential, rule: &'static Rule) -> Over {
    let watched = async move {
        let cluster = core.cluster.to_string();
        let mut changes = core.store.watch();
        loop {
            let state = core.store.view();
            if let Err(denied) = admit(rule, &credential, Some(&cluster), Some(&state)) {
                return denied.into();
            }
            tokio::select! {
                () = core.closing.cancelled() => return stopped(),
                changed = changes.changed() => if changed.is_err() {
                    return stopped();
                },
            }
        }
    };
    watched.boxed().shared()
}

fn stopped() -> Status {
    Status::unavailable("this manager stops")
}

/// A request's body that ends with an error when it is over.
pub(super) fn ending_request(body: Body, over: Over) -> Body {
    Body::new(Ending { body, over: Some(over), says: |status| Err(status) })
}

/// A response's body that ends with the status as its trailers when it is over.
pub(super) fn ending_response(body: Body, over: Over) -> Body {
    Body::new(Ending {
        body,
        over: Some(over),
        says: |status| Ok(Frame::trailers(trailers(&status))),
    })
}

fn trailers(status: &Status) -> HeaderMap {
    let mut map = HeaderMap::new();
    // It fails only for a message that cannot be a header, and ours are plain text.
    let _ = status.add_header(&mut map);
    map
}

struct Ending<F> {
    body: Body,
    /// None once it was over.
    over: Option<Over>,
    says: F,
}

impl<F> HttpBody for Ending<F>
where
    F: Fn(Status) -> Result<Frame<Bytes>, Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(over) = &mut this.over else { return Poll::Ready(None) };
        if let Poll::Ready(status) = Pin::new(over).poll(cx) {
            this.over = None;
            return Poll::Ready(Some((this.says)(status)));
        }
        Pin::new(&mut this.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.over.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        // It may end at any moment, so the body's own hint would promise too much.
        http_body::SizeHint::default()
    }
}
