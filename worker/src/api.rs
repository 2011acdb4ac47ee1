//! What a node answers about its own containers, with no manager needed: [`Containers`] and
//! [`Attachments`] are what operators call, [`Agent`] what managers call.
//!
//! Reading order: [`find`] says which container is meant, [`describe`] what is known of it, [`logs`]
//! and [`exec`] carry its bytes, [`refusal`] turns the runtime's errors into statuses. Who may call
//! is decided before, by the gate in front of all services.

mod agent;
mod attachments;
mod containers;
mod describe;
mod exec;
mod find;
mod logs;
mod refusal;

use std::{path::PathBuf, sync::Arc};

use tokio::sync::watch;
use tonic::Status;

pub use agent::Agent;
pub use attachments::Attachments;
pub use containers::Containers;

use crate::{
    container::{Found, Runtime},
    plumbing::Assigned,
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
}

impl From<&Worker> for Sources {
    fn from(worker: &Worker) -> Self {
        Self {
            runtime: worker.runtime(),
            assigned: worker.assigned(),
            state_dir: worker.state_dir().to_owned(),
        }
    }
}

impl Sources {
    async fn all(&self) -> Result<Vec<Found>, Status> {
        self.runtime.list().await.map_err(refusal::status)
    }

    /// The container that `text` means.
    async fn one(&self, text: &str) -> Result<Found, Status> {
        let mut all = self.all().await?;
        let candidates: Vec<_> = all.iter().map(find::Candidate::of).collect();
        let at = find::find(text, &candidates).map_err(|missed| missed.status())?;
        Ok(all.swap_remove(at))
    }
}
