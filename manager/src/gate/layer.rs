//! The layer itself.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use weft_proto::{convert::status::hinted, tls::ConnectionInfo};

use super::{
    Caller, Credential, Origin, Place, Rule, Shape, admit,
    ending::{ending_request, ending_response, over},
    forward::{Leader, forward, leader, moving, take_note},
    rule_of,
};
use crate::manager::{Manager, ManagerSlot};

/// What a node that is no manager knows of its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// The cluster it is in, if any.
    pub cluster: Option<String>,
    /// `HOST:PORT` of the managers it knows.
    pub managers: Vec<String>,
}

/// How the gate asks the daemon for the [`Outlook`] of the moment.
pub type Outlooks = Arc<dyn Fn() -> Outlook + Send + Sync>;

/// The gate. Put it before all routes of both listeners.
#[derive(Clone)]
pub struct Gate {
    slot: ManagerSlot,
    outlook: Outlooks,
}

impl Gate {
    /// A gate that looks for the manager in `slot` at each call.
    pub fn new(slot: ManagerSlot, outlook: Outlooks) -> Self {
        Self { slot, outlook }
    }
}

impl<S> Layer<S> for Gate {
    type Service = GateService<S>;

    fn layer(&self, inner: S) -> GateService<S> {
        GateService { gate: self.clone(), inner }
    }
}

/// Services behind the gate.
#[derive(Clone)]
pub struct GateService<S> {
    gate: Gate,
    inner: S,
}

impl<S> Service<Request<Body>> for GateService<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone has not been asked whether it is ready; the one that has must be used.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let gate = self.gate.clone();
        Box::pin(async move {
            match gate.pass(request).await {
                Ok(Passed { request, ending }) => {
                    let response = inner.call(request).await?;
                    Ok(match ending {
                        Some(over) => response.map(|body| ending_response(body, over)),
                        None => response,
                    })
                }
                Err(response) => Ok(*response),
            }
        })
    }
}

/// A request that may go on to its service.
struct Passed {
    request: Request<Body>,
    ending: Option<super::ending::Over>,
}

impl Gate {
    /// Lets the request through, or answers it.
    async fn pass(&self, mut request: Request<Body>) -> Result<Passed, Box<Response<Body>>> {
        let answer = |status: Status| Box::new(status.into_http());
        let Some(rule) = rule_of(request.uri().path()) else {
            return Err(answer(Status::unimplemented("there is no such method")));
        };
        let manager = self.slot.load_full();
        let manager = manager.as_deref();
        let (origin, sent_on) = self.origin(&mut request, manager);
        let caller = self.admit(rule, &origin.credential, manager).map_err(answer)?;
        if rule.place != Place::Node && manager.is_none() {
            return Err(answer(self.no_manager()));
        }
        let credential = origin.credential.clone();
        request.extensions_mut().insert(origin.clone());
        request.extensions_mut().insert(caller);
        let mut ending = None;
        if let Some(manager) = manager.filter(|_| rule.place != Place::Node) {
            if rule.shape == Shape::Stream {
                let over = over(Arc::clone(&manager.core), credential, rule);
                request = request.map(|body| ending_request(body, over.clone()));
                ending = Some(over);
            }
            if rule.place == Place::Leader {
                match leader(&manager.core).await.map_err(answer)? {
                    Leader::Own => {}
                    Leader::Other(_) if sent_on => return Err(answer(moving())),
                    Leader::Other(peer) => {
                        let core = Arc::clone(&manager.core);
                        let response = forward(core, peer, request, &origin).await;
                        return Err(Box::new(match ending {
                            Some(over) => response.map(|body| ending_response(body, over)),
                            None => response,
                        }));
                    }
                }
            }
        }
        Ok(Passed { request, ending })
    }

    /// Who sent the request; and whether another manager has sent it on for him.
    fn origin(&self, request: &mut Request<Body>, manager: Option<&Manager>) -> (Origin, bool) {
        let credential = Credential::of(request.extensions());
        let note = take_note(request.headers_mut());
        let by_manager = matches!(self.judge(&credential, manager), Ok(Caller::Manager(_)));
        if let Some(origin) = note.filter(|_| by_manager) {
            return (origin, true);
        }
        let source = request.extensions().get::<ConnectionInfo>().map(|info| info.remote.ip());
        (Origin { credential, source, asked: manager.map(Manager::node) }, false)
    }

    fn admit(
        &self,
        rule: &Rule,
        credential: &Credential,
        manager: Option<&Manager>,
    ) -> Result<Caller, Status> {
        let state = manager.map(Manager::view);
        let cluster = self.cluster(manager);
        admit(rule, credential, cluster.as_deref(), state.as_deref()).map_err(Status::from)
    }

    fn judge(
        &self,
        credential: &Credential,
        manager: Option<&Manager>,
    ) -> Result<Caller, super::Denied> {
        let state = manager.map(Manager::view);
        super::caller::judge(credential, self.cluster(manager).as_deref(), state.as_deref())
    }

    fn cluster(&self, manager: Option<&Manager>) -> Option<String> {
        manager.map(|manager| manager.cluster().to_string()).or_else(|| (self.outlook)().cluster)
    }

    /// The answer to a call that only managers take.
    fn no_manager(&self) -> Status {
        let Outlook { cluster, managers } = (self.outlook)();
        let (message, hint) = match (cluster, managers.is_empty()) {
            (None, _) => (
                "this node is not part of a cluster",
                "weft cluster init, or weft cluster join".to_owned(),
            ),
            (Some(_), true) => {
                ("this node is not a manager", "ask a manager of the cluster".to_owned())
            }
            (Some(_), false) => (
                "this node is not a manager",
                format!("ask one of the managers: {}", managers.join(", ")),
            ),
        };
        hinted(Code::FailedPrecondition, message, Some(&hint))
    }
}
