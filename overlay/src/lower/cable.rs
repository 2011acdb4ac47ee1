//! Wires between two sandboxes.

use super::InnerEnd;
use crate::dataplane::{Cable, CableEnd, Dataplane};
use crate::mtu;
use crate::names;
use crate::plane::{Link, LinkKind, Object, Objects, Setting, put};

/// The cables with an end in a sandbox, if their other end has one too.
pub(super) fn of<'a>(
    key: &'a str,
    dataplane: &'a Dataplane,
) -> impl Iterator<Item = (&'a String, &'a Cable)> {
    let whole =
        |cable: &Cable| cable.ends.iter().all(|end| dataplane.sandboxes.contains_key(&end.sandbox));
    dataplane
        .cables
        .iter()
        .filter(move |(_, cable)| whole(cable) && cable.ends.iter().any(|end| end.sandbox == key))
}

/// The two ends of every cable whose sandboxes are known.
pub(super) fn pairs(dataplane: &Dataplane) -> Vec<(InnerEnd, InnerEnd)> {
    let known = |end: &CableEnd| dataplane.sandboxes.contains_key(&end.sandbox);
    let cables = dataplane.cables.values().filter(|cable| cable.ends.iter().all(known));
    cables
        .map(|cable| {
            let end = |end: &CableEnd| InnerEnd {
                sandbox: end.sandbox.clone(),
                ifname: end.ifname.clone(),
            };
            let mut ends = [end(&cable.ends[0]), end(&cable.ends[1])];
            // The order in which changes are executed: the end that is made comes before the one that is
            // finished.
            ends.sort_by(|a, b| (&a.sandbox, &a.ifname).cmp(&(&b.sandbox, &b.ifname)));
            let [first, second] = ends;
            (first, second)
        })
        .collect()
}

/// The ends inside one sandbox.
pub(super) fn lower(inside: &mut Objects, key: &str, dataplane: &Dataplane) {
    for (name, cable) in of(key, dataplane) {
        for end in cable.ends.iter().filter(|end| end.sandbox == key) {
            put_end(inside, name, end);
        }
    }
}

fn put_end(inside: &mut Objects, name: &str, end: &CableEnd) {
    let mac = names::mac_for(end.addresses.iter().map(|net| net.addr()));
    let link = Link {
        kind: LinkKind::Cable,
        alias: names::cable_alias(name),
        // Without an address nothing tells two ends apart: then the kernel chooses.
        mac: (!end.addresses.is_empty()).then_some(mac),
        mtu: mtu::ETHERNET,
        master: None,
        port: None,
        up: true,
    };
    put(inside, Object::Link(end.ifname.clone(), link));
    for net in &end.addresses {
        put(inside, Object::Address(end.ifname.clone(), *net));
    }
    let path = format!("net/ipv6/conf/{}/accept_ra", end.ifname);
    put(inside, Object::Sysctl(path, Setting::Is("0".to_owned())));
}
