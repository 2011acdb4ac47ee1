//! What can go wrong with a store, with the values that say why.

use std::io;
use std::time::Duration;

use super::{ConfigError, IdentityError, Peer, Refusal};

/// A message got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The peer cannot be reached now; the sender backs off.
    #[error("{address} cannot be reached: {reason}")]
    Unreachable { address: String, reason: String },
    /// The connection broke during the call; the sender tries again at once.
    #[error("connection to {address} broke: {reason}")]
    Interrupted { address: String, reason: String },
    #[error("no answer after {after:?}")]
    Timeout { after: Duration },
}

/// The store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("configuration")]
    Config(#[from] ConfigError),
    #[error("identity")]
    Identity(#[from] IdentityError),
    #[error("store in {place}")]
    Storage { place: String, source: io::Error },
    #[error("Raft cannot start: {reason}")]
    Raft { reason: String },
}

/// A store cannot be made the beginning of a new cluster.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("opening")]
    Open(#[from] OpenError),
    /// Under the old name the managers given up for lost could come back and be believed.
    #[error("the store belongs to cluster {cluster} already; the new one needs another name")]
    SameCluster { cluster: String },
    #[error("the store in {place} has no log to recover from")]
    Empty { place: String },
    #[error("writing to the store in {place}")]
    Write { place: String, source: io::Error },
}

/// The Raft engine of this store has died and does not recover in place; the process must
/// start again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Raft has died: {reason}")]
pub struct FatalError {
    pub reason: String,
}

/// A command was not added, or it is not known whether it was.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProposeError {
    /// Not added. Ask the leader, if it is known.
    #[error("this manager does not lead{}", leader_hint(.leader.as_ref()))]
    NotLeader { leader: Option<Peer> },
    /// Not added: this leader has lost its majority.
    #[error("no majority of managers answers")]
    NoQuorum,
    /// Not added: too many are waiting.
    #[error("{limit} proposals in flight, no room within {waited:?}")]
    Overloaded { limit: usize, waited: Duration },
    /// Not added: the leader's disk is nearly full, and nobody can lead in its place.
    #[error("this manager's disk has {free} bytes left, less than the {reserve} kept in reserve")]
    NoRoom { free: u64, reserve: u64 },
    /// Not added: so many disks are nearly full that no majority could keep it.
    #[error("the disks of managers {managers:?} are nearly full, and no majority is left")]
    NoRoomElsewhere { managers: Vec<u64> },
    /// It may or may not take effect, now or later; a retry must be recognised by its content.
    #[error("outcome unknown after {waited:?}: {reason}")]
    Unknown { waited: Duration, reason: String },
    #[error("proposal of {size} bytes, limit {limit}")]
    TooBig { size: usize, limit: usize },
    #[error("proposal cannot be encoded: {reason}")]
    Encode { reason: String },
    #[error(transparent)]
    Fatal(FatalError),
    #[error("the store is shut down")]
    Closed,
}

/// A read barrier was not passed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReadError {
    #[error("this manager does not lead{}", leader_hint(.leader.as_ref()))]
    NotLeader { leader: Option<Peer> },
    #[error("no majority of managers answers")]
    NoQuorum,
    #[error("not confirmed within {waited:?}")]
    Timeout { waited: Duration },
    #[error(transparent)]
    Fatal(FatalError),
    #[error("the store is shut down")]
    Closed,
}

/// The members were not changed, or it is not known whether they were.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MemberError {
    #[error("this manager does not lead{}", leader_hint(.leader.as_ref()))]
    NotLeader { leader: Option<Peer> },
    #[error("no majority of managers answers")]
    NoQuorum,
    #[error("this store belongs to a cluster already")]
    AlreadyInitialized,
    #[error("manager {number} is not a member")]
    NotMember { number: u64 },
    #[error("manager {number} is a member already, with store {incarnation}")]
    AlreadyMember { number: u64, incarnation: super::Incarnation },
    #[error("manager {number} is {lag} entries behind, limit {limit}")]
    NotCaughtUp { number: u64, lag: u64, limit: u64 },
    #[error("manager {number} is the last voter")]
    LastVoter { number: u64 },
    #[error("no other voter can take over")]
    NobodyElse,
    #[error("another change of members is under way")]
    InProgress,
    #[error("manager {number} was refused")]
    Refused { number: u64, source: Refusal },
    #[error("refused by Raft: {reason}")]
    Invalid { reason: String },
    #[error("outcome unknown after {waited:?}: {reason}")]
    Unknown { waited: Duration, reason: String },
    #[error(transparent)]
    Fatal(FatalError),
    #[error("the store is shut down")]
    Closed,
}

fn leader_hint(leader: Option<&Peer>) -> String {
    match leader {
        Some(peer) => format!(", manager {} at {} does", peer.number, peer.address),
        None => "; no leader is known".to_owned(),
    }
}
