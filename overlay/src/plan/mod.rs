//! The difference between what is wanted and what was seen, as ordered operations. Pure.
//!
//! Removals come first, dependants before what they rest on; then additions the other way round. The
//! consequences of removing a link are known here (its rows and addresses go along), so that one plan is
//! enough to repair anything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::dataplane::Protocol;
use crate::lower::{InnerEnd, Wanted};
use crate::names::ALIAS_PREFIX;
use crate::op::{Op, Verb, satisfies};
use crate::plane::{
    self, Element, Field, Key, Link, LinkKind, LinkOrder, Object, Objects, Peer, Place, Plane, Set,
    Table,
};

mod wire;

#[cfg(test)]
mod tests;

/// Whether the wanted plane is all there should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// Everything: what is ours and not wanted is removed.
    Complete,
    /// Perhaps not everything, as before the first word of a manager: nothing unknown is removed.
    Partial,
}

/// Plans the way from `observed` to `wanted`. Places that were not observed are left alone.
pub fn plan(wanted: &Wanted, observed: Plane, completeness: Completeness) -> Vec<Op> {
    let nothing = Objects::new();
    let mut removals = Vec::new();
    let mut changes = Vec::new();
    for (place, seen) in &observed.places {
        let want = wanted.plane.places.get(place).unwrap_or(&nothing);
        changes.extend(departed(place, want, seen, completeness));
        changes.extend(rebound(place, want, seen, completeness));
    }
    let mut world = observed;
    leave_tunnel(&mut world, wanted, completeness);
    let lent = lent(&world, wanted);
    ignore_unmarked(&mut world, wanted);
    break_links(&mut world, wanted, completeness, &mut removals);
    for (place, seen) in &world.places {
        let want = wanted.plane.places.get(place).unwrap_or(&nothing);
        let lent = |key: &Key| match key {
            Key::Link(_, name) => *place == Place::Host && lent.contains(name),
            _ => false,
        };
        let missing = missing_tables(want, seen);
        let gone =
            |key: &Key| matches!(key, Key::Element(set, _) if missing.contains(&set.table()));
        if completeness == Completeness::Complete {
            let extra = seen.iter().filter(|(key, _)| !want.contains_key(key) && !gone(key));
            removals.extend(extra.filter_map(|(_, object)| removal(place, object, want)));
        }
        for (key, object) in want.iter().filter(|(key, _)| !lent(key)) {
            let old = seen.get(key).filter(|_| !gone(key));
            let kept = wire::kept(object, old, completeness);
            let object = kept.as_ref().unwrap_or(object);
            change(place, object, old, wanted, &world, &mut removals, &mut changes);
        }
    }
    drop_unsupported(&mut changes, &world, wanted);
    removals.sort_by(|a, b| b.object.key().cmp(&a.object.key()).then(a.place.cmp(&b.place)));
    changes.sort_by(|a, b| rank(&a.object).cmp(&rank(&b.object)).then(a.place.cmp(&b.place)));
    removals.into_iter().chain(changes).collect()
}

/// What is in the tunnel's namespace goes with it, but for its devices: somebody may hold it open, and they
/// hold ports of the host.
fn leave_tunnel(world: &mut Plane, wanted: &Wanted, completeness: Completeness) {
    let host = wanted.plane.places.get(&Place::Host);
    let stays = host.is_some_and(|host| host.contains_key(&Key::Namespace));
    if let Some(inside) = world.places.get_mut(&Place::Tunnel).filter(|_| !stays)
        && completeness == Completeness::Complete
    {
        inside.retain(|_, object| matches!(object, Object::Link(..)));
    }
}

/// Drops what would rest on a link that neither is there nor is made: a veth that waits for its sandbox.
fn drop_unsupported(changes: &mut Vec<Op>, world: &Plane, wanted: &Wanted) {
    let made: BTreeSet<(Place, String)> = changes
        .iter()
        .filter_map(|op| match &op.object {
            Object::Link(name, _) => Some((op.place.clone(), name.clone())),
            _ => None,
        })
        .collect();
    changes.retain(|op| {
        op.object.links().into_iter().all(|name| {
            let there = world.places.get(&op.place).is_some_and(|w| plane::link(w, name).is_some());
            there
                || made.contains(&(op.place.clone(), name.to_owned()))
                || wanted.borrowed.contains(name)
        })
    });
}

/// Additions are grouped by what they are, then by place: the executor sends each group at once.
fn rank(object: &Object) -> (u8, Option<LinkOrder>) {
    match object {
        Object::Namespace => (0, None),
        Object::Table(..) => (1, None),
        Object::Element(_) => (2, None),
        Object::Passage(_) | Object::Rule(_) => (3, None),
        Object::Barrier { .. } => (4, None),
        Object::Switch { .. } => (5, None),
        Object::Link(_, link) => (6, Some(link.kind.order())),
        Object::SwitchPort { .. } => (7, None),
        Object::Secret { .. } => (8, None),
        Object::Peer(_) => (9, None),
        Object::Sysctl(..) => (10, None),
        Object::Address(..) => (11, None),
        Object::Fdb(_) => (12, None),
        Object::Neighbour { .. } => (13, None),
        Object::Route { .. } => (14, None),
        Object::Wire(_) => (15, None),
        Object::Flows { .. } | Object::Datagrams { .. } => (16, None),
    }
}

/// Forgets links that carry our kind of name but not our mark, and what rests on them: they are somebody
/// else's. Wanting one of that name ends in `EEXIST`, which is reported. Of a borrowed one what we have put
/// on it is ours still.
fn ignore_unmarked(world: &mut Plane, wanted: &Wanted) {
    for (place, objects) in &mut world.places {
        let strange: Vec<String> = objects
            .values()
            .filter_map(|object| match object {
                Object::Link(name, link) => {
                    let ours =
                        link.kind == LinkKind::Loopback || link.alias.starts_with(ALIAS_PREFIX);
                    (!ours).then(|| name.clone())
                }
                _ => None,
            })
            .collect();
        for name in strange {
            if *place == Place::Host && wanted.borrowed.contains(&name) {
                objects.retain(|_, object| !is_owners(object, &name));
            } else {
                plane::remove_link(objects, &name);
            }
        }
    }
}

/// Links that are wanted where they are missing, and are there as somebody else's.
fn lent(world: &Plane, wanted: &Wanted) -> BTreeSet<String> {
    let host = world.places.get(&Place::Host);
    let strange = |name: &&String| {
        let link = host.and_then(|host| plane::link(host, name));
        link.is_some_and(|link| !link.alias.starts_with(ALIAS_PREFIX))
    };
    wanted.if_missing.iter().filter(strange).cloned().collect()
}

/// Whether an object is a borrowed link, or what its owner has put on it.
fn is_owners(object: &Object, borrowed: &str) -> bool {
    match object {
        Object::Link(name, _)
        | Object::Address(name, _)
        | Object::Neighbour { link: name, .. }
        | Object::Route { link: name, .. } => name == borrowed,
        Object::Fdb(_)
        | Object::Namespace
        | Object::Table(..)
        | Object::Element(_)
        | Object::Passage(_)
        | Object::Rule(_)
        | Object::Barrier { .. }
        | Object::Switch { .. }
        | Object::SwitchPort { .. }
        | Object::Secret { .. }
        | Object::Peer(_)
        | Object::Wire(_)
        | Object::Sysctl(..)
        | Object::Flows { .. }
        | Object::Datagrams { .. } => false,
    }
}

/// Plans the removal of links that are unwanted or of the wrong kind, and applies what follows from it.
fn break_links(world: &mut Plane, wanted: &Wanted, completeness: Completeness, ops: &mut Vec<Op>) {
    let mut doomed: BTreeSet<(Place, String)> = BTreeSet::new();
    for (place, objects) in &world.places {
        let want = wanted.plane.places.get(place);
        for object in objects.values() {
            let Object::Link(name, link) = object else { continue };
            let wish = want.and_then(|want| plane::link(want, name));
            let wrong = wish.is_some_and(|wish| wish.kind != link.kind);
            let unwanted = wish.is_none() && completeness == Completeness::Complete;
            if link.kind != LinkKind::Loopback && (wrong || unwanted) {
                doomed.insert((place.clone(), name.clone()));
            }
        }
    }
    doomed.extend(widowed(world, wanted));
    doomed.extend(cut(world, wanted, &doomed));
    for (outer, end) in &wanted.pairs {
        if doomed.contains(&(Place::Sandbox(end.sandbox.clone()), end.ifname.clone())) {
            doomed.insert((Place::Host, outer.clone()));
        }
    }
    for (place, name) in doomed {
        let Some(objects) = world.places.get_mut(&place) else { continue };
        let Some(link) = plane::link(objects, &name).cloned() else { continue };
        // A port whose link is made anew goes first, or it keeps what it knew of the old one.
        ops.extend(
            objects
                .get(&Key::SwitchPort(name.clone()))
                .map(|port| Op::remove(place.clone(), port.clone())),
        );
        plane::remove_link(objects, &name);
        // It goes with its switch.
        if link.kind == LinkKind::Internal {
            continue;
        }
        if let LinkKind::Stub { peer } = &link.kind {
            plane::remove_link(objects, peer);
        }
        if let Some(end) = wanted.pairs.get(&name).filter(|_| place == Place::Host)
            && let Some(inside) = world.places.get_mut(&Place::Sandbox(end.sandbox.clone()))
        {
            plane::remove_link(inside, &end.ifname);
        }
        if link.kind == LinkKind::Cable {
            remove_cable(world, &link.alias);
        }
        ops.push(Op::remove(place, Object::Link(name, link)));
    }
}

/// Both ends of a cable go together, wherever they are.
fn remove_cable(world: &mut Plane, alias: &str) {
    for objects in world.places.values_mut() {
        let ends: Vec<String> = objects
            .values()
            .filter_map(|object| match object {
                Object::Link(name, link) if link.kind == LinkKind::Cable && link.alias == alias => {
                    Some(name.clone())
                }
                _ => None,
            })
            .collect();
        ends.iter().for_each(|name| plane::remove_link(objects, name));
    }
}

/// Outer ends whose inner end is not where it should be: the pair is made anew.
fn widowed(world: &Plane, wanted: &Wanted) -> Vec<(Place, String)> {
    let host = world.places.get(&Place::Host);
    let widow = |outer: &String, sandbox: &String, ifname: &String| {
        let inside = world.places.get(&Place::Sandbox(sandbox.clone()))?;
        let there = plane::link(host?, outer).is_some();
        (there && plane::link(inside, ifname).is_none()).then(|| (Place::Host, outer.clone()))
    };
    let pairs = wanted.pairs.iter();
    pairs.filter_map(|(outer, end)| widow(outer, &end.sandbox, &end.ifname)).collect()
}

/// Ends of cables whose other end is not where it should be: the cable is made anew.
fn cut(world: &Plane, wanted: &Wanted, doomed: &BTreeSet<(Place, String)>) -> Vec<(Place, String)> {
    let end = |end: &InnerEnd| (Place::Sandbox(end.sandbox.clone()), end.ifname.clone());
    let lost = |(place, name): &(Place, String)| {
        let missing = world.places.get(place).is_some_and(|o| plane::link(o, name).is_none());
        missing || doomed.contains(&(place.clone(), name.clone()))
    };
    let pairs = wanted.cables.iter().map(|(a, b)| (end(a), end(b)));
    let broken = pairs.filter(|(a, b)| lost(a) || lost(b));
    broken.flat_map(|(a, b)| [a, b]).collect()
}

/// Tables that are wanted and not intact: whatever is in them goes with them.
fn missing_tables(want: &Objects, seen: &Objects) -> BTreeSet<Table> {
    let tables = want.values().filter_map(|object| match object {
        Object::Table(table, _) => {
            let intact = seen.get(&object.key()).is_some_and(|old| satisfies(object, old));
            (!intact).then_some(*table)
        }
        _ => None,
    });
    tables.collect()
}

/// How an object that is not wanted goes, if it goes by itself.
fn removal(place: &Place, object: &Object, want: &Objects) -> Option<Op> {
    match object {
        // Links were dealt with before, and a key goes with its link; parameters have no absence; flows are
        // not observed.
        Object::Link(..)
        | Object::Secret { .. }
        | Object::Sysctl(..)
        | Object::Flows { .. }
        | Object::Datagrams { .. } => None,
        Object::Switch { network: None, .. } => None,
        // They go with their table.
        Object::Element(element) if !has_table(want, element.set.table()) => None,
        Object::Namespace
        | Object::Table(..)
        | Object::Element(_)
        | Object::Passage(_)
        | Object::Rule(_)
        | Object::Barrier { .. }
        | Object::Switch { .. }
        | Object::SwitchPort { .. }
        | Object::Peer(_)
        | Object::Address(..)
        | Object::Fdb(_)
        | Object::Neighbour { .. }
        | Object::Wire(_)
        | Object::Route { .. } => Some(Op::remove(place.clone(), object.clone())),
    }
}

fn has_table(objects: &Objects, table: Table) -> bool {
    objects.contains_key(&Key::Table(table))
}

/// Plans one wanted object against what is there under its key.
fn change(
    place: &Place,
    object: &Object,
    old: Option<&Object>,
    wanted: &Wanted,
    world: &Plane,
    removals: &mut Vec<Op>,
    changes: &mut Vec<Op>,
) {
    if old.is_some_and(|old| satisfies(object, old)) {
        return;
    }
    match (object, old) {
        // A parameter that does not exist here (no IPv6, no br_netfilter) cannot be set. One of a link
        // that is about to be made is not there yet either: it is written when it is.
        (Object::Sysctl(path, _), None) if !of_new_link(path, place, wanted, world) => {}
        (Object::Link(name, link), None) => {
            changes.extend(new_link(place, name, link, wanted, world));
        }
        // A map's element has no "replace": out and in, in one transaction. A port of a switch forgets its old
        // link only by being away.
        (Object::Element(_) | Object::SwitchPort { .. }, Some(old)) => {
            removals.push(Op::remove(place.clone(), old.clone()));
            changes.push(Op::add(place.clone(), object.clone()));
        }
        // A stranger's bridge of a name of ours is not taken over: making it fails, and says why.
        (Object::Table(..) | Object::Switch { .. }, Some(_)) | (_, None) => {
            changes.push(Op::add(place.clone(), object.clone()));
        }
        (Object::Peer(wish), Some(Object::Peer(old))) => {
            let object = Object::Peer(turned(wish, old));
            changes.push(Op::change(place.clone(), object));
        }
        (Object::Link(name, wish), Some(Object::Link(_, old))) => {
            // Giving a link the MAC that it has takes all its neighbours (`neigh_changeaddr`).
            let link = Link { mac: wish.mac.filter(|_| wish.mac != old.mac), ..wish.clone() };
            changes.push(Op::change(place.clone(), Object::Link(name.clone(), link)));
        }
        (_, Some(_)) => changes.push(Op::change(place.clone(), object.clone())),
    }
}

/// What a peer is told that is there: where it is, only if it was told something else before.
fn turned(wish: &Peer, old: &Peer) -> Peer {
    let moved = old.endpoint.is_some() && old.endpoint != wish.endpoint;
    Peer { endpoint: wish.endpoint.filter(|_| moved), ..wish.clone() }
}

/// Whether a parameter belongs to a link of a sandbox that this plan makes.
fn of_new_link(path: &str, place: &Place, wanted: &Wanted, world: &Plane) -> bool {
    if *place == Place::Host {
        return false;
    }
    let Some(inside) = world.places.get(place) else { return false };
    let Some(want) = wanted.plane.places.get(place) else { return false };
    let mut names = want.values().filter_map(|object| match object {
        Object::Link(name, _) => Some(name),
        _ => None,
    });
    names
        .any(|name| path.contains(&format!("/conf/{name}/")) && plane::link(inside, name).is_none())
}

/// Makes a link. Inner ends are born with their outer ends and only need finishing; a veth whose sandbox
/// was not reached has to wait for it.
fn new_link(place: &Place, name: &str, link: &Link, wanted: &Wanted, world: &Plane) -> Option<Op> {
    let object = Object::Link(name.to_owned(), link.clone());
    match link.kind {
        LinkKind::Bridge
        | LinkKind::Vxlan { .. }
        | LinkKind::Tunnelled { .. }
        | LinkKind::Tap
        | LinkKind::WireGuard
        | LinkKind::Vlan { .. }
        | LinkKind::Macvlan { .. }
        | LinkKind::Ipvlan { .. } => Some(Op::add(place.clone(), object)),
        // The first of the two in order brings the other along.
        LinkKind::Stub { ref peer } => Some(match *name < **peer {
            true => Op::add(place.clone(), object),
            false => Op::change(place.clone(), object),
        }),
        LinkKind::Inner { .. } => Some(Op::change(place.clone(), object)),
        LinkKind::Internal => {
            let host = wanted.plane.places.get(place)?;
            let made = host.contains_key(&Key::Switch(name.to_owned()));
            made.then(|| Op::change(place.clone(), object))
        }
        LinkKind::Cable => cable(place, name, object, wanted, world),
        LinkKind::Loopback | LinkKind::Foreign => None,
        LinkKind::Veth => {
            let end = wanted.pairs.get(name)?;
            let sandbox = Place::Sandbox(end.sandbox.clone());
            world.places.get(&sandbox)?;
            let inner = plane::link(wanted.plane.places.get(&sandbox)?, &end.ifname)?.clone();
            let verb =
                Verb::AddPair { sandbox: end.sandbox.clone(), name: end.ifname.clone(), inner };
            Some(Op { place: place.clone(), verb, object })
        }
    }
}

/// Makes a cable where its first end is wanted and both sandboxes were reached; the second end is finished.
fn cable(place: &Place, name: &str, object: Object, wanted: &Wanted, world: &Plane) -> Option<Op> {
    let Place::Sandbox(key) = place else { return None };
    let this = InnerEnd { sandbox: key.clone(), ifname: name.to_owned() };
    let (first, second) = wanted.cables.iter().find(|(a, b)| *a == this || *b == this)?;
    let reached = |end: &InnerEnd| world.places.get(&Place::Sandbox(end.sandbox.clone()));
    let (_, there) = (reached(first)?, reached(second)?);
    // Both ends go together: with one of them still there the kernel has not finished, or it is a stranger's.
    if *first != this {
        return Some(Op::change(place.clone(), object));
    }
    if plane::link(there, &second.ifname).is_some() {
        return None;
    }
    let far = wanted.plane.places.get(&Place::Sandbox(second.sandbox.clone()))?;
    let inner = plane::link(far, &second.ifname)?.clone();
    let verb =
        Verb::AddPair { sandbox: second.sandbox.clone(), name: second.ifname.clone(), inner };
    Some(Op { place: place.clone(), verb, object })
}

/// Connections to backends that were in a VIP's slots and are wanted in none.
fn departed(place: &Place, want: &Objects, seen: &Objects, completeness: Completeness) -> Vec<Op> {
    let left: BTreeSet<(IpAddr, IpAddr)> = pairs(seen).difference(&pairs(want)).copied().collect();
    let vips: BTreeMap<IpAddr, ()> = pairs(want).into_iter().map(|(vip, _)| (vip, ())).collect();
    left.into_iter()
        .filter(|(vip, _)| completeness == Completeness::Complete || vips.contains_key(vip))
        .map(|(vip, backend)| Op::remove(place.clone(), Object::Flows { vip, backend }))
        .collect()
}

/// Every (VIP, backend) that has a slot.
fn pairs(objects: &Objects) -> BTreeSet<(IpAddr, IpAddr)> {
    let backends = objects.values().filter_map(|object| match object {
        Object::Element(element) if matches!(element.set, Set::Backends4 | Set::Backends6) => {
            Some((address(element.key.first()?)?, address(element.value.first()?)?))
        }
        _ => None,
    });
    backends.collect()
}

fn address(field: &Field) -> Option<IpAddr> {
    match field {
        Field::V4(v4) => Some(IpAddr::V4(*v4)),
        Field::V6(v6) => Some(IpAddr::V6(*v6)),
        Field::Name(_)
        | Field::Mac(_)
        | Field::Port(_)
        | Field::Protocol(_)
        | Field::Number(_)
        | Field::Vni(_) => None,
    }
}

/// Published UDP ports that appear, lead elsewhere or go: what the kernel remembers of them would go on
/// leading to where it did, for as long as the client keeps sending.
fn rebound(place: &Place, want: &Objects, seen: &Objects, completeness: Completeness) -> Vec<Op> {
    let (want, seen) = (bindings(want), bindings(seen));
    let keys: BTreeSet<&(IpAddr, u16)> = want.keys().chain(seen.keys()).collect();
    let changed = |key: &&&(IpAddr, u16)| {
        want.get(**key) != seen.get(**key)
            && (completeness == Completeness::Complete || want.contains_key(**key))
    };
    let forget = |(host, port): &(IpAddr, u16)| Object::Datagrams { host: *host, port: *port };
    keys.iter().filter(changed).map(|key| Op::remove(place.clone(), forget(key))).collect()
}

/// Published UDP ports and where they lead.
fn bindings(objects: &Objects) -> BTreeMap<(IpAddr, u16), &[Field]> {
    let binding = |element: &'_ Element| {
        let host = match element.set {
            Set::Published4 | Set::Published6 => address(element.key.first()?)?,
            Set::Everywhere4 => Ipv4Addr::UNSPECIFIED.into(),
            Set::Everywhere6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let udp = Field::Protocol(Protocol::Udp.number());
        match element.key.as_slice() {
            [.., protocol, Field::Port(port)] if *protocol == udp => Some((host, *port)),
            _ => None,
        }
    };
    let elements = objects.values().filter_map(|object| match object {
        Object::Element(element) => Some((binding(element)?, element.value.as_slice())),
        _ => None,
    });
    elements.collect()
}
