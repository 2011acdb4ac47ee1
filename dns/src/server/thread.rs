//! One thread with a runtime of its own, which ends with its owner.

use std::io;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A running thread. Dropping it ends it, and all tasks on it.
#[derive(Debug)]
pub(super) struct Thread {
    runtime: Handle,
    /// Closed by being dropped.
    _alive: oneshot::Sender<()>,
}

impl Thread {
    /// Errors if the system gives no thread, or no descriptors for its runtime.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (alive, ended) = oneshot::channel::<()>();
        let run = move || {
            // Nothing is ever sent: the other end is dropped.
            let _ = runtime.block_on(ended);
        };
        std::thread::Builder::new().name("weft-names".to_owned()).spawn(run)?;
        Ok(Self { runtime: handle, _alive: alive })
    }

    pub(super) fn runtime(&self) -> Handle {
        self.runtime.clone()
    }
}
