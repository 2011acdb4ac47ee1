//! From a wish to a decided change: look, choose, try on a copy, write.

use std::{sync::Arc, time::Duration};

use tonic::{Code, Status};
use weft_model::{Command, Named, Outcome, Proposal, Rejected, RequestId, State, spec::Invalid};
use weft_proto::convert::status::{hinted, invalid, refused};

use super::{Core, Manager, read_failed, write_failed};
use crate::ids::IdSource;

/// How often something is chosen anew because what was chosen had been taken meanwhile.
const CHOICES_MAX: usize = 4;
/// How long a call waits for its turn to choose: as long as one write may take.
const TURN_WAIT: Duration = Duration::from_secs(5);

impl Manager {
    /// The state with everything that was committed anywhere before this call.
    pub(crate) async fn current(&self) -> Result<Arc<State>, Status> {
        self.core.current().await
    }

    /// Has `choose` decide on the present state, and writes its command. A write that was done
    /// before under the same name is not done again, and refused if it is another one. Gives the ID of the object and a state that
    /// has the change.
    ///
    /// `choose` is called again when somebody else was quicker to take what it had chosen.
    pub(crate) async fn decide(
        &self,
        name: Option<Named>,
        choose: impl FnMut(&State, &mut dyn IdSource) -> Result<Command, Status>,
    ) -> Result<(String, Arc<State>), Status> {
        self.core.decide(name, choose).await
    }
}

impl Core {
    pub(crate) async fn current(&self) -> Result<Arc<State>, Status> {
        self.store.read_barrier().await.map_err(|error| read_failed(&error))?;
        Ok(self.store.view())
    }

    pub(crate) async fn decide(
        &self,
        name: Option<Named>,
        mut choose: impl FnMut(&State, &mut dyn IdSource) -> Result<Command, Status>,
    ) -> Result<(String, Arc<State>), Status> {
        let _deciding = self.turn().await?;
        let mut last = None;
        for _ in 0..CHOICES_MAX {
            let state = self.current().await?;
            if let Some(outcome) = name.as_ref().and_then(|name| state.repeated(name)) {
                let applied = outcome.into_result().map_err(|error| refused(&error))?;
                return Ok((applied.id, state));
            }
            let command = self.with_ids(|ids| choose(&state, ids))?;
            let now = self.clock.now();
            let proposal = Proposal { request: name.clone(), now, commands: vec![command] };
            // What the state refuses now is not worth an entry in the log.
            let mut trial = State::clone(&state);
            let tried = trial.apply(state.revision() + 1, &proposal).into_result();
            tried.map_err(|error| refused(&error))?;
            let (_, outcome) =
                self.store.propose(proposal).await.map_err(|error| write_failed(&error))?;
            match outcome.into_result() {
                Ok(applied) => return Ok((applied.id, self.store.view())),
                Err(rejected) => last = Some(rejected),
            }
        }
        // The loop ran at least once, so there is a refusal.
        Err(last.as_ref().map_or_else(|| Status::internal("nothing was tried"), refused))
    }

    /// Has `choose` decide on changes that do not depend on each other, and writes them as one. Gives
    /// what became of each, and the state they were chosen on.
    pub(crate) async fn decide_each(
        &self,
        name: Option<Named>,
        choose: impl FnOnce(&State) -> Vec<Command>,
    ) -> Result<(Outcome, Arc<State>), Status> {
        let _deciding = self.turn().await?;
        let state = self.current().await?;
        if let Some(outcome) = name.as_ref().and_then(|name| state.repeated(name)) {
            return Ok((outcome, state));
        }
        let commands = choose(&state);
        if commands.is_empty() {
            return Ok((Outcome::default(), state));
        }
        let proposal = Proposal { request: name, now: self.clock.now(), commands };
        let (_, outcome) =
            self.store.propose(proposal).await.map_err(|error| write_failed(&error))?;
        Ok((outcome, state))
    }

    /// Waits until no other call is between looking and writing.
    async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, Status> {
        let turn = tokio::time::timeout(TURN_WAIT, self.deciding.lock()).await;
        turn.map_err(|_| {
            let message = format!("other calls have been waiting for {TURN_WAIT:?}");
            hinted(Code::Unavailable, message, Some("retry with the same request id"))
        })
    }

    /// Writes commands that need no choice and have no name.
    pub(crate) async fn write(&self, commands: Vec<Command>) -> Result<(), WriteError> {
        let proposal = Proposal { request: None, now: self.clock.now(), commands };
        let (_, outcome) = self.store.propose(proposal).await.map_err(WriteError::Store)?;
        outcome.into_result().map(drop).map_err(WriteError::Refused)
    }
}

/// A write that did not happen, or of which it is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Store(crate::store::ProposeError),
    #[error(transparent)]
    Refused(Rejected),
}

impl From<WriteError> for Status {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Store(error) => write_failed(&error),
            WriteError::Refused(rejected) => refused(&rejected),
        }
    }
}

/// The caller's name for a write; none if it gave none.
pub(crate) fn parse_request_id(text: &str) -> Result<Option<RequestId>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    RequestId::new(text).map(Some).ok_or_else(|| {
        let reason =
            format!("must have {} to {} printable characters", RequestId::MIN, RequestId::MAX);
        invalid(&Invalid::new("request id", text, reason))
    })
}
