//! Makes the members of Raft follow the state: who is to be a manager gets the log, then a vote; who
//! is not any more is put out.

use std::{collections::BTreeMap, sync::Arc};

use tracing::{debug, info};
use weft_model::{State, spec::Role};

use crate::{
    manager::Core,
    store::{Incarnation, Member, MemberError, Status},
};

/// One change of the members.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// This manager is to go, so another one must lead first.
    HandOver,
    PutOut(u64),
    LetIn(Member),
    GiveVote(u64),
    Move(u64, String),
}

pub(super) async fn run(core: Arc<Core>) {
    let mut changes = core.store.watch();
    loop {
        changes.mark_unchanged();
        let wanted = plan(&core.store.view(), &core.store.status());
        for change in wanted {
            match apply(&core, &change).await {
                Ok(()) => info!(?change, "a member of Raft has changed"),
                // It is tried again at the next look.
                Err(error) => debug!(%error, ?change, "a member of Raft could not be changed yet"),
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(core.timings.members) => {}
        }
        tokio::time::sleep(core.timings.debounce).await;
    }
}

/// What has to change, in this order.
fn plan(state: &State, status: &Status) -> Vec<Change> {
    if state.cluster().is_none() {
        return Vec::new();
    }
    let managers: BTreeMap<u64, _> = state
        .nodes()
        .filter(|node| node.spec.role == Role::Manager)
        .map(|node| (node.number, node))
        .collect();
    let mut changes = Vec::new();
    for member in status.voters.iter().chain(&status.learners) {
        match managers.get(&member.number) {
            None if member.number == status.number => changes.push(Change::HandOver),
            None => changes.push(Change::PutOut(member.number)),
            Some(node) => {
                let address = node.description.address.to_string();
                if is_other_store(member, node.raft_incarnation.as_deref()) {
                    changes.push(Change::PutOut(member.number));
                } else if member.address != address {
                    changes.push(Change::Move(member.number, address));
                }
            }
        }
    }
    for (number, node) in managers {
        let is_member = |members: &[Member]| members.iter().any(|member| member.number == number);
        let incarnation = node.raft_incarnation.as_deref().and_then(incarnation_of);
        if is_member(&status.learners) && node.in_touch() {
            changes.push(Change::GiveVote(number));
        } else if !is_member(&status.voters)
            && !is_member(&status.learners)
            && let Some(incarnation) = incarnation
        {
            let address = node.description.address.to_string();
            changes.push(Change::LetIn(Member { number, address, incarnation }));
        }
    }
    changes
}

/// Whether the node now has another store than the one that was let in: it was demoted and promoted
/// again, and its old log is gone.
fn is_other_store(member: &Member, shown: Option<&str>) -> bool {
    shown.and_then(incarnation_of).is_some_and(|shown| shown != member.incarnation)
}

/// The incarnation as a node's hello carries it: its `Display` form, 16 hex digits.
fn incarnation_of(text: &str) -> Option<Incarnation> {
    u64::from_str_radix(text, 16).ok().map(Incarnation)
}

async fn apply(core: &Core, change: &Change) -> Result<(), MemberError> {
    let store = &core.store;
    match change {
        Change::HandOver => store.transfer_leadership(None).await,
        Change::PutOut(number) => store.remove(*number).await,
        Change::LetIn(member) => store.add_learner(member.clone()).await,
        Change::GiveVote(number) => store.promote(*number).await,
        Change::Move(number, address) => store.set_address(*number, address.clone()).await,
    }
}
