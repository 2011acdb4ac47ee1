//! The kernel as the loop needs it: the machine's own, or one in memory.

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use weft_overlay::{
    Changes, Completeness, Dataplane, Engine, Reconciler, ReconcilerError, Report, Scope,
};

use crate::tunnel::{Process, process::Program};

/// A look that takes as long as this may be waiting for an engine that does not answer.
const SLOW: Duration = Duration::from_secs(2);

/// Nothing more can be done in the kernel: what works on it has ended.
#[derive(Debug, thiserror::Error)]
#[error("the data plane has ended")]
pub struct Gone(#[source] ReconcilerError);

/// A host's kernel that can be made to agree with what is wanted.
pub trait HostKernel: Send + 'static {
    /// Looks, plans and applies; what was refused is in the report.
    ///
    /// # Errors
    /// [`Gone`].
    fn reconcile(
        &mut self,
        desired: Arc<Dataplane>,
        completeness: Completeness,
        scope: Scope,
    ) -> impl Future<Output = Result<Report, Gone>> + Send;

    /// Waits until something of ours may have changed since the last call.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;
}

/// The kernel of the network namespace that it was opened in, and the process that carries encrypted
/// links where the kernel does not.
#[derive(Debug)]
pub struct LiveKernel {
    reconciler: Arc<Reconciler>,
    changes: Changes,
    process: Process,
}

impl LiveKernel {
    /// Opens the kernel of the calling thread's network namespace, with what the encrypted link needs in
    /// `run_dir`.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(run_dir: &Path) -> Result<Self, ReconcilerError> {
        let reconciler = Arc::new(Reconciler::new(run_dir)?);
        let changes = reconciler.changed();
        let process = Process::new(Program::default(), run_dir);
        Ok(Self { reconciler, changes, process })
    }

    /// What can be asked how the encrypted links do.
    pub fn reconciler(&self) -> Arc<Reconciler> {
        Arc::clone(&self.reconciler)
    }
}

impl HostKernel for LiveKernel {
    async fn reconcile(
        &mut self,
        desired: Arc<Dataplane>,
        completeness: Completeness,
        scope: Scope,
    ) -> Result<Report, Gone> {
        let tunnel = desired.tunnel.as_ref();
        let needed = tunnel.is_some_and(|tunnel| tunnel.engine == Engine::Userspace);
        if needed && let Err(error) = self.process.ensure().await {
            tracing::error!(%error, source = ?std::error::Error::source(&error));
        }
        let looking = self.reconciler.reconcile(desired, completeness, scope);
        tokio::pin!(looking);
        let report = tokio::select! {
            report = &mut looking => report,
            () = tokio::time::sleep(SLOW), if needed => {
                self.process.end_if_hung().await;
                looking.await
            }
        };
        let report = report.map_err(Gone)?;
        if !needed && completeness == Completeness::Complete {
            self.process.stop().await;
        }
        Ok(report)
    }

    async fn changed(&mut self) {
        tokio::select! {
            // If it is gone, the look that follows says so.
            _ = self.changes.next() => {}
            () = self.process.ended() => {}
        }
    }
}
