//! A session over gRPC, with mutual TLS.

use std::net::SocketAddr;

use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use weft_model::spec::Role;
use weft_proto::{
    convert::{
        self,
        session::{AssignmentsUpdate, tunnel_to_wire},
    },
    tls::{HostPort, LiveIdentity, channel},
    v1::{
        self, SessionRequest, SessionResponse, dispatcher_service_client::DispatcherServiceClient,
        session_request, session_response,
    },
};

use super::{Dial, Ended, FromManager, Pipe, QUEUE, ToManager};

/// Largest message: the complete assignments of a node with thousands of members on its networks.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Opens sessions with the node's own certificate.
pub struct GrpcDial {
    identity: LiveIdentity,
}

impl GrpcDial {
    /// With the certificate that is in force at each opening.
    pub fn new(identity: LiveIdentity) -> Self {
        Self { identity }
    }
}

impl Dial for GrpcDial {
    async fn dial(&mut self, manager: SocketAddr) -> Result<Pipe, Ended> {
        let address: HostPort = manager.to_string().parse().map_err(|e| format!("{e}"))?;
        let mut client = DispatcherServiceClient::new(channel(&self.identity, &address))
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let (up, outgoing) = mpsc::channel(QUEUE);
        let (to_worker, down) = mpsc::channel(QUEUE);
        let requests = ReceiverStream::new(outgoing).map(request);
        let mut responses =
            client.session(requests).await.map_err(|status| ended(manager, &status))?.into_inner();
        tokio::spawn(async move {
            loop {
                let message = match responses.message().await {
                    Ok(Some(message)) => response(message).map_err(Ended::from),
                    Ok(None) => return,
                    Err(status) => Err(ended(manager, &status)),
                };
                let last = message.is_err();
                if to_worker.send(message).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(Pipe { up, down })
    }
}

fn ended(manager: SocketAddr, status: &tonic::Status) -> Ended {
    let why = format!("manager {manager}: {}", status.message());
    Ended { why, removed: convert::status::is_not_member(status) }
}

fn request(message: ToManager) -> SessionRequest {
    use session_request::{Applied, Heartbeat, Hello, Request};
    let request = match message {
        ToManager::Hello { description, boot, raft_incarnation } => Request::Hello(Hello {
            description: Some(convert::node::description(&description)),
            boot_id: boot,
            raft_incarnation: raft_incarnation.unwrap_or_default(),
        }),
        ToManager::Heartbeat => Request::Heartbeat(Heartbeat {}),
        ToManager::Applied(revision) => Request::Applied(Applied { revision }),
        ToManager::Reports(reports) => Request::Reports(reports.to_wire()),
        ToManager::Tunnel(report) => Request::Tunnel(tunnel_to_wire(&report)),
    };
    SessionRequest { request: Some(request) }
}

fn response(message: SessionResponse) -> Result<FromManager, String> {
    use session_response::Response;
    match message.response {
        Some(Response::Welcome(welcome)) => Ok(FromManager::Welcome {
            heartbeat: std::time::Duration::from_millis(u64::from(welcome.heartbeat_ms.max(1))),
            managers: welcome.managers.iter().filter_map(|peer| peer.addr.parse().ok()).collect(),
            role: match v1::Role::try_from(welcome.role) {
                Ok(v1::Role::Manager) => Role::Manager,
                Ok(v1::Role::Worker | v1::Role::Unspecified) | Err(_) => Role::Worker,
            },
            // Empty, if the manager does not know it.
            seen_from: welcome.seen_from.parse().ok(),
        }),
        Some(Response::Assignments(assignments)) => AssignmentsUpdate::from_wire(&assignments)
            .map(FromManager::Assignments)
            .map_err(|error| error.to_string()),
        Some(Response::ReportsTaken(number)) => Ok(FromManager::ReportsTaken(number)),
        None => Err("an empty message".to_owned()),
    }
}
