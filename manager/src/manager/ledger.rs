//! What the dispatcher and the leader's loops need of the store, so that a test or a simulation can
//! run them on a plain state.

use std::{future::Future, sync::Arc};

use tokio::sync::watch;
use weft_model::{Outcome, Proposal, State};

use crate::store::{ProposeError, Store};

/// A state that decided changes are added to.
pub trait Ledger: Clone + Send + Sync + 'static {
    /// The state as last applied.
    fn view(&self) -> Arc<State>;

    /// Tells the revision; when it changed, `view` has the change.
    fn watch(&self) -> watch::Receiver<u64>;

    /// Adds a change; gives its revision and what it did.
    fn propose(
        &self,
        proposal: Proposal,
    ) -> impl Future<Output = Result<(u64, Outcome), ProposeError>> + Send;
}

impl Ledger for Store<State> {
    fn view(&self) -> Arc<State> {
        Self::view(self)
    }

    fn watch(&self) -> watch::Receiver<u64> {
        Self::watch(self)
    }

    async fn propose(&self, proposal: Proposal) -> Result<(u64, Outcome), ProposeError> {
        Self::propose(self, proposal).await
    }
}
