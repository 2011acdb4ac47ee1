//! One driver for each container of the state, for ever.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{sync::watch, task::JoinSet};
use weft_model::{
    Command, Container, ContainerId, State, command::Force, object::Wanted, spec::Restart,
};

use super::{Leftovers, Local, driver, live::Phase};

impl Local {
    /// Drives the containers; `leftovers` are those of an earlier run.
    pub async fn run(self: Arc<Self>, mut leftovers: Leftovers) {
        self.revive().await;
        let mut state = self.engine.watch();
        let mut drivers = Drivers::default();
        loop {
            let now = state.borrow_and_update().clone();
            drivers.follow(&self, &now, &mut leftovers);
            tokio::select! {
                changed = state.changed() => if changed.is_err() {
                    return;
                },
                Some(ended) = drivers.set.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a container's driver has failed");
                    }
                }
            }
        }
    }

    /// `--restart always` means also what was stopped by hand before the daemon was started.
    async fn revive(&self) {
        let state = self.engine.state();
        let stopped = state.containers().filter(|container| {
            container.spec.restart == Restart::Always
                && container.wanted == Wanted::Stopped
                && container.starts > 0
        });
        for container in stopped {
            let id = container.id;
            let revived = self.propose_start(None, id).await;
            if let Err(error) = revived {
                tracing::warn!(container = %id.short(), %error, "not started again");
            }
        }
    }
}

#[derive(Default)]
struct Drivers {
    told: BTreeMap<ContainerId, watch::Sender<Option<Arc<Container>>>>,
    set: JoinSet<()>,
}

impl Drivers {
    /// Tells each driver what is wanted of its container, and begins those that are missing.
    fn follow(&mut self, local: &Arc<Local>, state: &State, leftovers: &mut Leftovers) {
        for container in state.containers() {
            match self.told.get(&container.id) {
                Some(told) => {
                    told.send_if_modified(|known| {
                        let same =
                            known.as_ref().is_some_and(|known| Arc::ptr_eq(known, container));
                        if !same {
                            *known = Some(Arc::clone(container));
                        }
                        !same
                    });
                }
                None => self.begin(local, container, leftovers),
            }
        }
        self.told.retain(|id, told| {
            let there = state.container(*id).is_some();
            if !there {
                // The driver sees that it is over, or has gone.
                let _ = told.send(None);
            }
            there
        });
    }

    fn begin(&mut self, local: &Arc<Local>, container: &Arc<Container>, left: &mut Leftovers) {
        let id = container.id;
        if container.wanted == Wanted::Running {
            // Who asks before the driver has looked must not think that it is down.
            local.table.cell(id).see(|live| live.phase = Phase::Starting);
        }
        let (told, known) = watch::channel(Some(Arc::clone(container)));
        let left = left.remove(&id);
        self.set.spawn(driver::drive(Arc::clone(local), id, known, left));
        self.told.insert(id, told);
    }
}

/// Ends and removes a container.
pub(super) fn removal(id: ContainerId, force: Force) -> Command {
    Command::SetContainer { id, wanted: Wanted::Removed, ports: Vec::new(), force }
}
