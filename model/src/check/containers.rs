//! What must hold of the containers of a node.

use std::collections::BTreeSet;

use crate::{
    object::{Container, Holder, Wanted},
    spec::NetworkMode,
    state::State,
};

impl State {
    pub(super) fn check_containers(&self, found: &mut Vec<String>) {
        if self.cluster().is_some() && self.containers().next().is_some() {
            found.push("the cluster has containers of one node".to_owned());
        }
        let mut names = BTreeSet::new();
        for container in self.containers() {
            let name = container.spec.name.to_ascii_lowercase();
            if !names.insert(name.clone()) {
                found.push(format!("two containers are named {name}"));
            }
            self.check_endpoints(container, found);
            check_runs(container, found);
        }
        self.check_ports(found);
        self.check_cables(found);
    }

    fn check_endpoints(&self, container: &Container, found: &mut Vec<String>) {
        let name = &container.spec.name;
        let (mut networks, mut devices) = (BTreeSet::new(), BTreeSet::new());
        for endpoint in &container.endpoints {
            if !networks.insert(endpoint.spec.network) {
                found.push(format!("{name} is twice on one network"));
            }
            if !devices.insert(&endpoint.ifname) {
                found.push(format!("{name} has two interfaces {}", endpoint.ifname));
            }
            let attachment = self.attachment(endpoint.attachment);
            let Some(attachment) = attachment.filter(|_| !endpoint.foreign()) else {
                if attachment.is_some() == endpoint.foreign() {
                    found.push(format!("{name} has an endpoint without its attachment"));
                }
                continue;
            };
            let own = attachment.holder == Holder::Container(container.id);
            if !own || attachment.network != endpoint.spec.network {
                found.push(format!("{name} has another's attachment"));
            }
            let asked = &endpoint.spec;
            let missed = asked.addresses.iter().any(|a| !attachment.addresses.contains(a))
                || asked.mac.is_some_and(|mac| mac != attachment.mac);
            if missed {
                found.push(format!("{name} has other addresses than it was promised"));
            }
        }
        if container.spec.network != NetworkMode::Networks && !container.endpoints.is_empty() {
            found.push(format!("{name} is on networks and has no namespace for them"));
        }
    }

    fn check_ports(&self, found: &mut Vec<String>) {
        let mut bound: Vec<(&str, &crate::object::PortBinding)> = Vec::new();
        for container in self.containers() {
            let name = &container.spec.name;
            for port in &container.ports {
                if let Some((other, _)) = bound.iter().find(|(_, other)| other.overlaps(port)) {
                    found.push(format!("{other} and {name} publish at {}", port.host_port));
                }
                bound.push((name, port));
            }
        }
    }
}

fn check_runs(container: &Container, found: &mut Vec<String>) {
    let name = &container.spec.name;
    if container.starts == 0 && (container.wanted == Wanted::Running || container.last.is_some()) {
        found.push(format!("{name} runs or has run, and was never started"));
    }
    if container.last.as_ref().is_some_and(|last| last.start > container.starts) {
        found.push(format!("{name} has ended more often than it was started"));
    }
    if container.starts == 0 && !container.ports.is_empty() {
        found.push(format!("{name} has ports and was never started"));
    }
}
