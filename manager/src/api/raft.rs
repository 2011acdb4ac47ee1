//! Raft's messages, taken in.

use tonic::{Request, Response, Status};
use weft_proto::v1::{RaftCallRequest, RaftCallResponse, raft_service_server::RaftService};

use super::{Api, caller_of};

#[tonic::async_trait]
impl RaftService for Api {
    async fn call(
        &self,
        request: Request<RaftCallRequest>,
    ) -> Result<Response<RaftCallResponse>, Status> {
        let manager = self.manager()?;
        let sender = caller_of(&request)?.node();
        let sender = sender.ok_or_else(|| Status::permission_denied("only managers speak Raft"))?;
        let RaftCallRequest { message, from } = request.into_inner();
        // A manager that is being let in, or is behind, does not know the sender's number yet: then
        // the word of a holder of a manager's certificate has to do.
        let from = manager.view().node(sender).map_or(from, |node| node.number);
        let answer = manager.store().handle(from, message.into()).await;
        Ok(Response::new(RaftCallResponse { message: answer.into() }))
    }
}
