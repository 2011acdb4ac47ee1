//! A kernel in memory, with the real one's rules and failures on demand. Pure.
//!
//! Referents must exist, a link takes what rests on it along, both ends of a veth go together, what exists
//! cannot be made again. Used by the planner's properties and by whole-cluster simulations.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use weft_wire::{Config, Status};

use crate::dataplane::MacvlanMode;
use crate::dataplane::NetnsRef;
use crate::kernel::engine::WireEngine;
use crate::kernel::{Kernel, KernelError, Look, Observation, route, wireguard};
use crate::lower::Facts;
use crate::names::{self, ALIAS_PREFIX, Mac};
use crate::op::{Op, Verb};
use crate::plane::{
    self, Fdb, Integrity, Link, LinkKind, Object, Objects, Peer, Place, Plane, Set, Setting, put,
};

mod links;

#[cfg(test)]
mod tests;

/// One end of a veth: where it is, and its name.
type End = (Place, String);

/// A kernel that is a value.
#[derive(Clone, Debug, Default)]
pub struct FakeKernel {
    /// Everything there is, ours or not. A sandbox exists if its place does.
    pub plane: Plane,
    /// What the host says of itself.
    pub facts: Facts,
    /// Which of the next operations fail: `true` fails, and nothing of it happens.
    pub failures: VecDeque<bool>,
    /// Every VIP and backend whose flows were forgotten, in order.
    pub forgotten: Vec<(std::net::IpAddr, std::net::IpAddr)>,
    /// Every published port whose UDP flows were forgotten, in order.
    pub forgotten_ports: Vec<(std::net::IpAddr, u16)>,
    /// Kinds of devices that this kernel was built without.
    pub without: Vec<&'static str>,
    /// The engine of encrypted networks.
    pub engine: FakeEngine,
    /// The two ends of veths.
    pairs: BTreeSet<(End, End)>,
    held: BTreeSet<String>,
}

/// An engine of encrypted networks that is a value.
#[derive(Clone, Debug, Default)]
pub struct FakeEngine {
    /// What it was told.
    pub config: Config,
    /// Nobody answers.
    pub away: bool,
    /// What it says of itself.
    pub status: Status,
}

impl FakeEngine {
    fn answer(&self) -> Result<(), KernelError> {
        match self.away {
            true => Err(KernelError::engine("the engine of encrypted networks cannot be reached")),
            false => Ok(()),
        }
    }
}

impl WireEngine for FakeEngine {
    fn config(&mut self) -> Result<Config, KernelError> {
        self.answer().map(|()| self.config.without_private_keys())
    }

    fn configure(&mut self, config: &Config) -> Result<(), KernelError> {
        self.answer()?;
        self.config = config.clone();
        Ok(())
    }

    fn status(&mut self) -> Result<Status, KernelError> {
        self.answer().map(|()| self.status.clone())
    }
}

impl FakeKernel {
    /// A host with these kernel parameters and nothing else.
    pub fn new<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut fake = Self::default();
        let host = fake.plane.places.entry(Place::Host).or_default();
        for (path, value) in parameters {
            put(host, Object::Sysctl(path.to_owned(), Setting::Is(value.to_owned())));
        }
        fake
    }

    /// A new namespace, as a container's start makes it.
    pub fn open_sandbox(&mut self, key: &str) {
        let inside = self.plane.places.entry(Place::Sandbox(key.to_owned())).or_default();
        put(inside, links::loopback());
        for (path, value) in [
            ("net/ipv4/ping_group_range", "1 0"),
            ("net/ipv4/ip_unprivileged_port_start", "1024"),
            ("net/ipv4/tcp_mtu_probing", "0"),
        ] {
            put(inside, Object::Sysctl(path.to_owned(), Setting::Is(value.to_owned())));
        }
    }

    /// The end of a namespace: its ends of veths go, and with them the host's.
    pub fn close_sandbox(&mut self, key: &str) {
        let gone = Place::Sandbox(key.to_owned());
        let ends: Vec<End> = self.pairs.iter().flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
        for (place, name) in ends.into_iter().filter(|(place, _)| *place == gone) {
            self.remove_link(&place, &name);
        }
        self.plane.places.remove(&Place::Sandbox(key.to_owned()));
        self.held.remove(key);
    }

    /// Executes one operation without injected failures, as somebody's hand would.
    ///
    /// # Errors
    /// What the kernel would say.
    pub fn by_hand(&mut self, op: &Op) -> Result<(), KernelError> {
        if !self.plane.places.contains_key(&op.place) {
            return Err(refused(libc::ENOENT));
        }
        match op.verb {
            Verb::Remove => self.remove(&op.place, &op.object),
            Verb::Add => self.add(&op.place, &op.object),
            Verb::Change => match &op.object {
                Object::Link(name, link) => self.configure(&op.place, name, link),
                other => self.write(&op.place, other),
            },
            Verb::AddPair { ref sandbox, ref name, ref inner } => {
                self.add_pair(&op.place, &op.object, sandbox, name, inner)
            }
        }
    }

    fn objects(&mut self, place: &Place) -> &mut Objects {
        self.plane.places.entry(place.clone()).or_default()
    }

    fn add(&mut self, place: &Place, object: &Object) -> Result<(), KernelError> {
        let exists = self.objects(place).contains_key(&object.key());
        match object {
            Object::Link(name, link) => self.add_link(place, name, link),
            Object::Namespace if exists => Err(refused(libc::EEXIST)),
            Object::Namespace => {
                put(self.objects(place), Object::Namespace);
                self.open_tunnel();
                Ok(())
            }
            Object::Switch { .. } if exists => Err(refused(libc::EEXIST)),
            Object::Switch { network: None, .. } => Err(refused(libc::ENOENT)),
            Object::Switch { name, mac, .. } => {
                put(self.objects(place), object.clone());
                self.add_device(place, name, *mac)
            }
            Object::Rule(_) | Object::Fdb(Fdb::Copy { .. }) if exists => Err(refused(libc::EEXIST)),
            Object::Element(_) if exists => match self.objects(place).get(&object.key()) {
                Some(old) if old == object => Ok(()),
                Some(_) | None => Err(refused(libc::EEXIST)),
            },
            other => self.write(place, other),
        }
    }

    /// Adds or replaces anything but a link.
    fn write(&mut self, place: &Place, object: &Object) -> Result<(), KernelError> {
        let objects = self.objects(place);
        for name in object.links() {
            if plane::link(objects, name).is_none() {
                return Err(KernelError::NoLink { name: name.to_owned() });
            }
        }
        match object {
            Object::Element(element) => {
                let table = Object::Table(element.set.table(), Integrity::Intact).key();
                if !objects.contains_key(&table) {
                    return Err(refused(libc::ENOENT));
                }
            }
            Object::Table(table, _) => {
                let inside = |set: Set| set.table() == *table;
                objects.retain(
                    |_, object| !matches!(object, Object::Element(element) if inside(element.set)),
                );
            }
            Object::Fdb(Fdb::Behind { bridge, port, .. }) => {
                let master = plane::link(objects, port).and_then(|link| link.master.clone());
                if master.as_ref() != Some(bridge) {
                    return Err(refused(libc::EOPNOTSUPP));
                }
            }
            Object::Route { via: Some(via), link, .. } if !reachable(objects, link, *via) => {
                return Err(refused(libc::ENETUNREACH));
            }
            Object::Sysctl(path, setting) => {
                let key = object.key();
                let Some(old) = objects.get_mut(&key) else { return Err(refused(libc::ENOENT)) };
                *old = Object::Sysctl(path.clone(), Setting::Is(setting.text()));
                return Ok(());
            }
            Object::Wire(config) => return self.engine.configure(config),
            Object::Peer(peer) => {
                let Some(Object::Peer(old)) = objects.get(&object.key()) else {
                    put(objects, object.clone());
                    return Ok(());
                };
                let endpoint = peer.endpoint.or(old.endpoint);
                put(objects, Object::Peer(Peer { endpoint, ..peer.clone() }));
                return Ok(());
            }
            Object::Flows { .. }
            | Object::Datagrams { .. }
            | Object::Namespace
            | Object::Link(..) => return Err(refused(libc::EINVAL)),
            Object::Route { .. }
            | Object::Rule(_)
            | Object::Passage(_)
            | Object::Barrier { .. }
            | Object::SwitchPort { .. }
            | Object::Switch { .. }
            | Object::Secret { .. }
            | Object::Address(..)
            | Object::Fdb(_)
            | Object::Neighbour { .. } => {}
        }
        put(objects, object.clone());
        Ok(())
    }

    fn remove(&mut self, place: &Place, object: &Object) -> Result<(), KernelError> {
        match object {
            Object::Flows { vip, backend } => self.forgotten.push((*vip, *backend)),
            Object::Datagrams { host, port } => self.forgotten_ports.push((*host, *port)),
            Object::Wire(_) => self.engine.configure(&Config::default())?,
            Object::Namespace => {
                let gone = self.objects(place).remove(&object.key());
                gone.ok_or(refused(libc::ENOENT))?;
                self.close_tunnel();
            }
            Object::Switch { name, .. } => {
                let gone = self.objects(place).remove(&object.key());
                gone.ok_or(refused(libc::ENOENT))?;
                self.remove_link(place, name);
                self.objects(place).retain(|_, object| {
                    !matches!(object, Object::SwitchPort { bridge, .. } if bridge == name)
                });
            }
            Object::Link(name, _) => {
                if plane::link(self.objects(place), name).is_none() {
                    return Err(refused(libc::ENODEV));
                }
                self.remove_link(place, name);
            }
            other => {
                let gone = self.objects(place).remove(&other.key());
                if let Some(Object::Table(table, _)) = &gone {
                    self.objects(place).retain(|_, object| {
                        !matches!(object, Object::Element(element) if element.set.table() == *table)
                    });
                }
                gone.ok_or(refused(libc::ENOENT))?;
            }
        }
        Ok(())
    }
}

fn refused(errno: i32) -> KernelError {
    KernelError::errno("fake kernel", errno)
}

/// Whether a gateway is on a link that is up.
fn reachable(objects: &Objects, link: &str, via: std::net::IpAddr) -> bool {
    plane::link(objects, link).is_some_and(|link| link.up)
        && objects.values().any(|object| match object {
            Object::Address(on, net) => on == link && net.contains(&via),
            _ => false,
        })
}

impl Kernel for FakeKernel {
    fn observe(&mut self, look: &Look) -> Observation {
        let mut seen = Observation { facts: self.facts, ..Observation::default() };
        if let Some(host) = &look.host {
            let ours_in_host = |name: &str, link: &Link| {
                link.alias.starts_with(ALIAS_PREFIX)
                    || names::is_derived(name)
                    || host.links.contains(name)
            };
            let objects = self.plane.places.get(&Place::Host);
            let mut objects = objects.map(|all| visible(all, ours_in_host, &host.sysctls));
            if let (Some(objects), Ok(config)) = (&mut objects, self.engine.config())
                && config != Config::default()
            {
                put(objects, Object::Wire(config));
            }
            seen.plane.places.extend(objects.map(|objects| (Place::Host, objects)));
            let inside = self.plane.places.get(&Place::Tunnel);
            let inside = inside.map(|all| visible(all, |_, _| true, &host.tunnel));
            seen.plane.places.extend(inside.map(|objects| (Place::Tunnel, objects)));
        }
        for (key, inside) in &look.sandboxes {
            let place = Place::Sandbox(key.clone());
            let ours = |name: &str, link: &Link| {
                link.kind == LinkKind::Loopback
                    || link.alias.starts_with(ALIAS_PREFIX)
                    || inside.links.contains(name)
            };
            match self.plane.places.get(&place) {
                Some(all) => {
                    self.held.insert(key.clone());
                    seen.plane.places.insert(place, visible(all, ours, &inside.sysctls));
                }
                None => {
                    let error = KernelError::NoSandbox { key: key.clone() };
                    seen.errors.insert(Some(key.clone()), error);
                }
            }
        }
        seen
    }

    fn execute(&mut self, ops: &[Op]) -> Vec<Result<(), KernelError>> {
        ops.iter()
            .map(|op| match self.failures.pop_front() {
                Some(true) => Err(refused(libc::ENOMEM)),
                Some(false) | None => self.by_hand(op),
            })
            .collect()
    }

    fn release(&mut self, wanted: &BTreeMap<String, NetnsRef>) {
        self.held.retain(|key| wanted.contains_key(key));
    }

    fn held(&self) -> Vec<String> {
        self.held.iter().cloned().collect()
    }
}

/// What a look shows: our links and what rests on them, and the parameters that were asked for.
fn visible(
    all: &Objects,
    ours: impl Fn(&str, &Link) -> bool,
    parameters: &BTreeSet<String>,
) -> Objects {
    let shown = |object: &Object| match object {
        Object::Link(name, link) => ours(name, link),
        Object::Sysctl(path, _) => parameters.contains(path),
        other => other
            .links()
            .into_iter()
            .all(|name| plane::link(all, name).is_some_and(|link| ours(name, link))),
    };
    all.iter().filter(|(_, object)| shown(object)).map(|(k, o)| (k.clone(), o.clone())).collect()
}
