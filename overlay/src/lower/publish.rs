//! Ports of the host that lead to sandboxes, as elements of maps.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Facts, network, put_all};
use crate::dataplane::{Dataplane, Publish};
use crate::names::{PUBLISHED_MARK, PUBLISHED_PRIORITY, REJOIN_PRIORITY};
use crate::plane::{
    Element, Family, Field, Object, Objects, Rule, RuleAction, RuleMatch, Set, put,
};

pub(super) fn lower(host: &mut Objects, dataplane: &Dataplane, facts: Facts) {
    let mut translates = false;
    for publish in &dataplane.publish {
        match way(publish, dataplane) {
            Way::None => {}
            Way::Proxy => put(host, served(publish)),
            Way::Translation => {
                put(host, translated(publish));
                translates = true;
            }
        }
    }
    if translates && dataplane.host.nftables {
        let families = if facts.no_ipv6 { &[Family::V4][..] } else { &[Family::V4, Family::V6] };
        families.iter().for_each(|family| put_all(host, gate(*family)));
    }
}

/// The addresses that published ports lead to by translation.
pub(super) fn targets(dataplane: &Dataplane) -> BTreeSet<IpAddr> {
    let translated = |publish: &&Publish| matches!(way(publish, dataplane), Way::Translation);
    dataplane.publish.iter().filter(translated).map(|publish| publish.target).collect()
}

/// Who carries a published port.
enum Way {
    /// Nobody, or only the proxy on a loopback address, which no table of ours stands before.
    None,
    /// The proxy, as a program of the host.
    Proxy,
    /// The kernel.
    Translation,
}

fn way(publish: &Publish, dataplane: &Dataplane) -> Way {
    let reachable = dataplane.networks.get(&publish.network).is_some_and(|network| {
        !network.internal && network::bridge(publish.network, network).is_some()
    });
    if !reachable || publish.host.is_loopback() {
        return Way::None;
    }
    let same_family = publish.host.is_ipv4() == publish.target.is_ipv4();
    if same_family && !dataplane.host.respects_firewall { Way::Translation } else { Way::Proxy }
}

fn translated(publish: &Publish) -> Object {
    let set = match (publish.host, publish.host.is_unspecified()) {
        (IpAddr::V4(_), false) => Set::Published4,
        (IpAddr::V6(_), false) => Set::Published6,
        (IpAddr::V4(_), true) => Set::Everywhere4,
        (IpAddr::V6(_), true) => Set::Everywhere6,
    };
    let value = vec![publish.target.into(), Field::Port(publish.port)];
    Object::Element(Element { set, key: binding(publish), value })
}

fn served(publish: &Publish) -> Object {
    let set = match (publish.host, publish.host.is_unspecified()) {
        (IpAddr::V4(_), false) => Set::Served4,
        (IpAddr::V6(_), false) => Set::Served6,
        (IpAddr::V4(_), true) => Set::ServedEverywhere4,
        (IpAddr::V6(_), true) => Set::ServedEverywhere6,
    };
    Object::Element(Element { set, key: binding(publish), value: vec![] })
}

/// What a packet to a published port looks like.
fn binding(publish: &Publish) -> Vec<Field> {
    let address = (!publish.host.is_unspecified()).then(|| publish.host.into());
    let port = [Field::Protocol(publish.protocol.number()), Field::Port(publish.host_port)];
    address.into_iter().chain(port).collect()
}

/// The way past the walls for what was translated: around the rules of every bridge, and on after them.
fn gate(family: Family) -> [Object; 2] {
    let past = Rule {
        family,
        priority: PUBLISHED_PRIORITY,
        on: RuleMatch::Mark(PUBLISHED_MARK),
        action: RuleAction::Goto(REJOIN_PRIORITY),
    };
    let rejoin =
        Rule { family, priority: REJOIN_PRIORITY, on: RuleMatch::All, action: RuleAction::Nop };
    [Object::Rule(past), Object::Rule(rejoin)]
}
