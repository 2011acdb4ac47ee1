//! What a store says about itself.

use std::collections::BTreeMap;

use super::{Boot, Incarnation, Known, Mark, Peer, Refusal};

/// The part this manager plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    /// Asking for votes.
    Candidate,
    /// Gets the log and has no vote, or is in no cluster yet.
    #[default]
    Learner,
    /// The store is shut down or has died.
    Stopped,
}

/// Who leads, as far as this manager knows.
///
/// A new leader has the whole committed log but may not have applied it yet: pass
/// [`super::Store::read_barrier`] before acting on `view`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader that was last heard of; it may be dead by now.
    pub leader: Option<Peer>,
    /// Grows with every election; one leader in each term.
    pub term: u64,
    pub role: Role,
}

impl Leadership {
    /// Whether this manager leads.
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }
}

/// A manager as the membership has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub number: u64,
    pub address: String,
    /// The store it was let in with.
    pub incarnation: Incarnation,
}

/// How far a follower or learner is, seen from the leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Follower {
    /// Last index known to agree; `None` before the first answer.
    pub matched: Option<u64>,
    /// Entries it is behind the leader's last one.
    pub lag: u64,
}

/// What callers on this manager have asked to be written, since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proposals {
    /// All of them.
    pub asked: u64,
    /// Those that came to nothing, or may have: what refused them was not the state.
    pub failed: u64,
}

/// Everything about a store that helps to see what it does.
#[derive(Clone, Debug)]
pub struct Status {
    pub number: u64,
    pub boot: Boot,
    pub leadership: Leadership,
    pub voters: Vec<Member>,
    pub learners: Vec<Member>,
    /// Last entry in the log, durable or not.
    pub last_log: u64,
    pub committed: u64,
    pub applied: u64,
    /// Last entry that the newest snapshot has.
    pub snapshot: u64,
    /// Last entry that is gone from the log.
    pub purged: u64,
    pub mark: Mark,
    /// Only on the leader.
    pub followers: BTreeMap<u64, Follower>,
    /// The newest start and the best mark that each other manager has shown, to anybody.
    pub remembered: BTreeMap<u64, Known>,
    /// The last refusal between this manager and each other one, while it lasts.
    pub refusals: BTreeMap<u64, Refusal>,
    /// Why this store must not take part any more; it neither votes nor stands for election.
    pub condemned: Option<Refusal>,
}
