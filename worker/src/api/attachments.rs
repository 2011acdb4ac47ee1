//! Namespaces of others on this node, as administrators see and steer them.

use std::{path::PathBuf, sync::Arc};

use tonic::{Code, Request, Response, Status};
use weft_proto::{
    convert::status::{hint_of, hinted},
    v1::{
        AttachRequest, AttachResponse, Attachment, DetachRequest, DetachResponse,
        ListAttachmentsRequest, ListAttachmentsResponse,
        attachment_service_server::AttachmentService,
    },
};

use super::describe;
use crate::{
    attach::{AttachError, Intent, Keeper, NetnsError, Phase, WayOut, Wish},
    desired::Sorted,
    worker::Worker,
};

/// The interface inside, when the caller does not care.
const IFNAME: &str = "eth0";
/// Most bytes of a name of a write, as everywhere.
const REQUEST_MAX: usize = 64;

/// See the module.
pub struct Attachments {
    keeper: Arc<Keeper>,
}

impl Attachments {
    /// Of a worker.
    pub fn new(worker: &Worker) -> Self {
        Self { keeper: worker.keeper() }
    }
}

#[tonic::async_trait]
impl AttachmentService for Attachments {
    async fn attach(
        &self,
        request: Request<AttachRequest>,
    ) -> Result<Response<AttachResponse>, Status> {
        let wish = wish(request.into_inner())?;
        let of = Arc::clone(&self.keeper);
        // It goes on when its caller has gone: half of it is no use to anybody.
        let attached = tokio::spawn(async move { of.attach(wish).await }).await;
        let attached = attached.map_err(|error| Status::internal(error.to_string()))?;
        let intent = attached.map_err(status)?;
        Ok(Response::new(AttachResponse { attachment: Some(shown(&self.keeper, &intent)) }))
    }

    async fn detach(
        &self,
        request: Request<DetachRequest>,
    ) -> Result<Response<DetachResponse>, Status> {
        let intent = self.keeper.detach(&request.get_ref().attachment).await.map_err(status)?;
        Ok(Response::new(DetachResponse { attachment_id: intent.id.to_string() }))
    }

    async fn list(
        &self,
        _request: Request<ListAttachmentsRequest>,
    ) -> Result<Response<ListAttachmentsResponse>, Status> {
        let keeper = &self.keeper;
        let attachments = keeper.intents().iter().map(|intent| shown(keeper, intent)).collect();
        Ok(Response::new(ListAttachmentsResponse { attachments }))
    }
}

fn wish(request: AttachRequest) -> Result<Wish, Status> {
    if request.request_id.len() > REQUEST_MAX {
        return Err(Status::invalid_argument(format!(
            "the request id may have {REQUEST_MAX} characters"
        )));
    }
    let ifname = Some(request.interface).filter(|name| !name.is_empty());
    Ok(Wish {
        netns: PathBuf::from(request.netns_path),
        network: request.network,
        name: request.name,
        aliases: request.aliases,
        service: request.service,
        addresses: request.addresses,
        ifname: ifname.unwrap_or_else(|| IFNAME.to_owned()),
        request: request.request_id,
    })
}

fn shown(keeper: &Keeper, intent: &Intent) -> Attachment {
    let assigned = keeper.assigned();
    let assignments = Arc::clone(&assigned.borrow().1);
    let sorted = Sorted::new(&assignments);
    let foreign = sorted.foreigners.get(&intent.id);
    let service = foreign.and_then(|foreign| foreign.service);
    let service = service.and_then(|service| sorted.services.get(&service));
    let network = describe::network(0, intent.id, &sorted).map(|mut network| {
        network.interface.clone_from(&intent.ifname);
        if intent.way_out == WayOut::Theirs {
            network.gateways.clear();
        }
        network.aliases = foreign.map(|foreign| foreign.aliases.clone()).unwrap_or_default();
        network
    });
    let status = match intent.phase {
        Phase::Asking => "attaching",
        Phase::Attached if foreign.is_some_and(|foreign| !foreign.ready) => "attaching",
        Phase::Attached => "attached",
        Phase::Leaving => "detaching",
    };
    Attachment {
        id: intent.id.to_string(),
        name: intent.name.clone(),
        netns_path: intent.netns.display().to_string(),
        network,
        service_name: service.map(|service| service.name.clone()).unwrap_or_default(),
        status: status.to_owned(),
    }
}

fn status(error: AttachError) -> Status {
    let (code, hint) = match &error {
        // Only what is meant for the user: the rest of the metadata is of another connection.
        AttachError::Managers(status) => {
            return hinted(status.code(), status.message(), hint_of(status).as_deref());
        }
        AttachError::Netns(NetnsError::Interface { .. }) => {
            (Code::FailedPrecondition, "choose another name with --ifname")
        }
        AttachError::Netns(NetnsError::Look { .. }) => (Code::Internal, ""),
        AttachError::Netns(
            NetnsError::Relative { .. }
            | NetnsError::Open { .. }
            | NetnsError::Other { .. }
            | NetnsError::Host { .. },
        ) => (
            Code::InvalidArgument,
            "give the namespace's path, such as /run/netns/NAME or /proc/PID/ns/net",
        ),
        AttachError::Netns(NetnsError::BadName { .. }) => (Code::InvalidArgument, ""),
        AttachError::Twice { .. } => {
            (Code::AlreadyExists, "detach it first; a namespace joins one network")
        }
        AttachError::Going { .. } => (Code::Aborted, "attach it anew"),
        AttachError::Full => (Code::ResourceExhausted, "weft detach what is not needed"),
        AttachError::Unknown { .. } => (Code::NotFound, ""),
        AttachError::Ambiguous { .. } => (Code::InvalidArgument, "give more digits of the ID"),
        AttachError::Book(_) => (Code::Internal, ""),
        AttachError::NotReady { .. } => (Code::DeadlineExceeded, ""),
        AttachError::NotGone { .. } => (Code::Unavailable, ""),
    };
    hinted(code, error.to_string(), Some(hint))
}
