//! The kernel as the loop needs it: the machine's own, or one in memory.

use std::{future::Future, path::Path, sync::Arc};

use weft_overlay::{Changes, Completeness, Dataplane, Reconciler, ReconcilerError, Report, Scope};

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

/// The kernel of the network namespace that it was opened in.
#[derive(Debug)]
pub struct LiveKernel {
    reconciler: Reconciler,
    changes: Changes,
}

impl LiveKernel {
    /// Opens the kernel of the calling thread's network namespace, with what the encrypted link needs in
    /// `run_dir`.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(run_dir: &Path) -> Result<Self, ReconcilerError> {
        let reconciler = Reconciler::new(run_dir)?;
        let changes = reconciler.changed();
        Ok(Self { reconciler, changes })
    }
}

impl HostKernel for LiveKernel {
    async fn reconcile(
        &mut self,
        desired: Arc<Dataplane>,
        completeness: Completeness,
        scope: Scope,
    ) -> Result<Report, Gone> {
        self.reconciler.reconcile(desired, completeness, scope).await.map_err(Gone)
    }

    async fn changed(&mut self) {
        // If it is gone, the look that follows says so.
        let _ = self.changes.next().await;
    }
}
