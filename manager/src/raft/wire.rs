//! The messages between managers, and what stands in front of every one of them.

use std::collections::BTreeMap;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use super::fence::{Incarnation, Known, Refusal};
use super::room::Space;
use super::types::{Blob, TypeConfig, Vote};

/// Longest message given to the transport. gRPC refuses above 4 MiB by default.
pub const MAX_MESSAGE_BYTES: usize = 3 * 1024 * 1024;
/// Longest encoded proposal. With the entries read before it (1 MiB) an append message with one
/// proposal more stays under [`MAX_MESSAGE_BYTES`].
pub const MAX_PROPOSAL_BYTES: usize = 1024 * 1024;
/// Piece of a snapshot in one message.
pub(crate) const SNAPSHOT_PIECE_BYTES: usize = 1024 * 1024;
/// Largest snapshot a receiver assembles.
pub(crate) const MAX_SNAPSHOT_BYTES: u64 = 1024 * 1024 * 1024;

/// A message and who it is from, as a store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) cluster: String,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// The sender's start and durable progress.
    pub(crate) shown: Known,
    /// The incarnation the sender's membership names for the target.
    pub(crate) expected: Incarnation,
    /// What the sender remembers of the managers, the target among them.
    pub(crate) remembered: BTreeMap<u64, Known>,
    pub(crate) body: Body,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Body {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    Transfer(TransferLeaderRequest<TypeConfig>),
    Snapshot(SnapshotPiece),
}

/// A piece of a snapshot. The first one begins a new transfer and voids an unfinished one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SnapshotPiece {
    /// The leader's vote.
    pub(crate) vote: Vote,
    /// Tells the transfers of one sender apart.
    pub(crate) transfer: u64,
    pub(crate) offset: u64,
    /// Bytes of the whole snapshot.
    pub(crate) total: u64,
    pub(crate) bytes: Blob,
}

/// What comes back: the responder as a store, and an answer or a refusal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Response {
    pub(crate) from: u64,
    pub(crate) shown: Known,
    pub(crate) result: Result<Answer, Refusal>,
    /// How much room the responder's disk has.
    #[serde(default)]
    pub(crate) space: Space,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Append(AppendEntriesResponse<TypeConfig>),
    Vote(VoteResponse<TypeConfig>),
    Transfer(TransferLeaderResponse<TypeConfig>),
    /// The piece is taken; more are needed.
    Piece,
    /// The whole snapshot is installed, or the vote in it was too old.
    Snapshot {
        vote: Vote,
    },
}
