//! What the members of macvlan and ipvlan networks are made on, and that they can be.

use super::Wanted;
use crate::dataplane::{Dataplane, Kind, MacvlanMode, Network, NetworkKey};
use crate::mtu;
use crate::names;
use crate::plane::{Link, LinkKind, Object, Objects, put};

/// The device in the host that a network's members are made on.
pub(super) fn name(key: NetworkKey, network: &Network) -> Option<String> {
    let given = match &network.kind {
        Kind::Macvlan(macvlan) => &macvlan.parent,
        Kind::Ipvlan(ipvlan) => &ipvlan.parent,
        Kind::Overlay(_) | Kind::Bridge(_) | Kind::Ovs(_) => return None,
    };
    let [own, _] = names::stub(key);
    Some(given.clone().unwrap_or(own))
}

/// The 802.1Q sub-interface that is made where it is missing.
pub(super) fn made(network: &Network) -> Option<String> {
    let name = match &network.kind {
        Kind::Macvlan(macvlan) => macvlan.parent.as_ref(),
        Kind::Ipvlan(ipvlan) => ipvlan.parent.as_ref(),
        Kind::Overlay(_) | Kind::Bridge(_) | Kind::Ovs(_) => None,
    };
    name.filter(|name| tagged(name).is_some()).cloned()
}

/// Device and 802.1Q tag of a name such as `eth0.10`; tags are 1 to 4094 (IEEE 802.1Q, 9.6).
fn tagged(name: &str) -> Option<(&str, u16)> {
    let (device, tag) = name.rsplit_once('.')?;
    let tag = tag.parse().ok().filter(|tag| (1..=4094).contains(tag))?;
    (!device.is_empty()).then_some((device, tag))
}

pub(super) fn lower(
    host: &mut Objects,
    wanted: &mut Wanted,
    key: NetworkKey,
    network: &Network,
    dataplane: &Dataplane,
) {
    let members = dataplane.sandboxes.iter();
    let members = members.filter(|(_, sandbox)| sandbox.attachments.contains_key(&key));
    let members: Vec<&String> = members.map(|(member, _)| member).collect();
    let Some(parent) = name(key, network) else { return };
    // The last user takes the device along.
    if members.is_empty() {
        return;
    }
    wanted.users.entry(parent.clone()).or_default().extend(members.into_iter().cloned());
    let link = |kind| Link {
        kind,
        alias: names::alias(&network.id),
        mac: None,
        mtu: mtu::OF_THE_PARENT,
        master: None,
        port: None,
        up: true,
    };
    let [first, second] = names::stub(key);
    if parent == first {
        for (name, peer) in [(&first, &second), (&second, &first)] {
            let stub = link(LinkKind::Stub { peer: peer.clone() });
            let mtu = network.mtu.unwrap_or(mtu::ETHERNET);
            put(host, Object::Link(name.clone(), Link { mtu, ..stub }));
        }
    } else if let Some((device, tag)) = tagged(&parent) {
        let vlan = link(LinkKind::Vlan { parent: device.to_owned(), tag });
        put(host, Object::Link(parent.clone(), vlan));
        wanted.if_missing.insert(parent);
    }
}

/// What a member is inside its sandbox.
pub(super) fn member(key: NetworkKey, network: &Network) -> Option<LinkKind> {
    let parent = name(key, network)?;
    match &network.kind {
        Kind::Macvlan(macvlan) => Some(LinkKind::Macvlan { parent, mode: macvlan.mode }),
        Kind::Ipvlan(ipvlan) => Some(LinkKind::Ipvlan { parent, mode: ipvlan.mode }),
        Kind::Overlay(_) | Kind::Bridge(_) | Kind::Ovs(_) => None,
    }
}

/// Whether the members have MACs of their own; a passthru member has its parent's.
pub(super) fn has_own_mac(network: &Network) -> bool {
    match &network.kind {
        Kind::Overlay(_) | Kind::Bridge(_) | Kind::Ovs(_) => true,
        Kind::Macvlan(macvlan) => macvlan.mode != MacvlanMode::Passthru,
        Kind::Ipvlan(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_tag_is_a_device_and_a_tag() {
        assert_eq!(tagged("eth0.10"), Some(("eth0", 10)));
        assert_eq!(tagged("bond0.1.4094"), Some(("bond0.1", 4094)));
        for name in ["eth0", "eth0.0", "eth0.4095", ".5", "eth0.x"] {
            assert_eq!(tagged(name), None, "{name}");
        }
    }
}
