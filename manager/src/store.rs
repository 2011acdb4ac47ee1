//! The replicated store: the one value all managers agree on.
//!
//! [`Store::open`] gives a cheap handle. `view` reads without waiting, `propose` asks the
//! majority to add one command, `watch` tells that something was applied, `leadership` tells who
//! leads. How it is done is in `crate::raft`, and nothing of that library is visible here.
//!
//! The state is any [`Machine`]; the daemon uses [`weft_model::State`].

mod config;
mod error;
mod handle;
mod status;

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::raft::fence::{Boot, Incarnation, Known, NotAnIncarnation, Refusal};
pub use crate::raft::identity::IdentityError;
pub use crate::raft::log::memory::{MemoryDisk, SyncFails};
pub use crate::raft::mark::Mark;
pub use crate::raft::wire::{MAX_MESSAGE_BYTES, MAX_PROPOSAL_BYTES};
pub use config::{Backend, ConfigError, LogLimits, StoreConfig, Timings};
pub use error::{
    FatalError, MemberError, OpenError, ProposeError, ReadError, RecoverError, TransportError,
};
pub use handle::Store;
pub use status::{Follower, Leadership, Member, Proposals, Role, Status};

/// A state that commands change, the same way on every manager.
///
/// `apply` must not panic and must depend on nothing but its arguments. Cloning must be cheap: a
/// clone is made for the readers after every batch.
pub trait Machine:
    Clone + Default + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// A change that was decided.
    type Proposal: Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What applying it gave.
    type Outcome: Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Applies the log entry at `index`.
    fn apply(&mut self, index: u64, proposal: &Self::Proposal) -> Self::Outcome;
}

impl Machine for weft_model::State {
    type Proposal = weft_model::Proposal;
    type Outcome = weft_model::Outcome;

    fn apply(&mut self, index: u64, proposal: &weft_model::Proposal) -> weft_model::Outcome {
        weft_model::State::apply(self, index, proposal)
    }
}

/// Another manager, as its messages are addressed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    pub number: u64,
    /// What was given when the manager was let in; the transport knows what it means.
    pub address: String,
}

/// Carries one message to a peer and brings the answer back.
///
/// The other side gives the bytes to [`Store::handle`] with the number it has authenticated.
/// Messages are at most [`MAX_MESSAGE_BYTES`] long. They may be lost, doubled and overtaken.
pub trait Transport: Clone + Send + Sync + 'static {
    /// Sends `request` and waits at most `deadline` for the answer.
    fn call(
        &self,
        to: &Peer,
        request: Bytes,
        deadline: Duration,
    ) -> impl Future<Output = Result<Bytes, TransportError>> + Send;
}
