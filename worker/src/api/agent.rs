//! What managers ask of a node: the output of its tasks, and how its encrypted links do.

use tonic::{Request, Response, Status};
use weft_model::TaskId;
use weft_proto::v1::{
    AgentLinksRequest, AgentLogsRequest, ContainerLogsRequest, NodeLinksResponse,
    agent_service_server::AgentService,
};

use super::{
    Sources,
    logs::{self, Records},
    refusal,
};
use crate::{container::ContainerId, worker::Worker};

/// See the module.
pub struct Agent {
    sources: Sources,
}

impl Agent {
    /// Of a worker.
    pub fn new(worker: &Worker) -> Self {
        Self::over(worker.into())
    }

    /// Of its parts.
    pub fn over(sources: Sources) -> Self {
        Self { sources }
    }
}

#[tonic::async_trait]
impl AgentService for Agent {
    type LogsStream = Records;

    async fn logs(
        &self,
        request: Request<AgentLogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let AgentLogsRequest { task_id, follow, tail, since } = request.into_inner();
        let task: TaskId = task_id
            .parse()
            .map_err(|error| Status::invalid_argument(format!("task_id: {error}")))?;
        let id = ContainerId::new(task.to_string()).map_err(refusal::status)?;
        let query = ContainerLogsRequest { container: task_id, follow, tail, since };
        let query = logs::query(&query)?;
        match logs::read(&self.sources, &id, query).await {
            Err(status) if status.code() == tonic::Code::NotFound => {
                Err(Status::not_found(format!("no container of task {id} on this node")))
            }
            other => other.map(Response::new),
        }
    }

    async fn links(
        &self,
        _request: Request<AgentLinksRequest>,
    ) -> Result<Response<NodeLinksResponse>, Status> {
        match &self.sources.links {
            Some(links) => links.look().await.map(Response::new),
            None => Ok(Response::new(NodeLinksResponse::default())),
        }
    }
}
