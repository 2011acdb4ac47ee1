//! What the engine of encrypted networks is told while not everything is known.

use weft_wire::{Config, Node};

use super::Completeness;
use crate::plane::Object;

/// The engine takes one configuration that replaces the last. As long as not everything is known, what it
/// does already is kept in it; `None` for all other objects.
pub(super) fn kept(
    object: &Object,
    old: Option<&Object>,
    completeness: Completeness,
) -> Option<Object> {
    match (object, old, completeness) {
        (Object::Wire(wish), Some(Object::Wire(old)), Completeness::Partial) => {
            Some(Object::Wire(both(wish, old)))
        }
        _ => None,
    }
}

/// All that is wished, and what there is beside it.
fn both(wish: &Config, old: &Config) -> Config {
    // Its own keys it cannot tell.
    let mut all = wish.clone();
    for (number, node) in &old.nodes {
        match all.nodes.get_mut(number) {
            Some(there) => keep_keys(there, node),
            None => drop(all.nodes.insert(*number, node.clone())),
        }
    }
    for (vni, network) in &old.networks {
        let there = all.networks.entry(*vni).or_insert_with(|| network.clone());
        for (mac, member) in &network.members {
            there.members.entry(*mac).or_insert_with(|| member.clone());
        }
    }
    all
}

fn keep_keys(node: &mut Node, old: &Node) {
    for key in &old.identities {
        if node.identities.iter().all(|there| there.address != key.address) {
            node.identities.push(key.clone());
        }
    }
}
