//! Notes who is out of touch and who is back.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};
use weft_model::{Command, Proposal};

use super::RETRY;
use crate::{dispatcher::liveness::Liveness, manager::Core};

pub(super) async fn run(core: Arc<Core>) {
    let mut liveness = Liveness::new(core.timings.silent, core.timings.down);
    let mut changes = core.store.watch();
    loop {
        changes.mark_unchanged();
        let heard = core.sessions.heard();
        let verdict = liveness.step(&core.store.view(), &heard, Instant::now());
        if !verdict.commands.is_empty() {
            write(&core, verdict.commands).await;
            continue;
        }
        let wake = verdict.wake_at;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return;
            },
            () = core.sessions.news() => {}
            () = async { sleep_until(wake.unwrap_or_else(Instant::now)).await }, if wake.is_some() => {}
        }
        tokio::time::sleep(core.timings.debounce).await;
    }
}

async fn write(core: &Core, commands: Vec<Command>) {
    for command in &commands {
        if let Command::SetNodeState { id, state, .. } = command {
            info!(node = %id.short(), state = state.word(), "a node's state changes");
        }
    }
    let proposal = Proposal { request: None, now: core.clock.now(), commands };
    if let Err(error) = core.store.propose(proposal).await {
        warn!(%error, "the nodes' states were not written");
        tokio::time::sleep(RETRY).await;
    }
}
