//! Carrying out operations in order, many in one system call.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use weft_wire::Config;

use super::{LinuxKernel, Sockets};
use crate::kernel::nft::transaction;
use crate::kernel::route::{address, child, link, neighbour, policy};
use crate::kernel::socket::Socket;
use crate::kernel::wire::Message;
use crate::kernel::{KernelError, conntrack, netns, sysctl, tap, wireguard};
use crate::names;
use crate::op::{Op, Verb};
use crate::plane::{Link, LinkKind, Object, Place};

/// How long a whole execution waits for carriers; they come within a millisecond, or something else is wrong.
const CARRIER_PATIENCE: Duration = Duration::from_millis(100);
/// How often it looks, on kernels before 6.8.
const CARRIER_POLL: Duration = Duration::from_millis(1);

type Results = Vec<Result<(), KernelError>>;

/// Requests not yet sent, all for one place, each with the operation it belongs to.
#[derive(Default)]
struct Pending {
    place: Option<Place>,
    messages: Vec<(usize, Message)>,
}

pub(super) fn execute(kernel: &mut LinuxKernel, ops: &[Op]) -> Results {
    let mut results: Results = vec![Ok(()); ops.len()];
    let mut pending = Pending::default();
    let mut next = 0;
    while let Some(op) = ops.get(next) {
        let same_class = |other: &&Op| class(&other.object) == class(&op.object);
        let count = ops[next..].iter().take_while(same_class).count();
        let run = next..next + count;
        if class(&op.object) != Class::Route {
            flush(kernel, &mut pending, &mut results);
        }
        match class(&op.object) {
            Class::Nft => nft(kernel, ops, run, &mut results),
            Class::Sysctl => sysctls(kernel, ops, run, &mut results),
            Class::Flows => flows(kernel, ops, run, &mut results),
            Class::Tunnel => {
                for index in run {
                    results[index] = tunnel(kernel, &ops[index]);
                }
            }
            Class::Switch => {
                let outcome = kernel.switches.execute(&ops[run.clone()]);
                run.zip(outcome).for_each(|(index, result)| results[index] = result);
            }
            Class::Route => {
                for index in run {
                    route(kernel, index, &ops[index], &mut pending, &mut results);
                }
            }
        }
        next += count;
    }
    flush(kernel, &mut pending, &mut results);
    wait_for_carrier(kernel, ops, &results);
    results
}

/// Waits until links that were just set up carry packets: until then the kernel drops what is sent on them,
/// and whoever is told "attached" would lose its first packet and with it a second.
fn wait_for_carrier(kernel: &mut LinuxKernel, ops: &[Op], results: &Results) {
    let end = Instant::now() + CARRIER_PATIENCE;
    let mut bridges = BTreeSet::new();
    for (op, _) in
        ops.iter().zip(results).filter(|(op, result)| result.is_ok() && op.verb != Verb::Remove)
    {
        match &op.object {
            Object::Link(
                name,
                Link { kind: LinkKind::Inner { .. } | LinkKind::Cable, up: true, .. },
            ) => {
                wait_for_one(kernel, &op.place, name, end);
            }
            Object::Link(name, Link { kind: LinkKind::Veth, up: true, master, .. }) => {
                wait_for_one(kernel, &op.place, name, end);
                bridges.extend(master);
            }
            _ => {}
        }
    }
    // A bridge has a carrier once one of its ports has.
    for bridge in bridges {
        wait_for_one(kernel, &Place::Host, bridge, end);
    }
}

fn wait_for_one(kernel: &mut LinuxKernel, place: &Place, name: &str, end: Instant) {
    let Ok(sockets) = sockets(kernel, place) else { return };
    let Some(index) = sockets.indexes.index(name) else { return };
    while link::carries(&mut sockets.route, index) == Ok(false) && Instant::now() < end {
        std::thread::sleep(CARRIER_POLL);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Nft,
    Sysctl,
    Flows,
    Switch,
    Tunnel,
    Route,
}

fn class(object: &Object) -> Class {
    match object {
        Object::Table(..) | Object::Element(_) | Object::Passage(_) => Class::Nft,
        Object::Sysctl(..) => Class::Sysctl,
        Object::Flows { .. } | Object::Datagrams { .. } => Class::Flows,
        Object::Switch { .. } | Object::SwitchPort { .. } => Class::Switch,
        Object::Namespace | Object::Secret { .. } | Object::Peer(_) | Object::Wire(_) => {
            Class::Tunnel
        }
        Object::Rule(_)
        | Object::Barrier { .. }
        | Object::Link(..)
        | Object::Address(..)
        | Object::Fdb(_)
        | Object::Neighbour { .. }
        | Object::Route { .. } => Class::Route,
    }
}

/// The operations of a run by place, places in the order of their first operation.
fn by_place(ops: &[Op], run: std::ops::Range<usize>) -> Vec<(Place, Vec<usize>)> {
    let mut groups: Vec<(Place, Vec<usize>)> = Vec::new();
    for index in run {
        match groups.iter_mut().find(|(place, _)| *place == ops[index].place) {
            Some((_, group)) => group.push(index),
            None => groups.push((ops[index].place.clone(), vec![index])),
        }
    }
    groups
}

fn sockets<'a>(kernel: &'a mut LinuxKernel, place: &Place) -> Result<&'a mut Sockets, KernelError> {
    match place {
        Place::Host => Ok(&mut kernel.host),
        Place::Tunnel => match &mut kernel.tunnel {
            Some(space) => Ok(&mut space.sockets),
            None => Err(KernelError::NoTunnel),
        },
        Place::Sandbox(key) => match kernel.sandboxes.get_mut(key) {
            Some(inside) => Ok(&mut inside.sockets),
            None => Err(KernelError::NoSandbox { key: key.clone() }),
        },
    }
}

fn nft(kernel: &mut LinuxKernel, ops: &[Op], run: std::ops::Range<usize>, results: &mut Results) {
    for (place, group) in by_place(ops, run) {
        let skeletons = kernel.skeletons.clone();
        let outcome = match sockets(kernel, &place) {
            Ok(sockets) => {
                let chosen: Vec<&Op> = group.iter().map(|index| &ops[*index]).collect();
                transaction::execute(&mut sockets.netfilter, &skeletons, &chosen)
            }
            Err(error) => vec![Err(error); group.len()],
        };
        for (index, result) in group.into_iter().zip(outcome) {
            results[index] = result;
        }
    }
}

fn sysctls(
    kernel: &mut LinuxKernel,
    ops: &[Op],
    run: std::ops::Range<usize>,
    results: &mut Results,
) {
    for (place, group) in by_place(ops, run) {
        let write = |index: &usize| match &ops[*index].object {
            Object::Sysctl(path, setting) => sysctl::write(path, setting),
            _ => Ok(()),
        };
        let outcome: Result<Results, KernelError> = match &place {
            Place::Host => Ok(group.iter().map(write).collect()),
            Place::Tunnel => match &kernel.tunnel {
                Some(space) => {
                    space.netns.enter(&kernel.home, || group.iter().map(write).collect())
                }
                None => Err(KernelError::NoTunnel),
            },
            Place::Sandbox(key) => match kernel.sandboxes.get(key) {
                Some(inside) => {
                    inside.netns.enter(&kernel.home, || group.iter().map(write).collect())
                }
                None => Err(KernelError::NoSandbox { key: key.clone() }),
            },
        };
        let outcome = outcome.unwrap_or_else(|error| vec![Err(error); group.len()]);
        for (index, result) in group.into_iter().zip(outcome) {
            results[index] = result;
        }
    }
}

fn flows(kernel: &mut LinuxKernel, ops: &[Op], run: std::ops::Range<usize>, results: &mut Results) {
    for (place, group) in by_place(ops, run) {
        let mut departed = conntrack::Departed::default();
        for index in &group {
            match ops[*index].object {
                Object::Flows { vip, backend } => departed.backends.push((vip, backend)),
                Object::Datagrams { host, port } => departed.bindings.push((host, port)),
                _ => {}
            }
        }
        let outcome = sockets(kernel, &place).and_then(|sockets| {
            if !departed.bindings.is_empty() {
                let addresses = address::dump(&mut sockets.route)?;
                departed.own = addresses.into_iter().map(|(_, net)| net.addr()).collect();
            }
            conntrack::forget(&mut sockets.netfilter, &departed)
        });
        group.into_iter().for_each(|index| results[index] = outcome.clone());
    }
}

/// Executes what concerns the tunnel and is no business of rtnetlink or nftables.
fn tunnel(kernel: &mut LinuxKernel, op: &Op) -> Result<(), KernelError> {
    let path = kernel.tunnel_file();
    match (&op.object, &op.verb) {
        (Object::Namespace, Verb::Remove) => {
            kernel.tunnel = None;
            netns::let_go(&path)
        }
        (Object::Namespace, _) => {
            netns::make(&path)?;
            super::tunnel::reopen(&mut kernel.tunnel, &path, &kernel.home, &mut kernel.host)
        }
        (Object::Wire(_), Verb::Remove) => kernel.wire.configure(&Config::default()),
        (Object::Wire(config), _) => kernel.wire.configure(config),
        _ => kernel.tunnel.as_mut().ok_or(KernelError::NoTunnel)?.execute(op),
    }
}

/// Sends what is pending.
fn flush(kernel: &mut LinuxKernel, pending: &mut Pending, results: &mut Results) {
    let (Some(place), messages) = (pending.place.take(), std::mem::take(&mut pending.messages))
    else {
        return;
    };
    let (indexes, messages): (Vec<usize>, Vec<Message>) = messages.into_iter().unzip();
    let answers = sockets(kernel, &place).and_then(|sockets| {
        sockets.route.request(messages).map_err(|error| KernelError::io("rtnetlink", &error))
    });
    match answers {
        Ok(answers) => {
            for (index, answer) in indexes.into_iter().zip(answers) {
                if let (Err(errno), Ok(())) = (answer, &results[index]) {
                    results[index] = Err(KernelError::errno("rtnetlink", errno));
                }
            }
        }
        Err(error) => indexes.into_iter().for_each(|index| results[index] = Err(error.clone())),
    }
}

/// Adds the requests of one operation to what is pending, sending first what it must wait for.
fn route(
    kernel: &mut LinuxKernel,
    index: usize,
    op: &Op,
    pending: &mut Pending,
    results: &mut Results,
) {
    if pending.place.as_ref().is_some_and(|place| *place != op.place) {
        flush(kernel, pending, results);
    }
    pending.place = Some(op.place.clone());
    if let Object::Link(name, link) = &op.object {
        let messages = links(kernel, index, op, name, link, pending, results);
        return queue(messages, index, pending, results);
    }
    for name in references(&op.object) {
        if let Err(error) = index_of(kernel, &op.place, &name, pending, results) {
            results[index] = Err(error);
            return;
        }
    }
    let message = sockets(kernel, &op.place).and_then(|sockets| request(op, sockets));
    queue(message.map(|message| vec![message]), index, pending, results);
}

fn queue(
    messages: Result<Vec<Message>, KernelError>,
    index: usize,
    pending: &mut Pending,
    results: &mut Results,
) {
    match messages {
        Ok(messages) => {
            pending.messages.extend(messages.into_iter().map(|message| (index, message)))
        }
        Err(error) => results[index] = Err(error),
    }
}

/// The links whose indexes an operation needs.
fn references(object: &Object) -> Vec<String> {
    use crate::plane::Fdb;
    match object {
        Object::Address(link, _)
        | Object::Neighbour { link, .. }
        | Object::Route { link, .. }
        | Object::Fdb(
            Fdb::Tunnel { link, .. } | Fdb::Copy { link, .. } | Fdb::Behind { port: link, .. },
        ) => vec![link.clone()],
        Object::Table(..)
        | Object::Element(_)
        | Object::Passage(_)
        | Object::Rule(_)
        | Object::Barrier { .. }
        | Object::Switch { .. }
        | Object::Link(..)
        | Object::SwitchPort { .. }
        | Object::Sysctl(..)
        | Object::Namespace
        | Object::Secret { .. }
        | Object::Peer(_)
        | Object::Wire(_)
        | Object::Flows { .. }
        | Object::Datagrams { .. } => vec![],
    }
}

/// The index of a link: known, or asked for once what would make the link has been sent.
fn index_of(
    kernel: &mut LinuxKernel,
    place: &Place,
    name: &str,
    pending: &mut Pending,
    results: &mut Results,
) -> Result<u32, KernelError> {
    if let Some(index) = sockets(kernel, place)?.indexes.index(name) {
        return Ok(index);
    }
    flush(kernel, pending, results);
    pending.place = Some(place.clone());
    let sockets = sockets(kernel, place)?;
    let index = link::find(&mut sockets.route, name)?;
    sockets.indexes.insert(name.to_owned(), index);
    Ok(index)
}

fn links(
    kernel: &mut LinuxKernel,
    index: usize,
    op: &Op,
    name: &str,
    link: &Link,
    pending: &mut Pending,
    results: &mut Results,
) -> Result<Vec<Message>, KernelError> {
    if op.verb == Verb::Remove {
        sockets(kernel, &op.place)?.indexes.forget(name);
        return Ok(vec![link::delete(name)]);
    }
    // Before anything is made: a port without its bridge would be half a port.
    let master = match &link.master {
        Some(master) => index_of(kernel, &op.place, master, pending, results)?,
        None => 0,
    };
    match &op.verb {
        Verb::Add if child::parent(&link.kind).is_some() => {
            flush(kernel, pending, results);
            make_child(kernel, &op.place, name, link)?;
            pending.place = Some(op.place.clone());
        }
        Verb::Add
            if matches!(
                link.kind,
                LinkKind::Tap | LinkKind::Tunnelled { .. } | LinkKind::WireGuard
            ) =>
        {
            flush(kernel, pending, results);
            make_tunnelled(kernel, &op.place, name, link)?;
            pending.place = Some(op.place.clone());
        }
        Verb::Add => {
            let create = link::create(name, link);
            let create = create.ok_or_else(|| KernelError::Senseless { op: op.to_string() })?;
            pending.messages.push((index, create));
        }
        Verb::AddPair { sandbox, name: inner_name, inner } => {
            let missing = || KernelError::NoSandbox { key: sandbox.clone() };
            let inside = kernel.sandboxes.get_mut(sandbox).ok_or_else(missing)?;
            inside.sockets.indexes.forget(inner_name);
            let far = inside.netns.fd();
            // A cable's first end is born in its sandbox too: asked for in the host, so that both names of
            // namespaces are ours.
            let own = match &op.place {
                Place::Host => None,
                Place::Tunnel => return Err(KernelError::Senseless { op: op.to_string() }),
                Place::Sandbox(key) => {
                    let missing = || KernelError::NoSandbox { key: key.clone() };
                    Some(kernel.sandboxes.get(key).ok_or_else(missing)?.netns.fd())
                }
            };
            let pair = link::create_pair(name, link, inner_name, inner, far, own);
            if own.is_some() {
                flush(kernel, pending, results);
                pending.place = Some(Place::Host);
            }
            pending.messages.push((index, pair));
        }
        Verb::Change | Verb::Remove => {}
    }
    if op.verb != Verb::Change {
        sockets(kernel, &op.place)?.indexes.forget(name);
        flush(kernel, pending, results);
        pending.place = Some(op.place.clone());
        // What could not be made is not configured either: it may be a stranger's.
        results[index].clone()?;
    }
    let number = index_of(kernel, &op.place, name, pending, results)?;
    Ok(link::configure(number, link, master))
}

/// Makes a device of an encrypted network, or of the tunnel itself: asked for in the namespace where its packets
/// travel, and born in the one where it belongs.
fn make_tunnelled(
    kernel: &mut LinuxKernel,
    place: &Place,
    name: &str,
    link: &Link,
) -> Result<(), KernelError> {
    if link.kind == LinkKind::Tap {
        return make_tap(&mut sockets(kernel, place)?.route, name, link);
    }
    let LinuxKernel { home, host, tunnel, .. } = kernel;
    let space = tunnel.as_mut().ok_or(KernelError::NoTunnel)?;
    let (route, born) = match place {
        Place::Host => (&mut space.sockets.route, home.fd()),
        Place::Tunnel | Place::Sandbox(_) => (&mut host.route, space.netns.fd()),
    };
    let senseless = || KernelError::Senseless { op: name.to_owned() };
    let create = link::create_in(name, link, born).ok_or_else(senseless)?;
    answered(route, create)?.map_err(|errno| match link.kind {
        LinkKind::WireGuard => wireguard::refusal(errno),
        _ => KernelError::errno("making a VXLAN device in the tunnel", errno),
    })
}

/// Makes a TAP device that stays.
fn make_tap(route: &mut Socket, name: &str, link: &Link) -> Result<(), KernelError> {
    let newborn = tap::make(name)?;
    let index = link::find(route, name)?;
    let marked = answered(route, link::mark(index, &link.alias))?;
    marked.map_err(|errno| KernelError::errno("marking a TAP device", errno))?;
    newborn.keep()
}

/// Makes a device on one of the host, in the host or in a sandbox.
fn make_child(
    kernel: &mut LinuxKernel,
    place: &Place,
    name: &str,
    link: &Link,
) -> Result<(), KernelError> {
    let (born, netns) = match place {
        Place::Host | Place::Tunnel => (name.to_owned(), None),
        Place::Sandbox(key) => {
            let missing = || KernelError::NoSandbox { key: key.clone() };
            let inside = kernel.sandboxes.get(key).ok_or_else(missing)?;
            (names::newborn(key, name), Some(inside.netns.fd()))
        }
    };
    let host = &mut kernel.host;
    let parent = child::parent(&link.kind).unwrap_or_default();
    // Asked for anew: a parent that went and came back has another index.
    let parent = link::find(&mut host.route, parent)?;
    let create = child::create(&born, link, parent, netns);
    let refusal = |errno| child::refusal(link, errno);
    answered(&mut host.route, create)?.map_err(refusal)?;
    match place {
        Place::Host | Place::Tunnel => Ok(()),
        Place::Sandbox(_) => rename(&mut sockets(kernel, place)?.route, &born, name, refusal),
    }
}

/// Gives a device its name, or removes it.
fn rename(
    route: &mut Socket,
    born: &str,
    name: &str,
    refusal: impl Fn(i32) -> KernelError,
) -> Result<(), KernelError> {
    let index = link::find(route, born)?;
    let renamed = answered(route, link::rename(index, name))?;
    if renamed.is_err() {
        // The refusal to name it says more than one to remove it, which the next look tries again.
        let _ = answered(route, link::delete(born))?;
    }
    renamed.map_err(refusal)
}

/// One request and the kernel's answer to it.
fn answered(route: &mut Socket, request: Message) -> Result<Result<(), i32>, KernelError> {
    let answers = route.request(vec![request]);
    let answers = answers.map_err(|error| KernelError::io("rtnetlink", &error))?;
    Ok(answers.into_iter().find(Result::is_err).unwrap_or(Ok(())))
}

/// The request of an operation on anything but a link; its indexes are known.
fn request(op: &Op, sockets: &Sockets) -> Result<Message, KernelError> {
    let indexes = &sockets.indexes;
    let remove = op.verb == Verb::Remove;
    Ok(match &op.object {
        Object::Rule(rule) if remove => policy::delete_rule(rule),
        Object::Rule(rule) => policy::add_rule(rule),
        Object::Barrier { table, net } if remove => policy::delete_barrier(*table, *net),
        Object::Barrier { table, net } => policy::add_barrier(*table, *net),
        Object::Address(link, net) if remove => address::delete(indexes.need(link)?, *net),
        Object::Address(link, net) => address::add(indexes.need(link)?, *net),
        Object::Fdb(row) if remove => neighbour::delete_row(row, indexes)?,
        Object::Fdb(row) => neighbour::write_row(row, indexes)?,
        Object::Neighbour { link, address, .. } if remove => {
            neighbour::delete(indexes.need(link)?, *address)
        }
        Object::Neighbour { link, address, mac } => {
            neighbour::add(indexes.need(link)?, *address, *mac)
        }
        Object::Route { net, via, link, .. } if remove => {
            policy::delete_route(*net, *via, indexes.need(link)?)
        }
        Object::Route { net, via, link, source } => {
            policy::add_route(*net, *via, indexes.need(link)?, *source)
        }
        Object::Table(..)
        | Object::Element(_)
        | Object::Passage(_)
        | Object::Switch { .. }
        | Object::Link(..)
        | Object::SwitchPort { .. }
        | Object::Sysctl(..)
        | Object::Namespace
        | Object::Secret { .. }
        | Object::Peer(_)
        | Object::Wire(_)
        | Object::Flows { .. }
        | Object::Datagrams { .. } => return Err(KernelError::Senseless { op: op.to_string() }),
    })
}
