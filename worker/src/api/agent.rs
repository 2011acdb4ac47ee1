//! What managers ask of a node: the output of its tasks, and how its encrypted links do; and what an
//! administrator asks of his own: what is wrong.

use futures::future::BoxFuture;
use tonic::{Request, Response, Status};
use weft_model::TaskId;
use weft_proto::v1::{
    AgentLinksRequest, AgentLogsRequest, ContainerLogsRequest, DoctorFinding, DoctorRequest,
    DoctorResponse, DoctorSeverity, NodeLinksResponse, agent_service_server::AgentService,
};

use super::{
    Sources,
    logs::{self, Records},
    refusal,
};
use crate::{
    container::ContainerId,
    doctor::{Facts, Finding, Severity, examine},
    worker::Worker,
};

/// Reads the facts of this node, the cluster's among them, when called.
pub type Gather = Box<dyn Fn() -> BoxFuture<'static, Result<Facts, Status>> + Send + Sync>;

/// See the module.
pub struct Agent {
    sources: Sources,
    gather: Option<Gather>,
}

impl Agent {
    /// Of a worker.
    pub fn new(worker: &Worker) -> Self {
        Self::over(worker.into())
    }

    /// The same, with who can tell what is wrong.
    #[must_use]
    pub fn with_doctor(mut self, gather: Gather) -> Self {
        self.gather = Some(gather);
        self
    }

    /// Of its parts.
    pub fn over(sources: Sources) -> Self {
        Self { sources, gather: None }
    }
}

/// A finding as it is sent.
pub fn doctor_finding(finding: &Finding) -> DoctorFinding {
    let severity = match finding.severity {
        Severity::Ok => DoctorSeverity::Ok,
        Severity::Warning => DoctorSeverity::Warning,
        Severity::Problem => DoctorSeverity::Problem,
    };
    DoctorFinding {
        severity: severity.into(),
        check: finding.check.to_owned(),
        text: finding.text.clone(),
        why: finding.why.clone(),
        fix: finding.fix.clone(),
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

    async fn doctor(
        &self,
        _request: Request<DoctorRequest>,
    ) -> Result<Response<DoctorResponse>, Status> {
        let missing = || Status::unimplemented("this node has no kernel of its own");
        let facts = (self.gather.as_ref().ok_or_else(missing)?)().await?;
        let findings = examine(&facts).iter().map(doctor_finding).collect();
        Ok(Response::new(DoctorResponse { findings }))
    }
}
