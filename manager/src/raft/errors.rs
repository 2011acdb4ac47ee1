//! The library's errors in the words of the store.

use std::time::Duration;

use openraft::error::{
    ChangeMembershipError, ClientWriteError, ForwardReason, ForwardToLeader, InitializeError,
    LinearizableReadError, RaftError,
};

use super::types::TypeConfig;
use crate::store::{FatalError, MemberError, Peer, ProposeError, ReadError};

/// What is known when a call is refused.
#[derive(Clone, Debug)]
pub(crate) struct Lead {
    /// Who leads, as last seen.
    pub(crate) known: Option<Peer>,
    pub(crate) number: u64,
    pub(crate) closed: bool,
    pub(crate) fatal: Option<FatalError>,
}

/// Why this manager did not take a call.
enum Elsewhere {
    Leader(Option<Peer>),
    NoQuorum,
}

impl Lead {
    fn elsewhere(&self, forward: &ForwardToLeader<TypeConfig>) -> Elsewhere {
        match forward.reason {
            ForwardReason::LeaseExpired => Elsewhere::NoQuorum,
            ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
                let named = forward.leader_id.zip(forward.leader_node.as_ref());
                let named =
                    named.map(|(number, record)| Peer { number, address: record.address.clone() });
                // Never send a caller back to the manager that has just declined.
                let leader = named.or_else(|| self.known.clone());
                Elsewhere::Leader(leader.filter(|peer| peer.number != self.number))
            }
        }
    }

    /// `None` when the store was closed on purpose.
    fn dead(&self, reason: &dyn std::fmt::Display) -> Option<FatalError> {
        if self.closed {
            return None;
        }
        Some(self.fatal.clone().unwrap_or_else(|| FatalError { reason: reason.to_string() }))
    }
}

pub(crate) fn propose(
    error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
    lead: &Lead,
    waited: Duration,
) -> ProposeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            match lead.elsewhere(&forward) {
                Elsewhere::Leader(leader) => ProposeError::NotLeader { leader },
                Elsewhere::NoQuorum => ProposeError::NoQuorum,
            }
        }
        RaftError::APIError(
            error @ (ClientWriteError::LogEntryDiscarded(_)
            | ClientWriteError::ChangeMembershipError(_)
            | ClientWriteError::PreconditionFailed(_)),
        ) => ProposeError::Unknown { waited, reason: error.to_string() },
        RaftError::Fatal(error) => {
            lead.dead(&error).map_or(ProposeError::Closed, ProposeError::Fatal)
        }
    }
}

pub(crate) fn read(
    error: RaftError<TypeConfig, LinearizableReadError<TypeConfig>>,
    lead: &Lead,
) -> ReadError {
    match error {
        RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
            match lead.elsewhere(&forward) {
                Elsewhere::Leader(leader) => ReadError::NotLeader { leader },
                Elsewhere::NoQuorum => ReadError::NoQuorum,
            }
        }
        RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => ReadError::NoQuorum,
        RaftError::Fatal(error) => lead.dead(&error).map_or(ReadError::Closed, ReadError::Fatal),
    }
}

pub(crate) fn member(
    error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
    lead: &Lead,
    waited: Duration,
) -> MemberError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            match lead.elsewhere(&forward) {
                Elsewhere::Leader(leader) => MemberError::NotLeader { leader },
                Elsewhere::NoQuorum => MemberError::NoQuorum,
            }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_),
        )) => MemberError::InProgress,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::LearnerNotFound(missing),
        )) => MemberError::NotMember { number: missing.node_id },
        RaftError::APIError(
            error @ (ClientWriteError::ChangeMembershipError(_)
            | ClientWriteError::PreconditionFailed(_)),
        ) => MemberError::Invalid { reason: error.to_string() },
        RaftError::APIError(error @ ClientWriteError::LogEntryDiscarded(_)) => {
            MemberError::Unknown { waited, reason: error.to_string() }
        }
        RaftError::Fatal(error) => {
            lead.dead(&error).map_or(MemberError::Closed, MemberError::Fatal)
        }
    }
}

pub(crate) fn initialize(
    error: RaftError<TypeConfig, InitializeError<TypeConfig>>,
    lead: &Lead,
) -> MemberError {
    match error {
        RaftError::APIError(InitializeError::NotAllowed(_)) => MemberError::AlreadyInitialized,
        RaftError::APIError(error @ InitializeError::NotInMembers(_)) => {
            MemberError::Invalid { reason: error.to_string() }
        }
        RaftError::Fatal(error) => {
            lead.dead(&error).map_or(MemberError::Closed, MemberError::Fatal)
        }
    }
}
