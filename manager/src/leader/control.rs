//! Runs the controllers: looks whenever the state has changed, or they asked to.

use std::{sync::Arc, time::Duration};

use tracing::warn;
use weft_model::{Command, Proposal, Time};

use super::RETRY;
use crate::{controller, manager::Core, store::ProposeError};

/// Longest time without a look, in case a wake-up was computed wrongly.
pub(super) const RESYNC: Duration = Duration::from_secs(30);

pub(super) async fn run(core: Arc<Core>) {
    let mut changes = core.store.watch();
    loop {
        changes.mark_unchanged();
        let state = core.store.view();
        let now = core.clock.now().max(state.now());
        let step = core.with_ids(|ids| controller::step(&state, now, ids));
        if !step.commands.is_empty() {
            write(&core, now, step.commands).await;
        }
        let wait = step.wake_at.map_or(RESYNC, |at| at.since(core.clock.now()).min(RESYNC));
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(wait) => {}
        }
        // Changes come in groups; they are looked at together.
        tokio::time::sleep(core.timings.debounce).await;
    }
}

/// Writes the decisions as one entry of the log, or as several if they are too many for one.
pub(super) async fn write(core: &Core, now: Time, commands: Vec<Command>) {
    let mut parts = vec![commands];
    while let Some(commands) = parts.pop() {
        let proposal = Proposal { request: None, now, commands: commands.clone() };
        match core.store.propose(proposal).await {
            Ok((_, outcome)) => {
                // What was refused was overtaken; the next look decides anew.
                let refused = outcome.results.iter().filter_map(|result| result.as_ref().err());
                for error in refused {
                    warn!(%error, "a controller's command was refused");
                }
            }
            Err(ProposeError::TooBig { .. }) if commands.len() > 1 => {
                let (first, second) = commands.split_at(commands.len() / 2);
                parts.extend([second.to_vec(), first.to_vec()]);
            }
            Err(error) => {
                warn!(%error, "the controllers' decisions were not written");
                tokio::time::sleep(RETRY).await;
                return super::level(core).await;
            }
        }
    }
}
