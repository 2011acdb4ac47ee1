//! What attachments stand on: namespaces, the processes that hold their sockets, and the managers.
//! The machine's own, or simulated ones.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use tokio::sync::watch;
use tonic::Status;
use weft_proto::tls::LiveIdentity;

use super::{
    Ask, Identity, Leader, NetnsError, WayOut,
    netns::{inspect, is_there},
};
use crate::{
    container::{ContainerId, DnsSockets, Error, Holders},
    session::Contact,
};

/// The sockets of a holder; simulated ones have none, and nobody asks them.
pub type Held = Option<DnsSockets>;

/// What attachments need of the machine and of the managers.
#[async_trait]
pub trait Ground: Send + Sync + 'static {
    /// Looks at the namespace at `path`, where an interface `ifname` is to come.
    ///
    /// # Errors
    /// When it may not be attached.
    fn inspect(&self, path: &Path, ifname: &str) -> Result<(Identity, WayOut), NetnsError>;

    /// Whether `path` still leads to the namespace.
    fn is_there(&self, path: &Path, identity: &Identity) -> bool;

    /// The sockets of a holder that runs.
    ///
    /// # Errors
    /// When there is none.
    async fn find(&self, id: &ContainerId) -> Result<Held, Error>;

    /// The sockets in the namespace at `netns`; starts a holder if none runs.
    ///
    /// # Errors
    /// When it cannot be started there.
    async fn ensure(&self, id: &ContainerId, netns: &Path) -> Result<Held, Error>;

    /// Ends a holder, if there is one.
    async fn end(&self, id: &ContainerId);

    /// Asks the managers until one answers.
    ///
    /// # Errors
    /// The refusal, or UNAVAILABLE when nobody has answered: it may then have happened all the same.
    async fn ask(&self, ask: &Ask) -> Result<(), Status>;

    /// The certificate to show the managers; none outside of a cluster.
    fn show(&self, identity: Option<LiveIdentity>);
}

/// This machine, and the managers that the session knows.
pub struct LiveGround {
    holders: Holders,
    leader: Leader,
}

impl LiveGround {
    /// Over the machine's own.
    pub fn new(holders: Holders, contact: watch::Receiver<Contact>) -> Arc<Self> {
        Arc::new(Self { holders, leader: Leader::new(contact) })
    }
}

#[async_trait]
impl Ground for LiveGround {
    fn inspect(&self, path: &Path, ifname: &str) -> Result<(Identity, WayOut), NetnsError> {
        inspect(path, ifname)
    }

    fn is_there(&self, path: &Path, identity: &Identity) -> bool {
        is_there(path, identity)
    }

    async fn find(&self, id: &ContainerId) -> Result<Held, Error> {
        self.holders.find(id).await.map(Some)
    }

    async fn ensure(&self, id: &ContainerId, netns: &Path) -> Result<Held, Error> {
        self.holders.ensure(id, netns).await.map(Some)
    }

    async fn end(&self, id: &ContainerId) {
        self.holders.end(id).await;
    }

    async fn ask(&self, ask: &Ask) -> Result<(), Status> {
        self.leader.ask(ask).await
    }

    fn show(&self, identity: Option<LiveIdentity>) {
        self.leader.show(identity);
    }
}
