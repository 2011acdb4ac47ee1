//! A manager that signs its own certificate after all had expired: what it gets by it, and what one
//! that was removed meanwhile does not.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "api/support.rs"]
#[allow(dead_code, reason = "shared with the tests of the API")]
mod support;

use std::time::{Duration, SystemTime};

use support::describe;
use weft_manager::{
    ca::{Authority, OwnError, Subject, sign_own},
    clock::{model_time, system_time},
    gate::{Caller, Credential, Denied, admit, rule_of},
    manager::new_cluster,
};
use weft_model::{
    ClusterId, Command, NodeId, Proposal, State, Time,
    command::{Force, NewNode},
    object::ClusterSpec,
    spec::{NodeSpec, Role},
};
use weft_proto::tls::{self, Identity};

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

/// A cluster of two managers and a worker that was powered off a day ago.
struct Off {
    state: State,
    authority: Authority,
    went_off: Time,
}

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn new_node(n: u8, role: Role) -> NewNode {
    let description = describe(&format!("n{n}"), ([127, 0, 0, 1], n.into()).into());
    NewNode { id: id(n), spec: NodeSpec { role, ..NodeSpec::default() }, description }
}

impl Off {
    fn new() -> Self {
        let cluster = ClusterId::from_bytes([7; 32]);
        let went_off = model_time(SystemTime::now() - DAY);
        let made = system_time(went_off) - HOUR;
        let authority = Authority::create(&cluster.to_string(), made).unwrap();
        let spec = ClusterSpec { certificate_expiry: HOUR, ..ClusterSpec::default() };
        let cluster = new_cluster(cluster, &authority, spec, went_off);
        let tokens = cluster.tokens.clone();
        let mut off = Self { state: State::default(), authority, went_off };
        let node = new_node(1, Role::Manager);
        off.write(off.went_off, Command::CreateCluster { cluster: Box::new(cluster), node });
        for (n, role, secret) in
            [(2, Role::Manager, tokens.manager), (3, Role::Worker, tokens.worker)]
        {
            let node = new_node(n, role);
            off.write(off.went_off, Command::AddNode { node, secret });
        }
        off
    }

    fn write(&mut self, now: Time, command: Command) {
        let index = self.state.revision() + 1;
        let proposal = Proposal { request: None, now, commands: vec![command] };
        self.state.apply(index, &proposal).into_result().unwrap();
    }

    /// The certificate that a node had; it has expired.
    fn expired(&self, n: u8) -> Identity {
        let subject = Subject { role: tls::Role::Manager, node_id: id(n).to_string() };
        let issued = system_time(self.went_off) - HOUR / 2;
        self.authority.issue_identity(&subject, HOUR, issued).unwrap()
    }

    /// What the managers with this state take the holder for.
    fn judge(&self, identity: &Identity) -> Result<Caller, Denied> {
        let credential = Credential::of_peer(identity.subject());
        let cluster = self.state.cluster().unwrap().id.to_string();
        let rule = rule_of("/weft.v1.RaftService/Call").unwrap();
        admit(rule, &credential, Some(&cluster), Some(&self.state))
    }
}

#[test]
fn a_manager_signs_for_itself_what_the_others_believe() {
    let off = Off::new();
    let now = SystemTime::now();
    let expired = off.expired(2);
    assert!(!expired.subject().is_valid_at(now));
    let own = sign_own(&off.state, &expired, now).unwrap();
    assert!(own.subject().is_valid_at(now) && own.subject().is_valid_at(now + HOUR / 2));
    assert!(!own.subject().is_valid_at(now + HOUR + Duration::from_secs(1)));
    assert_eq!(off.judge(&own), Ok(Caller::Manager(id(2))));
}

#[test]
fn one_that_was_removed_while_it_was_away_signs_what_nobody_believes() {
    let off = Off::new();
    let own = sign_own(&off.state, &off.expired(2), SystemTime::now()).unwrap();
    // The others removed it the very moment after it had gone, and nothing was written since.
    let mut others = Off { state: off.state.clone(), ..off };
    let spec = NodeSpec { role: Role::Worker, ..NodeSpec::default() };
    let demote = Command::UpdateNode { id: id(2), expect: None, spec };
    others.write(others.went_off, demote);
    let denied = Denied::NotAllowed { caller: "worker", method: "/weft.v1.RaftService/Call" };
    assert_eq!(others.judge(&own), Err(denied));
    others.write(others.went_off, Command::RemoveNode { id: id(2), force: Force::Yes });
    assert_eq!(others.judge(&own), Err(Denied::NotMember { node: id(2).to_string() }));
}

#[test]
fn only_a_manager_of_the_own_state_signs() {
    let off = Off::new();
    let now = SystemTime::now();
    let refused = |expired: &Identity, state: &State| sign_own(state, expired, now).unwrap_err();
    assert!(matches!(refused(&off.expired(3), &off.state), OwnError::NotManager { .. }), "worker");
    assert!(matches!(refused(&off.expired(9), &off.state), OwnError::NotManager { .. }), "nobody");
    assert!(matches!(refused(&off.expired(2), &State::default()), OwnError::NoCluster));
    let other = Off::new();
    assert!(matches!(refused(&other.expired(2), &off.state), OwnError::Certificate(_)));
}
