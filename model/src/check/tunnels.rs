//! The invariants of the encrypted links' keys.

use std::collections::BTreeSet;

use crate::{
    object::Node,
    state::State,
    tunnel::{LANES_MAX, Rotation, Tunnel, tunnel_address},
};

impl State {
    pub(super) fn check_tunnels(&self, found: &mut Vec<String>) {
        let (mut keys, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for node in self.nodes() {
            let Some(tunnel) = &node.tunnel else { continue };
            let name = &node.description.hostname;
            for key in tunnel.keys() {
                if !keys.insert(key.public) {
                    found.push(format!("{:?} of {name} is known of another", key.public));
                }
                let address = tunnel_address(node.number, key.generation);
                if address.is_some_and(|address| !addresses.insert(address)) {
                    found.push(format!("two keys have the address {address:?} of {name}"));
                }
            }
            self.check_tunnel(node, tunnel, found);
        }
    }

    fn check_tunnel(&self, node: &Node, tunnel: &Tunnel, found: &mut Vec<String>) {
        let name = &node.description.hostname;
        let current = tunnel.current.generation;
        if current == 0 {
            found.push(format!("{name} has a key of no generation"));
        }
        if tunnel.lanes == 0 || tunnel.lanes > LANES_MAX {
            found.push(format!("{name} has {} lanes", tunnel.lanes));
        }
        let (follows, at) = match tunnel.rotation {
            Rotation::Idle | Rotation::Wanted => (true, 0),
            Rotation::Distributed { next, at } => (next.generation == current + 1, at),
            Rotation::Switched { former, at } => (former.generation + 1 == current, at),
        };
        if !follows {
            found.push(format!("{name} has two keys that do not follow each other: {tunnel:?}"));
        }
        if at > self.revision() || tunnel.since > self.now() {
            found.push(format!("{name} has a key of a time to come: {tunnel:?}"));
        }
    }
}
