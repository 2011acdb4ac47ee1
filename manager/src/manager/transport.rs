//! Raft's messages over gRPC.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use tonic::{Code, Request, Status};
use weft_proto::v1::{RaftCallRequest, raft_service_client::RaftServiceClient};

use super::Channels;
use crate::store::{Peer, Transport, TransportError};

/// Carries messages as this manager.
#[derive(Clone)]
pub(crate) struct RaftTransport {
    own: u64,
    channels: Channels,
}

impl RaftTransport {
    pub(crate) fn new(own: u64, channels: Channels) -> Self {
        Self { own, channels }
    }
}

impl Transport for RaftTransport {
    fn call(
        &self,
        to: &Peer,
        request: Bytes,
        deadline: Duration,
    ) -> impl Future<Output = Result<Bytes, TransportError>> + Send {
        let (own, address) = (self.own, to.address.clone());
        let channel = self.channels.manager(&address);
        async move {
            let channel = channel.map_err(|error| TransportError::Unreachable {
                address: address.clone(),
                reason: error.to_string(),
            })?;
            let message = RaftCallRequest { message: request.into(), from: own };
            let mut client = RaftServiceClient::new(channel);
            let call = client.call(Request::new(message));
            match tokio::time::timeout(deadline, call).await {
                Ok(Ok(response)) => Ok(response.into_inner().message.into()),
                Ok(Err(status)) => Err(failed(address, deadline, &status)),
                Err(_) => Err(TransportError::Timeout { after: deadline }),
            }
        }
    }
}

fn failed(address: String, after: Duration, status: &Status) -> TransportError {
    let reason = format!("{}: {}", status.code(), status.message());
    match status.code() {
        Code::DeadlineExceeded => TransportError::Timeout { after },
        Code::Cancelled | Code::Unknown | Code::Internal => {
            TransportError::Interrupted { address, reason }
        }
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => TransportError::Unreachable { address, reason },
    }
}
