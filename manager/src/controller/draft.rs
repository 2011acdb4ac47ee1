//! A state in which the decisions taken so far are already applied.

use weft_model::{Command, Proposal, State, Time};

use super::Step;

/// Most commands in one step, so that an entry of the log stays well below the largest message; the
/// rest follows in the next step.
const COMMANDS_MAX: usize = 2_000;

/// The working copy of the controllers.
pub(super) struct Draft {
    state: State,
    now: Time,
    commands: Vec<Command>,
    wake_at: Option<Time>,
}

impl Draft {
    pub(super) fn new(state: &State, now: Time) -> Self {
        Self { state: state.clone(), now, commands: Vec::new(), wake_at: None }
    }

    /// The state with all decisions applied.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// The leader's clock.
    pub(super) fn now(&self) -> Time {
        self.now
    }

    /// Takes a decision, unless the state refuses it: then the next look decides anew.
    pub(super) fn decide(&mut self, command: Command) {
        if self.is_full() {
            return;
        }
        let commands = vec![command.clone()];
        let proposal = Proposal { request: None, now: self.now, commands };
        let outcome = self.state.apply(self.state.revision(), &proposal);
        if outcome.into_result().is_ok() {
            self.commands.push(command);
        }
    }

    /// Asks to be called again at `at`, if nothing happens before.
    pub(super) fn wake(&mut self, at: Time) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Only the last round's wishes count: the rounds before saw a state that is gone.
    pub(super) fn forget_wakes(&mut self) {
        self.wake_at = None;
    }

    /// How many decisions were taken.
    pub(super) fn decisions(&self) -> usize {
        self.commands.len()
    }

    /// Whether no more decisions fit.
    pub(super) fn is_full(&self) -> bool {
        self.commands.len() >= COMMANDS_MAX
    }

    pub(super) fn finish(self) -> Step {
        Step { commands: self.commands, wake_at: self.wake_at }
    }
}
