//! What a node has once, however many networks: tables, the guard of the VXLAN port, kernel parameters.

use std::net::IpAddr;

use super::Facts;
use crate::dataplane::{Dataplane, Kind, Overlay, Underlay};
use crate::plane::{Element, Family, Field, Integrity, Object, Objects, Set, Setting, Table, put};

/// Neighbour table limits never go below the kernel's own defaults (128, 512, 1024).
const GC_THRESH: [u64; 3] = [128, 512, 1024];

pub(super) fn lower(host: &mut Objects, dataplane: &Dataplane, facts: Facts) {
    put(host, Object::Table(Table::Host, Integrity::Intact));
    put(host, Object::Table(Table::Bridge, Integrity::Intact));
    if let Some(underlay) = &dataplane.underlay {
        guard(host, underlay);
    }
    forwarding(host, dataplane);
    neighbour_limits(host, dataplane);
    for (there, family) in [(facts.passage4, Family::V4), (facts.passage6, Family::V6)] {
        if there {
            put(host, Object::Passage(family));
        }
    }
    if !facts.foreign_forward {
        // Only where nobody filters forwarded packets: Docker and Kubernetes rely on the value 1.
        for path in ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"] {
            put(host, setting(path, "0"));
        }
    }
}

/// Frames arrive on the VXLAN port from members only; a VXLAN socket listens on every address.
fn guard(host: &mut Objects, underlay: &Underlay) {
    put(host, element(Set::Vxlan, vec![Field::Port(underlay.port)]));
    for member in &underlay.members {
        let set = match member {
            IpAddr::V4(_) => Set::Members4,
            IpAddr::V6(_) => Set::Members6,
        };
        put(host, element(set, vec![(*member).into()]));
    }
}

fn forwarding(host: &mut Objects, dataplane: &Dataplane) {
    if !dataplane.host.ip_forward {
        return;
    }
    let has = |v6: bool| {
        let routed =
            |kind: &Kind| matches!(kind, Kind::Overlay(_) | Kind::Bridge(_) | Kind::Ovs(_));
        let networks = dataplane.networks.values().filter(|network| routed(&network.kind));
        let mut subnets = networks.flat_map(|network| &network.subnets);
        subnets.any(|subnet| subnet.gateway.is_ipv6() == v6)
    };
    if has(false) {
        put(host, setting("net/ipv4/ip_forward", "1"));
    }
    if has(true) {
        put(host, setting("net/ipv6/conf/all/forwarding", "1"));
    }
}

/// Room for every remote attachment and every local one, twice over, on top of the kernel's defaults.
fn neighbour_limits(host: &mut Objects, dataplane: &Dataplane) {
    let overlays = dataplane.networks.values().filter_map(|network| network.kind.overlay());
    let remotes: usize = overlays.map(Overlay::remotes).sum();
    let locals: usize = dataplane.sandboxes.values().map(|sandbox| sandbox.attachments.len()).sum();
    let rows = 2 * (remotes + locals) as u64;
    for family in ["ipv4", "ipv6"] {
        for (number, default) in (1..).zip(GC_THRESH) {
            let path = format!("net/{family}/neigh/default/gc_thresh{number}");
            put(host, Object::Sysctl(path, Setting::AtLeast(default + rows)));
        }
    }
}

fn setting(path: &str, value: &str) -> Object {
    Object::Sysctl(path.to_owned(), Setting::Is(value.to_owned()))
}

fn element(set: Set, key: Vec<Field>) -> Object {
    Object::Element(Element { set, key, value: vec![] })
}
