//! A machine's kernel as the worker's loop and the data plane see it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rand::RngExt as _;
use weft_overlay::{
    Completeness, Dataplane, Driver, Kernel, NetnsRef, Op, Report, Scope,
    kernel::{KernelError, Look, Observation},
};
use weft_worker::plumbing::{Gone, HostKernel};

use super::machine::Machine;

/// Longest time a look takes, in milliseconds.
const LOOK_MAX: u64 = 15;

/// The kernel that all who hold it share.
pub(super) struct Shared(pub(super) Machine);

impl Kernel for Shared {
    fn observe(&mut self, look: &Look) -> Observation {
        self.0.lock().kernel.observe(look)
    }

    fn execute(&mut self, ops: &[Op]) -> Vec<Result<(), KernelError>> {
        let mut inner = self.0.lock();
        inner.changes += 1;
        inner.kernel.execute(ops)
    }

    fn release(&mut self, wanted: &BTreeMap<String, NetnsRef>) {
        self.0.lock().kernel.release(wanted);
    }

    fn held(&self) -> Vec<String> {
        self.0.lock().kernel.held()
    }
}

/// The data plane's loop over it, for one life of the daemon.
pub(super) struct Plane {
    machine: Machine,
    driver: Driver<Shared>,
}

impl Plane {
    pub(super) fn new(machine: Machine) -> Self {
        Self { driver: Driver::new(Shared(machine.clone())), machine }
    }
}

impl HostKernel for Plane {
    async fn reconcile(
        &mut self,
        desired: Arc<Dataplane>,
        completeness: Completeness,
        scope: Scope,
    ) -> Result<Report, Gone> {
        let millis = self.machine.lock().random.random_range(0..LOOK_MAX);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        let told = std::mem::take(&mut self.machine.lock().dirty);
        let scope = match scope {
            Scope::Full => Scope::Full,
            Scope::Changed(named) => Scope::Changed(named.into_iter().chain(told).collect()),
        };
        Ok(self.driver.reconcile(&desired, completeness, &scope))
    }

    async fn changed(&mut self) {
        self.machine.touched.notified().await;
    }
}
