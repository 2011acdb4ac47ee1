//! What only the leader does. One scope owns it all: it opens when this manager begins to lead and
//! is dropped, with every task in it, when it ends.

mod control;
mod keys;
mod members;
mod watchman;

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tracing::{info, warn};
use weft_model::Proposal;

use crate::{manager::Core, store::Leadership};

/// Pause after something failed, so that a store that refuses everything is not asked all the time.
const RETRY: Duration = Duration::from_millis(100);

/// Opens the leader's scope whenever this manager leads.
pub(crate) async fn follow(core: Arc<Core>) {
    let mut leadership = core.store.leadership();
    loop {
        let Ok(term) = leadership.wait_for(Leadership::is_leader).await.map(|now| now.term) else {
            return;
        };
        info!(term, "this manager leads");
        let over = |now: &Leadership| !now.is_leader() || now.term != term;
        tokio::select! {
            lost = leadership.wait_for(over) => if lost.is_err() {
                return;
            },
            () = reign(&core) => {}
        }
        info!(term, "this manager leads no more");
    }
}

/// Runs until it is dropped.
async fn reign(core: &Arc<Core>) {
    // What earlier leaders have committed must be in view before anything is decided.
    while let Err(error) = core.store.read_barrier().await {
        warn!(%error, "not yet current");
        tokio::time::sleep(RETRY).await;
    }
    // Before there is a cluster nothing is decided here.
    if core.store.view().cluster().is_some() {
        level(core).await;
    }
    let mut scope = JoinSet::new();
    scope.spawn(control::run(Arc::clone(core)));
    scope.spawn(keys::run(Arc::clone(core)));
    scope.spawn(watchman::run(Arc::clone(core)));
    scope.spawn(members::run(Arc::clone(core)));
    // None of them ends by itself; one that panicked must not leave the others to lead alone.
    if let Some(Err(error)) = scope.join_next().await {
        warn!(%error, "a task of the leader has died; the scope opens anew");
    }
    tokio::time::sleep(RETRY).await;
}

/// Waits until everything that was proposed here before is in view or will never be. What this leader
/// has given up waiting for may still be in the log, and whatever is decided without it is decided
/// twice; an entry behind it, that changes nothing, tells when it is settled.
async fn level(core: &Core) {
    loop {
        let proposal = Proposal { request: None, now: core.clock.now(), commands: Vec::new() };
        match core.store.propose(proposal).await {
            Ok(_) => return,
            Err(error) => warn!(%error, "not yet current"),
        }
        tokio::time::sleep(RETRY).await;
    }
}
