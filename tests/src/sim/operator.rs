//! Who looks after the machines: promotes and demotes, drains and activates, rotates keys, and replaces
//! machines by new ones at the same address, one after the other.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::RngExt as _;
use weft_model::spec::{Availability, Role};
use weft_proto::v1::{self, RemoveNodeRequest, UpdateNodeRequest};

use super::{
    HOSTS, MANAGERS,
    book::NodeEntry,
    caller::{Caller, Outcome, RETRY},
    chaos::Fault,
    clock::millis,
    daemon::{Slots, host_name},
    home::Home,
    net::HostId,
    request::Call,
};

/// Longest pause between two operations.
const PAUSE: Duration = Duration::from_millis(1_500);
/// Most machines that are managers at a time.
const MANAGERS_MAX: usize = 5;
/// Most machines that take no tasks at a time.
const DRAINED_MAX: usize = 3;
/// How long the voters may take to be the managers before something else is done.
const SETTLING: Duration = Duration::from_secs(6);
/// Longest time between the end of a machine and the start of the one in its place.
const REPLACING: u64 = 3_000;

/// What is to be done to machines, in order.
#[derive(Clone, Default)]
pub(super) struct Orders(Arc<Mutex<VecDeque<Fault>>>);

impl Orders {
    fn give(&self, order: Fault) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(order);
    }

    /// Takes the oldest out.
    pub(super) fn take(&self) -> Option<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// See the module.
pub(super) struct Operator {
    pub(super) caller: Caller,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) orders: Orders,
    /// Of all hosts, in order.
    pub(super) machines: Vec<(Home, Slots)>,
}

impl Operator {
    /// Goes on until it is told to stop; the last operation is brought to its end.
    pub(super) async fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let pause = self.caller.random.random_range(0..millis(PAUSE));
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.next().await;
        }
        self.caller.note("makes no more calls");
    }

    async fn next(&mut self) {
        let nodes = self.caller.book.entries().nodes;
        let host = self.caller.random.random_range(1..=HOSTS);
        let node = nodes[&host];
        let managers = nodes.values().filter(|node| node.role == Role::Manager).count();
        let drained =
            nodes.values().filter(|node| node.availability == Availability::Drain).count();
        let may_demote = managers > usize::from(MANAGERS);
        match (self.caller.random.random_range(0..10), node.role, node.availability) {
            (0..=3, Role::Worker, _) if managers < MANAGERS_MAX => {
                self.set_role(host, Role::Manager).await;
            }
            (0..=3, Role::Manager, _) if may_demote => self.set_role(host, Role::Worker).await,
            (4..=7, _, Availability::Active) if drained < DRAINED_MAX => {
                self.set_availability(host, Availability::Drain).await;
            }
            (4..=7, _, Availability::Drain) => {
                self.set_availability(host, Availability::Active).await;
            }
            (8 | 9, Role::Worker, _) => self.replace(host, node).await,
            (8 | 9, Role::Manager, _) if may_demote => self.replace_manager(host, node).await,
            _ => self.caller.rotate_key(host, node.node).await,
        }
    }

    async fn set_role(&mut self, host: HostId, role: Role) {
        let what = match role {
            Role::Manager => "promote",
            Role::Worker => "demote",
        };
        let wire = match role {
            Role::Manager => v1::Role::Manager,
            Role::Worker => v1::Role::Worker,
        };
        let change = UpdateNodeRequest { role: Some(wire.into()), ..Default::default() };
        self.update(host, what, change).await;
        self.write_down(host, |node| node.role = role);
    }

    async fn set_availability(&mut self, host: HostId, availability: Availability) {
        let (what, wire) = match availability {
            Availability::Drain => ("drain", v1::Availability::Drain),
            Availability::Active | Availability::Pause => ("activate", v1::Availability::Active),
        };
        let change = UpdateNodeRequest { availability: Some(wire.into()), ..Default::default() };
        self.update(host, what, change).await;
        self.write_down(host, |node| node.availability = availability);
    }

    fn write_down(&self, host: HostId, change: impl FnOnce(&mut NodeEntry)) {
        if let Some(node) = self.caller.book.lock().nodes.get_mut(&host) {
            change(node);
        }
    }

    /// Under one name until it is done: what is refused now is taken later.
    async fn update(&mut self, host: HostId, what: &str, change: UpdateNodeRequest) {
        let what = format!("{what} {}", host_name(host));
        let node = self.caller.book.entries().nodes[&host].node.to_string();
        let request = self.caller.request();
        let call = |request_id| {
            Call::UpdateNode(UpdateNodeRequest { node: node.clone(), request_id, ..change.clone() })
        };
        while let Outcome::Refused { .. } = self.caller.call_as(request.clone(), &what, call).await
        {
            tokio::time::sleep(RETRY).await;
        }
    }

    /// A manager is demoted before its machine goes, or after; with the others as many as they seem.
    async fn replace_manager(&mut self, host: HostId, node: NodeEntry) {
        let before = self.caller.random.random();
        if before {
            self.set_role(host, Role::Worker).await;
        }
        if self.voters_are_managers().await {
            if before {
                self.replace(host, node).await;
            } else {
                self.orders.give(Fault::Wipe(host));
                self.set_role(host, Role::Worker).await;
                self.succeed(host, node).await;
            }
        }
    }

    /// Another machine takes the place of one that is lost, at its address.
    async fn replace(&mut self, host: HostId, node: NodeEntry) {
        self.orders.give(Fault::Wipe(host));
        self.succeed(host, node).await;
    }

    async fn succeed(&mut self, host: HostId, node: NodeEntry) {
        self.caller.note(format!("replace {}", host_name(host)));
        let pause = self.caller.random.random_range(0..REPLACING);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        // Without that the newcomer waits until the cluster has missed the other for long enough.
        if self.caller.random.random() {
            self.remove(host, node).await;
        }
        self.orders.give(Fault::Start(host));
        let (home, _) = &self.machines[usize::from(host) - 1];
        let newcomer = loop {
            match home.member().filter(|member| member.node != node.node) {
                Some(member) => break member.node,
                None => tokio::time::sleep(RETRY).await,
            }
        };
        let availability = Availability::Active;
        self.write_down(host, |entry| {
            *entry = NodeEntry { node: newcomer, role: Role::Worker, availability };
        });
        self.caller.note(format!("{} is replaced", host_name(host)));
    }

    async fn remove(&mut self, host: HostId, node: NodeEntry) {
        let what = format!("remove node {}", host_name(host));
        let node = node.node.to_string();
        let call = |request_id| {
            Call::RemoveNode(RemoveNodeRequest { node: node.clone(), force: true, request_id })
        };
        // It is refused if the newcomer was quicker, and has put it out.
        let _ = self.caller.call(&what, call).await;
    }

    /// Waits until the members of Raft are the managers, as an administrator sees in the list.
    async fn voters_are_managers(&self) -> bool {
        let settled = async {
            while !self.is_settled() {
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::time::timeout(SETTLING, settled).await.is_ok()
    }

    fn is_settled(&self) -> bool {
        let managers = self.machines.iter().filter_map(|(_, slots)| slots.manager.load_full());
        let Some(leader) = managers.into_iter().find(|manager| manager.is_leader()) else {
            return false;
        };
        let voters = leader.store().voters();
        let voters: BTreeSet<u64> = voters.iter().map(|voter| voter.number).collect();
        let state = leader.view();
        let wanted = state.nodes().filter(|node| node.spec.role == Role::Manager);
        voters == wanted.map(|node| node.number).collect()
    }
}
