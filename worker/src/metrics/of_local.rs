//! How the addresses of networks are used: the node's own, and on managers the cluster's.

use weft_model::{State, object::Subnet};

use super::family::{Family, Labels, SERIES_MAX, gauges};

/// Addresses of every subnet in a state: those in use, and all that can be given out. `scope` tells the
/// cluster's networks from a node's own.
pub fn address_use(state: &State, scope: &'static str) -> [Vec<(Labels, f64)>; 2] {
    let networks = state.networks();
    let subnets = networks.flat_map(|network| network.subnets.iter().map(move |s| (network, s)));
    // Counting the members of one network goes over those of all: no more than are shown.
    let (mut used, mut usable) = (Vec::new(), Vec::new());
    for (network, subnet) in subnets.take(SERIES_MAX) {
        let found = state.address_use(network, subnet);
        let labels = labels(&network.id.to_string(), &network.spec.name, subnet, scope);
        used.push((labels.clone(), (found.size - found.free().min(found.size)) as f64));
        usable.push((labels, found.size as f64));
    }
    [used, usable]
}

fn labels(id: &str, name: &str, subnet: &Subnet, scope: &str) -> Labels {
    vec![
        ("network_id", id.to_owned()),
        ("network", name.to_owned()),
        ("subnet", subnet.cidr.to_string()),
        ("scope", scope.to_owned()),
    ]
}

/// The same as metrics, for the node's own networks.
pub(super) fn families(state: Option<&State>) -> Vec<Family> {
    let [used, usable] = state.map(|state| address_use(state, "local")).unwrap_or_default();
    vec![
        gauges("local_addresses_used", "Addresses of this node's own networks that are held", used),
        gauges(
            "local_addresses_usable",
            "Addresses of this node's own networks that there are",
            usable,
        ),
    ]
}
