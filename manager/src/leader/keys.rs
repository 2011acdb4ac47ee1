//! Brings the rotations of the encrypted links' keys forward: looks whenever the state has changed, a
//! node has applied something while one waits for that, or a key has come of age.

use std::sync::Arc;

use super::control::{RESYNC, write};
use crate::{controller::keys, manager::Core};

pub(super) async fn run(core: Arc<Core>) {
    let mut changes = core.store.watch();
    loop {
        changes.mark_unchanged();
        let state = core.store.view();
        let now = core.clock.now().max(state.now());
        let step = keys::step(&state, &core.sessions.all_applied(), now);
        if !step.commands.is_empty() {
            write(&core, now, step.commands).await;
        }
        let wait = step.wake_at.map_or(RESYNC, |at| at.since(core.clock.now()).min(RESYNC));
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return;
            },
            () = core.sessions.progress(), if keys::awaits_nodes(&state) => {}
            () = tokio::time::sleep(wait) => {}
        }
        tokio::time::sleep(core.timings.debounce).await;
    }
}
