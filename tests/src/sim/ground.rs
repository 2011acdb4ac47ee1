//! Namespaces of others on a machine, and the daemon's way to the managers for them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use rand::RngExt as _;
use tonic::{Code, Status};
use weft_model::{AttachmentId, NodeId};
use weft_proto::tls::LiveIdentity;
use weft_worker::{
    attach::{Ask, Ground, Held, Identity, NetnsError, WayOut},
    container::{ContainerId, Error},
};

use super::{
    HOSTS,
    machine::Machine,
    net::{Answer, HostId, Net, Parcel},
    request::{Call, is_open},
};

/// How long one manager may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long they are asked in turn.
const DEADLINE: Duration = Duration::from_secs(15);
/// Between two tries.
const RETRY: Duration = Duration::from_millis(200);

/// What attachments stand on, on one host.
pub(super) struct SimGround {
    pub(super) machine: Machine,
    pub(super) net: Net,
    pub(super) host: HostId,
    pub(super) node: NodeId,
}

impl SimGround {
    fn call(&self, ask: &Ask) -> Call {
        let node = self.node;
        match ask {
            Ask::Attach(request) => Call::AttachForeign { node, request: request.clone() },
            Ask::Ready(id) => Call::ForeignReady { node, id: *id },
            Ask::Detach(id) => Call::DetachForeign { node, id: *id },
        }
    }
}

#[async_trait]
impl Ground for SimGround {
    fn inspect(&self, path: &Path, _ifname: &str) -> Result<(Identity, WayOut), NetnsError> {
        let found = self.machine.lock().namespaces.get(path).cloned();
        let identity = found.ok_or_else(|| NetnsError::Other { path: path.to_owned() })?;
        Ok((identity, WayOut::Ours))
    }

    fn is_there(&self, path: &Path, identity: &Identity) -> bool {
        self.machine.lock().namespaces.get(path) == Some(identity)
    }

    async fn find(&self, id: &ContainerId) -> Result<Held, Error> {
        let held = self.machine.lock().held.contains_key(id);
        held.then_some(None).ok_or_else(|| Error::NotFound { id: id.clone() })
    }

    async fn ensure(&self, id: &ContainerId, netns: &Path) -> Result<Held, Error> {
        if self.machine.hold(id, netns) {
            return Ok(None);
        }
        Err(Error::NotFound { id: id.clone() })
    }

    async fn end(&self, id: &ContainerId) {
        self.machine.let_go(id);
    }

    async fn ask(&self, ask: &Ask) -> Result<(), Status> {
        let rounds = async {
            loop {
                let manager = self.machine.lock().random.random_range(1..=HOSTS);
                let parcel =
                    |call| Parcel::Api { call, client: self.host, hops: 0, body: self.call(ask) };
                match self.net.ask(self.host, manager, parcel).answer(PATIENCE).await {
                    Some(Answer::Api(Ok(_))) => return Ok(()),
                    Some(Answer::Api(Err(status))) if !is_open(status.code()) => {
                        return Err(status);
                    }
                    Some(
                        Answer::Api(_)
                        | Answer::Raft(_)
                        | Answer::Local(_)
                        | Answer::Taken
                        | Answer::Refused,
                    )
                    | None => tokio::time::sleep(RETRY).await,
                }
            }
        };
        let late = |_| Status::new(Code::Unavailable, "no manager has answered");
        tokio::time::timeout(DEADLINE, rounds).await.map_err(late)?
    }

    fn show(&self, _identity: Option<LiveIdentity>) {}
}

/// The name of an attachment's namespace in the kernel.
pub(super) fn key(id: &ContainerId) -> Option<String> {
    let id: AttachmentId = id.as_str().parse().ok()?;
    Some(weft_worker::desired::key_of(weft_model::object::Holder::Foreign(id)))
}

/// The path of a machine's n-th namespace.
pub(super) fn path(number: u64) -> PathBuf {
    format!("/netns/{number}").into()
}

/// What tells it from every other one.
pub(super) fn identity(number: u64) -> Identity {
    let text = format!(r#"{{"device":4,"inode":{number},"boot":"simulated"}}"#);
    serde_json::from_str(&text).expect("an identity has these fields")
}
