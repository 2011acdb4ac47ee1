//! What must hold of the direct links between containers of a node.

use std::collections::BTreeSet;

use crate::{object::Container, spec::NetworkMode, state::State};

impl State {
    pub(super) fn check_cables(&self, found: &mut Vec<String>) {
        let mut subnets: Vec<ipnet::IpNet> = Vec::new();
        for cable in self.cables() {
            let id = cable.id.short();
            let [one, other] = &cable.ends;
            if one.container == other.container {
                found.push(format!("link {id} has both ends in one container"));
            }
            let subnet = one.address.trunc();
            if one.address == other.address || subnet != other.address.trunc() {
                found.push(format!("link {id} does not reach its other end"));
            }
            let overlaps = |known: &ipnet::IpNet| known.contains(&subnet) || subnet.contains(known);
            if subnets.iter().any(overlaps) {
                found.push(format!("link {id} has addresses of another"));
            }
            subnets.push(subnet);
            for end in &cable.ends {
                let own = |c: &Container| {
                    matches!(c.spec.network, NetworkMode::Networks | NetworkMode::None)
                };
                if !self.container(end.container).is_some_and(|container| own(container)) {
                    found.push(format!("link {id} ends in no container with a namespace"));
                }
            }
        }
        for container in self.containers() {
            let mut devices: BTreeSet<_> =
                container.endpoints.iter().map(|endpoint| &endpoint.ifname).collect();
            let ends = self.cables().flat_map(|cable| &cable.ends);
            for end in ends.filter(|end| end.container == container.id) {
                if !devices.insert(&end.ifname) {
                    let name = &container.spec.name;
                    found.push(format!("{name} has two interfaces {}", end.ifname));
                }
            }
        }
    }
}
