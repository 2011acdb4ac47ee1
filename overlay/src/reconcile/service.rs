//! The loop on a thread of its own, for async callers.
//!
//! Netlink answers within the call and entering a sandbox moves the thread, so neither belongs on a
//! runtime's workers.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot, watch};
use weft_wire::Status;

use super::{Completeness, Driver, Report, Scope};
use crate::dataplane::{Dataplane, Tunnel};
use crate::kernel::KernelError;
use crate::kernel::engine::{Process, WireEngine};
use crate::kernel::linux::LinuxKernel;
use crate::kernel::watch::{Dirty, Watcher};

/// Calls that wait for the thread; each caller waits for its answer, so more means more callers than ours.
const WAITING_CALLS: usize = 16;

/// Keeps one node's data plane as it is wanted.
///
/// Dropping it changes nothing in the kernel.
#[derive(Debug)]
pub struct Reconciler {
    calls: Option<mpsc::Sender<Call>>,
    thread: Option<JoinHandle<()>>,
    changes: watch::Receiver<u64>,
    _watcher: Watcher,
}

#[derive(Debug)]
enum Call {
    Reconcile {
        desired: Arc<Dataplane>,
        completeness: Completeness,
        scope: Scope,
        answer: oneshot::Sender<Report>,
    },
    Status {
        tunnel: Tunnel,
        answer: oneshot::Sender<Result<Status, KernelError>>,
    },
}

/// Why the data plane's thread is not there.
#[derive(Debug, thiserror::Error)]
pub enum ReconcilerError {
    /// The kernel could not be opened.
    #[error("the kernel's data plane cannot be opened")]
    Open(#[source] KernelError),
    /// The thread could not be started.
    #[error("the data plane's thread cannot be started")]
    Thread(#[source] std::io::Error),
    /// The thread ended: it panicked.
    #[error("the data plane's thread is gone")]
    Gone,
}

/// Tells of changes in the kernel that were not ours.
#[derive(Clone, Debug)]
pub struct Changes(watch::Receiver<u64>);

impl Changes {
    /// Waits until something of ours may have changed since the last call. A change means "look again";
    /// many may be told as one. Returns `false` when the reconciler is gone.
    pub async fn next(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

impl Reconciler {
    /// Opens the kernel of the calling thread's network namespace, which becomes the host's. In `run_dir` are
    /// what holds the tunnel's namespace and the socket of the engine of encrypted networks.
    ///
    /// # Errors
    /// Without CAP_NET_ADMIN and CAP_SYS_ADMIN, or without a usable `nft` program.
    pub fn new(run_dir: &Path) -> Result<Self, ReconcilerError> {
        Self::with_engine(run_dir, Box::new(Process::of(run_dir)))
    }

    /// The same with an engine of encrypted networks of one's own.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_engine(
        run_dir: &Path,
        engine: Box<dyn WireEngine>,
    ) -> Result<Self, ReconcilerError> {
        let kernel = LinuxKernel::open(run_dir, engine).map_err(ReconcilerError::Open)?;
        let dirty = Arc::new(Mutex::new(Dirty::default()));
        let (watcher, changes) = Watcher::start(dirty.clone()).map_err(ReconcilerError::Open)?;
        let (calls, receiver) = mpsc::channel(WAITING_CALLS);
        let thread = std::thread::Builder::new().name("weft-dataplane".to_owned());
        let thread = thread.spawn(move || serve(Driver::new(kernel), receiver, &dirty));
        let thread = Some(thread.map_err(ReconcilerError::Thread)?);
        Ok(Self { calls: Some(calls), thread, changes, _watcher: watcher })
    }

    /// Looks, plans and applies; goes on after failures. What the kernel told of is looked at in any scope.
    ///
    /// A dropped future does not stop the work, only the answer.
    ///
    /// # Errors
    /// Only if the thread is gone. What the kernel refused is in the report.
    pub async fn reconcile(
        &self,
        desired: Arc<Dataplane>,
        completeness: Completeness,
        scope: Scope,
    ) -> Result<Report, ReconcilerError> {
        let (answer, report) = oneshot::channel();
        self.call(Call::Reconcile { desired, completeness, scope, answer }).await?;
        report.await.map_err(|_| ReconcilerError::Gone)
    }

    /// How the encrypted link to the other nodes is doing.
    ///
    /// # Errors
    /// Only if the thread is gone. Inside: what the engine, or the kernel, refused.
    pub async fn tunnel_status(
        &self,
        tunnel: Tunnel,
    ) -> Result<Result<Status, KernelError>, ReconcilerError> {
        let (answer, status) = oneshot::channel();
        self.call(Call::Status { tunnel, answer }).await?;
        status.await.map_err(|_| ReconcilerError::Gone)
    }

    async fn call(&self, call: Call) -> Result<(), ReconcilerError> {
        let calls = self.calls.as_ref().ok_or(ReconcilerError::Gone)?;
        calls.send(call).await.map_err(|_| ReconcilerError::Gone)
    }

    /// Tells of changes from now on.
    pub fn changed(&self) -> Changes {
        let mut receiver = self.changes.clone();
        receiver.mark_unchanged();
        Changes(receiver)
    }
}

impl Drop for Reconciler {
    fn drop(&mut self) {
        self.calls = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was already told to every caller as `Gone`.
            let _ = thread.join();
        }
    }
}

fn serve(mut driver: Driver<LinuxKernel>, mut calls: mpsc::Receiver<Call>, dirty: &Mutex<Dirty>) {
    while let Some(call) = calls.blocking_recv() {
        // The caller may have gone; the work was done all the same.
        match call {
            Call::Reconcile { desired, completeness, scope, answer } => {
                let scope = widen(scope, lock(dirty).take());
                let report = driver.reconcile(&desired, completeness, &scope);
                lock(dirty).recognise(driver.kernel().ports(), driver.kernel().namespace_ids());
                drop(answer.send(report));
            }
            Call::Status { tunnel, answer } => {
                drop(answer.send(driver.kernel().tunnel_status(&tunnel)));
            }
        }
    }
}

/// What the kernel told of is looked at too.
fn widen(scope: Scope, told: Option<BTreeSet<String>>) -> Scope {
    match (scope, told) {
        (Scope::Full, _) | (_, None) => Scope::Full,
        (Scope::Changed(mut named), Some(told)) => {
            named.extend(told);
            Scope::Changed(named)
        }
    }
}

fn lock(dirty: &Mutex<Dirty>) -> std::sync::MutexGuard<'_, Dirty> {
    // The set is valid after any panic of its holder: it is only ever replaced or added to.
    dirty.lock().unwrap_or_else(PoisonError::into_inner)
}
