//! Changes of who belongs to the cluster, and the status that shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::error::{ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;

use super::engine::Engine;
use super::errors;
use super::types::{NodeRecord, TypeConfig};
use crate::store::{Follower, Machine, Member, MemberError, Status};

type Changed =
    Result<ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

impl<M: Machine> Engine<M> {
    pub(crate) async fn initialize(&self, address: String) -> Result<(), MemberError> {
        let record = NodeRecord { address, incarnation: self.hub.boot.incarnation };
        let members = BTreeMap::from([(self.config.number, record)]);
        let done = self.in_time(self.raft.initialize(members)).await.map_err(too_late)?;
        done.map_err(|error| errors::initialize(error, &self.lead()))
    }

    pub(crate) async fn add_learner(&self, member: Member) -> Result<(), MemberError> {
        let Member { number, address, incarnation } = member;
        if let Some(there) = self.members().into_iter().find(|there| there.number == number) {
            // The same store again is a repeated request; another store must not slip in under
            // a number whose log the others count on.
            if there.incarnation == incarnation {
                return Ok(());
            }
            return Err(MemberError::AlreadyMember { number, incarnation: there.incarnation });
        }
        let record = NodeRecord { address, incarnation };
        self.finish(self.in_time(self.raft.add_learner(number, record, false)).await)
    }

    pub(crate) async fn promote(&self, number: u64) -> Result<(), MemberError> {
        if self.voters().iter().any(|voter| voter.number == number) {
            return Ok(());
        }
        let status = self.status();
        if !status.leadership.is_leader() {
            return Err(MemberError::NotLeader { leader: status.leadership.leader });
        }
        if !status.learners.iter().any(|learner| learner.number == number) {
            return Err(MemberError::NotMember { number });
        }
        if let Some(refusal) = status.refusals.get(&number) {
            return Err(MemberError::Refused { number, source: refusal.clone() });
        }
        let follower = status.followers.get(&number).copied().unwrap_or_default();
        let limit = self.config.limits.promote_lag;
        let lag = if follower.matched.is_some() { follower.lag } else { status.last_log };
        if follower.matched.is_none() || lag > limit {
            return Err(MemberError::NotCaughtUp { number, lag, limit });
        }
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([number]));
        self.finish(self.in_time(self.raft.change_membership(change, true)).await)
    }

    pub(crate) async fn demote(&self, number: u64) -> Result<(), MemberError> {
        self.check_other_voters(number)?;
        let change = ChangeMembers::RemoveVoters(BTreeSet::from([number]));
        self.finish(self.in_time(self.raft.change_membership(change, true)).await)
    }

    pub(crate) async fn remove(&self, number: u64) -> Result<(), MemberError> {
        if self.voters().iter().any(|voter| voter.number == number) {
            self.check_other_voters(number)?;
            let change = ChangeMembers::RemoveVoters(BTreeSet::from([number]));
            return self.finish(self.in_time(self.raft.change_membership(change, false)).await);
        }
        if !self.learners().iter().any(|learner| learner.number == number) {
            return Err(MemberError::NotMember { number });
        }
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([number]));
        self.finish(self.in_time(self.raft.change_membership(change, false)).await)
    }

    pub(crate) async fn set_address(
        &self,
        number: u64,
        address: String,
    ) -> Result<(), MemberError> {
        let Some(there) = self.members().into_iter().find(|there| there.number == number) else {
            return Err(MemberError::NotMember { number });
        };
        if there.address == address {
            return Ok(());
        }
        // Only the address: a node record that changed its incarnation would be another store.
        let record = NodeRecord { address, incarnation: there.incarnation };
        let change = ChangeMembers::SetNodes(BTreeMap::from([(number, record)]));
        self.finish(self.in_time(self.raft.change_membership(change, true)).await)
    }

    pub(crate) async fn transfer_leadership(&self, to: Option<u64>) -> Result<(), MemberError> {
        let status = self.status();
        if !status.leadership.is_leader() {
            return Err(MemberError::NotLeader { leader: status.leadership.leader });
        }
        let own = self.config.number;
        let furthest = || {
            let others = status.voters.iter().filter(|voter| voter.number != own);
            others.max_by_key(|voter| status.followers.get(&voter.number).and_then(|f| f.matched))
        };
        let to = to.or_else(|| furthest().map(|v| v.number)).ok_or(MemberError::NobodyElse)?;
        if to == own {
            return Ok(());
        }
        if !status.voters.iter().any(|voter| voter.number == to) {
            return Err(MemberError::NotMember { number: to });
        }
        let triggered = self.raft.trigger().transfer_leader(to).await;
        triggered.map_err(|error| {
            errors::member(RaftError::Fatal(error), &self.lead(), Duration::ZERO)
        })?;
        let mut leadership = self.leadership();
        let moved = leadership
            .wait_for(|now| now.leader.as_ref().is_some_and(|leader| leader.number != own));
        let moved = self.in_time(moved).await.map_err(too_late)?;
        moved.map(drop).map_err(|_| MemberError::Closed)
    }

    pub(crate) fn voters(&self) -> Vec<Member> {
        let membership = self.raft.server_metrics().borrow_watched().membership_config.clone();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        self.members().into_iter().filter(|member| voters.contains(&member.number)).collect()
    }

    pub(crate) fn learners(&self) -> Vec<Member> {
        let membership = self.raft.server_metrics().borrow_watched().membership_config.clone();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        self.members().into_iter().filter(|member| !voters.contains(&member.number)).collect()
    }

    pub(crate) fn status(&self) -> Status {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let index = |id: Option<super::types::LogId>| id.map_or(0, |id| id.index);
        let last_log = metrics.last_log_index.unwrap_or(0);
        let followers = metrics.replication.into_iter().flatten();
        let followers = followers.filter(|(number, _)| *number != self.config.number);
        let follower = |matched: Option<super::types::LogId>| Follower {
            matched: matched.map(|id| id.index),
            lag: last_log.saturating_sub(index(matched)),
        };
        Status {
            number: self.config.number,
            boot: self.hub.boot,
            leadership: self.signals.leadership.borrow().clone(),
            voters: self.voters(),
            learners: self.learners(),
            last_log,
            committed: index(metrics.local_committed),
            applied: *self.view.applied.borrow(),
            snapshot: index(metrics.snapshot),
            purged: index(metrics.purged),
            mark: self.hub.shown().mark,
            followers: followers.map(|(number, matched)| (number, follower(matched))).collect(),
            remembered: self.hub.remembered(),
            refusals: self.hub.refusals(),
            condemned: self.hub.condemned().borrow().clone(),
        }
    }

    fn members(&self) -> Vec<Member> {
        let membership = self.raft.server_metrics().borrow_watched().membership_config.clone();
        let member = |(number, record): (&u64, &NodeRecord)| Member {
            number: *number,
            address: record.address.clone(),
            incarnation: record.incarnation,
        };
        membership.nodes().map(member).collect()
    }

    fn check_other_voters(&self, number: u64) -> Result<(), MemberError> {
        let voters = self.voters();
        if !voters.iter().any(|voter| voter.number == number) {
            return Err(MemberError::NotMember { number });
        }
        if voters.len() == 1 {
            return Err(MemberError::LastVoter { number });
        }
        Ok(())
    }

    fn finish(&self, changed: Result<Changed, Duration>) -> Result<(), MemberError> {
        let waited = self.config.deadline;
        let changed = changed.map_err(too_late)?;
        changed.map(drop).map_err(|error| errors::member(error, &self.lead(), waited))
    }
}

fn too_late(waited: Duration) -> MemberError {
    MemberError::Unknown { waited, reason: "the majority did not answer in time".to_owned() }
}
