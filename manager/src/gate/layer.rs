//! The layer itself.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use weft_model::State;
use weft_proto::{convert::status::hinted, tls::ConnectionInfo};

use super::{
    Caller, Credential, Holder, Origin, Place, Rule, Shape, admit,
    caller::judge,
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

/// Who sent a request, before anything is made of it.
struct Sender {
    origin: Origin,
    /// The manager that has sent it on for him.
    bearer: Option<Credential>,
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
        let sender = sender_of(&mut request, manager);
        let caller = match (rule.place, manager) {
            (Place::Leader, Some(manager)) => {
                self.by_certificate(rule, &sender, Some(manager)).map_err(answer)?;
                match leader(&manager.core).await.map_err(answer)? {
                    Leader::Own => self.by_leader(rule, &sender, manager).await.map_err(answer)?,
                    Leader::Other(_) if sender.bearer.is_some() => return Err(answer(moving())),
                    Leader::Other(peer) => {
                        let core = Arc::clone(&manager.core);
                        return Err(Box::new(forward(core, peer, request, &sender.origin).await));
                    }
                }
            }
            (Place::Manager | Place::Node, Some(manager)) => {
                self.by_state(rule, &sender, manager).map_err(answer)?
            }
            (_, None) => {
                let caller = self.by_certificate(rule, &sender, None).map_err(answer)?;
                if rule.place != Place::Node {
                    return Err(answer(self.no_manager()));
                }
                caller
            }
        };
        let credential = sender.origin.credential.clone();
        request.extensions_mut().insert(sender.origin);
        request.extensions_mut().insert(caller);
        // What administrators do with their node's own containers has nothing to do with its state.
        let of_cluster = matches!(credential, Credential::Certificate { .. });
        let lasts = rule.shape == Shape::Stream && (rule.place != Place::Node || of_cluster);
        let ending = manager.filter(|_| lasts).map(|manager| {
            let over = over(Arc::clone(&manager.core), credential, rule);
            (over.clone(), over)
        });
        let Some((of_request, of_response)) = ending else {
            return Ok(Passed { request, ending: None });
        };
        let request = request.map(|body| ending_request(body, of_request));
        Ok(Passed { request, ending: Some(of_response) })
    }

    /// What the certificate alone allows: on a node that is no manager, and before a follower sends
    /// a call to the leader, whose state is newer than its own.
    fn by_certificate(
        &self,
        rule: &Rule,
        sender: &Sender,
        manager: Option<&Manager>,
    ) -> Result<Caller, Status> {
        self.judge(rule, sender, manager, None)
    }

    fn by_state(&self, rule: &Rule, sender: &Sender, manager: &Manager) -> Result<Caller, Status> {
        self.judge(rule, sender, Some(manager), Some(&manager.view()))
    }

    /// A new leader may not have applied all that was committed before it, and must turn no member
    /// away for it.
    async fn by_leader(
        &self,
        rule: &Rule,
        sender: &Sender,
        manager: &Manager,
    ) -> Result<Caller, Status> {
        match self.by_state(rule, sender, manager) {
            Ok(caller) => Ok(caller),
            Err(_) => {
                let state = manager.current().await?;
                self.judge(rule, sender, Some(manager), Some(&state))
            }
        }
    }

    fn judge(
        &self,
        rule: &Rule,
        sender: &Sender,
        manager: Option<&Manager>,
        state: Option<&State>,
    ) -> Result<Caller, Status> {
        let cluster = self.cluster(manager);
        if let Some(bearer) = &sender.bearer {
            let bearer = judge(bearer, cluster.as_deref(), state)?;
            if !matches!(bearer, Caller::Manager(_)) {
                return Err(Status::permission_denied("only a manager sends calls on"));
            }
        }
        Ok(admit(rule, &sender.origin.credential, cluster.as_deref(), state)?)
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

/// Who sent the request. The note of another manager counts for what its bearer turns out to be;
/// everybody else's is no more than a header.
fn sender_of(request: &mut Request<Body>, manager: Option<&Manager>) -> Sender {
    let credential = Credential::of(request.extensions());
    let note = take_note(request.headers_mut());
    let of_manager = matches!(credential, Credential::Certificate { holder: Holder::Manager, .. });
    if let Some(origin) = note.filter(|_| of_manager) {
        return Sender { origin, bearer: Some(credential) };
    }
    let source = request.extensions().get::<ConnectionInfo>().map(|info| info.remote.ip());
    let asked = manager.map(Manager::node);
    Sender { origin: Origin { credential, source, asked }, bearer: None }
}
