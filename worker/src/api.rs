//! What a node answers about its own containers, with no manager needed: [`Containers`] and
//! [`Attachments`] and [`Networks`] are what operators call, [`Agent`] what managers call.
//!
//! Reading order: [`find`] says which container is meant, [`describe`] what is known of a task's and
//! [`own`] of one of this node's own, [`logs`], [`exec`] and [`attach`] carry its bytes, [`refusal`] turns the runtime's errors into statuses. Who may call
//! is decided before, by the gate in front of all services.

mod agent;
mod attach;
mod attachments;
mod containers;
mod describe;
mod exec;
mod find;
mod logs;
mod networks;
mod own;
mod refusal;

use std::{path::PathBuf, sync::Arc};

use tokio::sync::watch;
use tonic::{Code, Status};
use weft_model::{Container, Rejected};
use weft_proto::convert::status::{hinted, refused};

pub use agent::{Agent, Gather, doctor_finding};
pub use attachments::Attachments;
pub use containers::Containers;
pub use networks::Networks;

use crate::{
    container::{Found, Runtime},
    health::HealthBook,
    local::Local,
    plumbing::Assigned,
    tunnel::Links,
    worker::Worker,
};

/// Where the services look.
#[derive(Clone)]
pub struct Sources {
    /// Runs the containers.
    pub runtime: Arc<dyn Runtime>,
    /// What the managers told of them; the last word kept, if none is alive.
    pub assigned: watch::Receiver<Assigned>,
    /// The worker's state directory, that the runtime keeps its files in.
    pub state_dir: PathBuf,
    /// The node's own containers and networks; none over a machine that has none.
    pub local: Option<Arc<Local>>,
    /// How well the tasks' containers are.
    pub health: Arc<HealthBook>,
    /// The encrypted links; none over a machine that has none.
    pub links: Option<Links>,
}

impl From<&Worker> for Sources {
    fn from(worker: &Worker) -> Self {
        Self {
            runtime: worker.runtime(),
            assigned: worker.assigned(),
            state_dir: worker.state_dir().to_owned(),
            local: worker.local(),
            health: worker.health(),
            links: worker.links(),
        }
    }
}

impl Sources {
    async fn all(&self) -> Result<Vec<Found>, Status> {
        self.runtime.list().await.map_err(refusal::status)
    }

    fn local(&self) -> Result<&Arc<Local>, Status> {
        let missing = || Status::unimplemented("this node has no kernel of its own");
        self.local.as_ref().ok_or_else(missing)
    }

    /// The container of this node's own that `text` means; none if it may be a task's.
    fn own(&self, text: &str) -> Result<Option<Arc<Container>>, Status> {
        let Some(local) = &self.local else { return Ok(None) };
        match local.find(text) {
            Ok(container) => Ok(Some(container)),
            Err(Rejected::NotFound { .. }) => Ok(None),
            Err(other) => Err(refused(&other)),
        }
    }

    /// The same where only one of this node's own will do.
    async fn only_own(&self, text: &str) -> Result<(Arc<Local>, Arc<Container>), Status> {
        let local = Arc::clone(self.local()?);
        if let Some(container) = self.own(text)? {
            return Ok((local, container));
        }
        let found = self.one(text).await?;
        let name = found.config.map_or_else(|| found.id.to_string(), |config| config.name);
        let text = format!("container {name} is of a service, which decides on it");
        Err(hinted(Code::FailedPrecondition, text, Some("weft service update, weft service rm")))
    }

    /// The container that `text` means, as far as the runtime has it.
    async fn one(&self, text: &str) -> Result<Found, Status> {
        let mut all = self.all().await?;
        if let Some(own) = self.own(text)? {
            let id = own.id.to_string();
            let at = all.iter().position(|found| found.id.as_str() == id);
            return at.map(|at| all.swap_remove(at)).ok_or_else(|| {
                let text = format!("container {} was never started", own.spec.name);
                let hint = format!("weft start {}", own.spec.name);
                hinted(Code::FailedPrecondition, text, Some(&hint))
            });
        }
        let candidates: Vec<_> = all.iter().map(find::Candidate::of).collect();
        let at = find::find(text, &candidates).map_err(|missed| missed.status())?;
        Ok(all.swap_remove(at))
    }
}
