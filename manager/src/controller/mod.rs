//! The controllers: pure functions from the state and the time to commands.
//!
//! Each looks at the present state only, never at how it came about, so an election has nothing to
//! rebuild. They work one after the other on one [`Draft`], in which every decision is already
//! applied, and all decisions become one entry of the log: what a service needs to run is decided in
//! a single round.

mod allocator;
mod draft;
mod filter;
pub(crate) mod keys;
mod orchestrator;
mod reaper;
mod scheduler;
mod slots;
#[cfg(test)]
mod tests;
mod update;

use weft_model::{Command, State, Time};

use crate::ids::IdSource;
use draft::Draft;

/// How often the controllers go round on one draft. Each round takes every task one step, and a
/// task has four steps to its node; what is not settled then is settled at the next look.
const ROUNDS: usize = 8;

/// What the controllers decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// In order; each was accepted by the state that the earlier ones lead to.
    pub commands: Vec<Command>,
    /// When to look again though nothing has changed: a back-off ends then.
    pub wake_at: Option<Time>,
}

/// Looks at the state and decides what is to be done now.
pub fn step(state: &State, now: Time, ids: &mut dyn IdSource) -> Step {
    let mut draft = Draft::new(state, now);
    for _ in 0..ROUNDS {
        let decided = draft.decisions();
        draft.forget_wakes();
        orchestrator::run(&mut draft, ids);
        update::run(&mut draft, ids);
        allocator::run(&mut draft, ids);
        scheduler::run(&mut draft);
        reaper::run(&mut draft);
        if draft.decisions() == decided || draft.is_full() {
            break;
        }
    }
    draft.finish()
}
