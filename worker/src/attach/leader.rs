//! What the managers are asked of attachments, with the node's own certificate.

use std::{net::SocketAddr, time::Duration};

use tokio::{sync::watch, time::timeout};
use tonic::{Code, Status};
use weft_model::AttachmentId;
use weft_proto::{
    convert::status::hinted,
    tls::{HostPort, LiveIdentity, channel},
    v1::{
        AttachForeignRequest, DetachForeignRequest, ForeignReadyRequest,
        dispatcher_service_client::DispatcherServiceClient,
    },
};

use crate::session::Contact;

/// How long one manager may take; it waits for a leader itself.
const CALL_DEADLINE: Duration = Duration::from_secs(8);
/// How long the managers are tried in turn.
const DEADLINE: Duration = Duration::from_secs(15);
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(200);

/// One question.
#[derive(Clone, Debug)]
pub enum Ask {
    /// To be on a network.
    Attach(AttachForeignRequest),
    /// That the kernel carries it.
    Ready(AttachmentId),
    /// That nothing of it is left.
    Detach(AttachmentId),
}

/// The way to the managers while the node is in a cluster.
#[derive(Debug)]
pub struct Leader {
    identity: watch::Sender<Option<LiveIdentity>>,
    contact: watch::Receiver<Contact>,
}

impl Leader {
    /// Over the managers that the session knows.
    pub fn new(contact: watch::Receiver<Contact>) -> Self {
        Self { identity: watch::Sender::default(), contact }
    }

    /// The certificate to show; none outside of a cluster.
    pub fn show(&self, identity: Option<LiveIdentity>) {
        self.identity.send_replace(identity);
    }

    /// Asks one manager after the other until one answers. The questions may be repeated.
    ///
    /// # Errors
    /// The refusal, or UNAVAILABLE when nobody has answered: it may then have happened all the same.
    pub async fn ask(&self, ask: &Ask) -> Result<(), Status> {
        let identity = self.identity.borrow().clone();
        let Some(identity) = identity else {
            let hint = "weft cluster init, or weft cluster join";
            let message = "this node is not part of a cluster";
            return Err(hinted(Code::FailedPrecondition, message, Some(hint)));
        };
        let mut last = "no manager's address is known".to_owned();
        let rounds = async {
            loop {
                for manager in self.managers() {
                    match timeout(CALL_DEADLINE, self.at(&identity, manager, ask)).await {
                        Ok(Err(status)) if is_passing(&status) => {
                            last = format!("manager {manager}: {}", status.message());
                        }
                        Ok(answer) => return answer,
                        Err(_) => last = format!("manager {manager} does not answer"),
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        match timeout(DEADLINE, rounds).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::unavailable(last)),
        }
    }

    /// The one of the session first.
    fn managers(&self) -> Vec<SocketAddr> {
        let contact = self.contact.borrow();
        let others = contact.managers.iter().filter(|other| Some(**other) != contact.manager);
        contact.manager.into_iter().chain(others.copied()).collect()
    }

    async fn at(
        &self,
        identity: &LiveIdentity,
        manager: SocketAddr,
        ask: &Ask,
    ) -> Result<(), Status> {
        let address: HostPort = manager
            .to_string()
            .parse()
            .map_err(|error| Status::unavailable(format!("address {manager}: {error}")))?;
        let mut client = DispatcherServiceClient::new(channel(identity, &address));
        match ask {
            Ask::Attach(request) => client.attach_foreign(request.clone()).await.map(drop),
            Ask::Ready(id) => {
                client.foreign_ready(ForeignReadyRequest { id: id.to_string() }).await.map(drop)
            }
            Ask::Detach(id) => {
                client.detach_foreign(DetachForeignRequest { id: id.to_string() }).await.map(drop)
            }
        }
    }
}

/// Whether another manager, or the same a little later, may answer otherwise.
fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
    )
}
