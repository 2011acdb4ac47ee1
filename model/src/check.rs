//! The invariants of the state, written without looking at how commands are applied.

mod cables;
mod containers;
mod tunnels;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use weft_ipam::{overlaps, vni};

use crate::{
    id::NetworkId,
    object::{Holder, NodeState},
    spec::{Driver, Scope},
    state::State,
    task_state::TaskState,
};

/// An invariant that does not hold, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl State {
    /// Every invariant that does not hold; empty for any state that commands led to.
    pub fn check(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        self.check_networks(&mut found);
        self.check_addresses_held(&mut found);
        self.check_attachments(&mut found);
        self.check_foreigners(&mut found);
        self.check_tasks(&mut found);
        self.check_names(&mut found);
        self.check_nodes(&mut found);
        self.check_tunnels(&mut found);
        self.check_containers(&mut found);
        found.into_iter().map(Violation).collect()
    }

    fn check_networks(&self, found: &mut Vec<String>) {
        let mut vnis = BTreeSet::new();
        let mut subnets = Vec::new();
        for network in self.networks() {
            if let Some(vni) = network.vni {
                if !vnis.insert(vni) {
                    found.push(format!("two networks have VNI {vni}"));
                }
                if !(vni::FIRST..=vni::LAST).contains(&vni) {
                    found.push(format!("VNI {vni} is out of range"));
                }
            }
            let name = &network.spec.name;
            if (network.spec.scope() == Scope::Cluster) != self.cluster().is_some() {
                found.push(format!("network {name} is in the wrong state"));
            }
            let driver = network.spec.driver;
            let shared = matches!(driver, Driver::Overlay | Driver::Macvlan | Driver::Ipvlan);
            if self.cluster().is_some() && !shared {
                found.push(format!("network {name} of driver {} is shared", driver.word()));
            }
            if network.vni.is_some() != (driver == Driver::Overlay) {
                found.push(format!("network {name} is no overlay and has a VNI, or lacks one"));
            }
            for subnet in &network.subnets {
                if subnets.iter().any(|other| overlaps(*other, subnet.cidr)) {
                    found.push(format!("subnet {} overlaps another", subnet.cidr));
                }
                subnets.push(subnet.cidr);
            }
        }
    }

    fn check_addresses_held(&self, found: &mut Vec<String>) {
        let mut holders: BTreeMap<(NetworkId, IpAddr), String> = BTreeMap::new();
        let attached = self.attachments().flat_map(|attachment| {
            let holder = format!("{:?}", attachment.holder);
            let network = attachment.network;
            attachment.addresses.iter().map(move |ip| (network, *ip, holder.clone()))
        });
        let vips = self.services().flat_map(|service| {
            let holder = format!("service {}", service.spec.name);
            service.vips.iter().flat_map(move |(network, addresses)| {
                let holder = holder.clone();
                addresses.iter().map(move |ip| (*network, *ip, holder.clone()))
            })
        });
        for (network, address, holder) in attached.chain(vips) {
            if let Some(other) = holders.insert((network, address), holder.clone()) {
                found.push(format!("{address} is held by {other} and {holder}"));
            }
            let Some(network) = self.network(network) else {
                found.push(format!("{holder} is on a network that is gone"));
                continue;
            };
            let subnet = network.subnets.iter().find(|s| s.cidr.contains(&address));
            let Some(subnet) = subnet else {
                found.push(format!("{address} lies in no subnet of {}", network.spec.name));
                continue;
            };
            let special = address == subnet.cidr.network()
                || address == subnet.gateway
                || (address.is_ipv4() && address == subnet.cidr.broadcast())
                || subnet.auxiliary.values().any(|aux| *aux == address)
                || !subnet.range.contains(&address);
            if special {
                found.push(format!("{address} may not be given out on {}", network.spec.name));
            }
            if subnet.resting.contains_key(&address) {
                found.push(format!("{address} is held and rests"));
            }
        }
    }

    fn check_attachments(&self, found: &mut Vec<String>) {
        let mut macs = BTreeSet::new();
        for attachment in self.attachments() {
            if !macs.insert((attachment.network, attachment.mac)) {
                found.push(format!("two attachments have MAC {:?}", attachment.mac));
            }
            let held_at = match attachment.holder {
                Holder::Task(task) => self
                    .task(task)
                    .filter(|task| task.attachments.contains(&attachment.id))
                    .map(|task| task.node),
                Holder::Foreign(id) => self
                    .foreign(id)
                    .filter(|foreign| id == attachment.id && foreign.network == attachment.network)
                    .map(|foreign| Some(foreign.node)),
                Holder::Container(id) => self
                    .container(id)
                    .filter(|container| {
                        container.endpoints.iter().any(|endpoint| {
                            endpoint.attachment == attachment.id
                                && endpoint.spec.network == attachment.network
                        })
                    })
                    .map(|_| None),
            };
            let known = |node| self.node(node).is_some() || self.removed_node(node).is_some();
            if attachment.node.is_some_and(|node| !known(node)) {
                found.push(format!("attachment {:?} is on a node that is gone", attachment.id));
            }
            match held_at {
                Some(node) if node == attachment.node => {}
                Some(_) => found.push(format!("{:?} and its holder differ in node", attachment.id)),
                None => found.push(format!("attachment {:?} has no holder", attachment.id)),
            }
        }
    }

    fn check_foreigners(&self, found: &mut Vec<String>) {
        let mut names = BTreeSet::new();
        for foreign in self.foreigners() {
            let name = foreign.name.to_ascii_lowercase();
            let attachment = self.attachment(foreign.id);
            if attachment.is_none_or(|a| a.holder != Holder::Foreign(foreign.id)) {
                found.push(format!("{name} has no attachment"));
            }
            if self.node(foreign.node).is_none() && self.removed_node(foreign.node).is_none() {
                found.push(format!("{name} is on a node that is gone"));
            }
            if foreign.service.is_some_and(|service| self.service(service).is_none()) {
                found.push(format!("{name} answers for a service that is gone"));
            }
            if self.network(foreign.network).is_some_and(|network| !network.spec.attachable) {
                found.push(format!("{name} is on a network that is not attachable"));
            }
            let service = self.services().find(|service| {
                service.spec.name.eq_ignore_ascii_case(&name)
                    && service.spec.networks.iter().any(|usage| usage.network == foreign.network)
            });
            if !names.insert((foreign.network, name.clone())) || service.is_some() {
                found.push(format!("two members of a network are named {name}"));
            }
        }
    }

    fn check_tasks(&self, found: &mut Vec<String>) {
        for task in self.tasks() {
            let name = task.name();
            if task.attachments.iter().any(|id| self.attachment(*id).is_none()) {
                found.push(format!("{name} lacks an attachment"));
            }
            if task.node.is_some() && task.status.state < TaskState::Assigned {
                found.push(format!("{name} has a node and is {}", task.status.state));
            }
            let alive = !task.status.state.is_final();
            if alive && task.node.is_some_and(|node| self.node(node).is_none()) {
                found.push(format!("{name} is on a node that is gone"));
            }
            if alive && task.node.is_some() && task.released {
                found.push(format!("{name} is released and {}", task.status.state));
            }
            if task.released && !task.attachments.is_empty() && task.node.is_some() {
                found.push(format!("{name} is released and holds addresses"));
            }
            let placed = task.status.state >= TaskState::Pending && alive;
            if placed && task.attachments.len() != task.networks.len() {
                found.push(format!("{name} is {} without its addresses", task.status.state));
            }
        }
    }

    fn check_names(&self, found: &mut Vec<String>) {
        let mut names = BTreeSet::new();
        let services = self.services().map(|s| ("service", s.spec.name.to_ascii_lowercase()));
        let networks = self.networks().map(|n| ("network", n.spec.name.to_ascii_lowercase()));
        for name in services.chain(networks) {
            if !names.insert(name.clone()) {
                found.push(format!("two of {} {}", name.0, name.1));
            }
        }
    }

    fn check_nodes(&self, found: &mut Vec<String>) {
        let next = self.cluster().map_or(0, |cluster| cluster.next_number);
        let mut numbers = BTreeSet::new();
        let mut vteps = BTreeSet::new();
        for node in self.nodes() {
            if !numbers.insert(node.number) || node.number >= next {
                found.push(format!("number {} is not a node's own", node.number));
            }
            if !vteps.insert(node.description.data_path) {
                found.push(format!("two nodes have VTEP {}", node.description.data_path));
            }
            if node.left && node.state != NodeState::Down {
                found.push(format!("{} has left and is not down", node.description.hostname));
            }
        }
        for node in self.removed_nodes() {
            if self.node(node.id).is_some() {
                found.push(format!("{} is a member and removed", node.hostname));
            }
            if self.tasks_on(node.id).any(|task| !task.status.state.is_final()) {
                found.push(format!("a task on {} is not over", node.hostname));
            }
        }
    }
}
