//! Linux: the kernel of the namespace the calling thread is in, and of the sandboxes beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weft_wire::Config;

use super::engine::WireEngine;
use super::netns::Netns;
use super::nft::compile::{self, Skeletons};
use super::nft::foreign::{self, Iptables};
use super::nft::{element, family, ruleset};
use super::ovs::Switches;
use super::route::{self, Indexes};
use super::socket::Socket;
use super::{HostLook, Kernel, KernelError, Look, Observation, SandboxLook, sysctl};
use crate::dataplane::NetnsRef;
use crate::lower::Facts;
use crate::names::TUNNEL_FILE;
use crate::op::Op;
use crate::plane::{Family, Integrity, Object, Objects, Place, Table, put};

mod execute;
mod tunnel;

/// The only implementation of [`Kernel`] that does anything.
///
/// It belongs to one thread: entering a sandbox moves the calling thread for a moment.
#[derive(Debug)]
pub struct LinuxKernel {
    home: Netns,
    host: Sockets,
    sandboxes: BTreeMap<String, Inside>,
    skeletons: Arc<Skeletons>,
    switches: Switches,
    run_dir: PathBuf,
    tunnel: Option<tunnel::Space>,
    wire: Box<dyn WireEngine>,
}

/// The sockets into one namespace, and what is known of its links.
#[derive(Debug)]
struct Sockets {
    route: Socket,
    netfilter: Socket,
    indexes: Indexes,
}

/// An open sandbox.
#[derive(Debug)]
struct Inside {
    reference: NetnsRef,
    netns: Netns,
    sockets: Sockets,
    /// The kernel's number for this namespace as seen from the host, for events.
    nsid: Option<i32>,
}

impl Sockets {
    fn open() -> Result<Self, KernelError> {
        Ok(Self {
            route: Socket::open(libc::NETLINK_ROUTE)?,
            netfilter: Socket::open(libc::NETLINK_NETFILTER)?,
            indexes: Indexes::default(),
        })
    }

    /// Our tables of this namespace and what is in them.
    fn tables(
        &mut self,
        tables: &[Table],
        skeletons: &Skeletons,
        objects: &mut Objects,
    ) -> Result<(), KernelError> {
        for table in tables {
            let found = ruleset::dump(&mut self.netfilter, family(*table))?;
            let Some(found) = found.filter(|found| !found.is_remains()) else { continue };
            let intact = skeletons.get(table).is_some_and(|skeleton| skeleton.is_in(&found));
            let integrity = if intact { Integrity::Intact } else { Integrity::Damaged };
            put(objects, Object::Table(*table, integrity));
            for set in table.sets().filter(|_| intact) {
                element::dump(&mut self.netfilter, set, objects)?;
            }
        }
        Ok(())
    }
}

impl LinuxKernel {
    /// Opens the kernel in the calling thread's network namespace, which becomes the host's. What is held
    /// for the tunnel is in `run_dir`, and encrypted networks in user space are `wire`'s.
    ///
    /// # Errors
    /// Without CAP_NET_ADMIN and CAP_SYS_ADMIN, or where `nft` is missing or too old for our tables.
    pub fn open(run_dir: &Path, wire: Box<dyn WireEngine>) -> Result<Self, KernelError> {
        let home = Netns::current()?;
        let skeletons = Arc::new(compile::compile()?);
        Ok(Self {
            home,
            host: Sockets::open()?,
            sandboxes: BTreeMap::new(),
            skeletons,
            switches: Switches::default(),
            run_dir: run_dir.to_owned(),
            tunnel: None,
            wire,
        })
    }

    /// The netlink ports our own changes carry, by namespace id (`None`: the host's).
    pub(crate) fn ports(&self) -> Vec<(Option<i32>, u32)> {
        let of = |nsid, sockets: &Sockets| {
            [(nsid, sockets.route.port()), (nsid, sockets.netfilter.port())]
        };
        let inside = self.sandboxes.values().flat_map(|inside| of(inside.nsid, &inside.sockets));
        let tunnel = self.tunnel.iter().flat_map(|space| of(space.nsid, &space.sockets));
        inside.chain(tunnel).chain(of(None, &self.host)).collect()
    }

    /// The open sandboxes by the id events carry, and the tunnel, which is looked at with the host.
    pub(crate) fn namespace_ids(&self) -> BTreeMap<i32, Option<String>> {
        let inside = self.sandboxes.iter();
        let ids = inside.filter_map(|(key, inside)| Some((inside.nsid?, Some(key.clone()))));
        let tunnel = self.tunnel.iter().filter_map(|space| Some((space.nsid?, None)));
        ids.chain(tunnel).collect()
    }

    /// What holds the tunnel's namespace.
    fn tunnel_file(&self) -> PathBuf {
        self.run_dir.join(TUNNEL_FILE)
    }

    fn look_at_tunnel(&mut self, look: &HostLook) -> Result<Option<Objects>, KernelError> {
        let Self { tunnel, home, skeletons, .. } = self;
        let Some(space) = tunnel else { return Ok(None) };
        space.look(&look.tunnel, skeletons, home).map(Some)
    }

    fn look_at_host(
        &mut self,
        look: &HostLook,
        seen: &mut Observation,
    ) -> Result<Objects, KernelError> {
        let file = self.tunnel_file();
        tunnel::reopen(&mut self.tunnel, &file, &self.home, &mut self.host)?;
        let number = self.tunnel.as_ref().and_then(|space| space.nsid);
        let links = route::observe_host(&mut self.host.route, look, number)?;
        let mut objects = links.objects;
        if self.tunnel.is_some() {
            put(&mut objects, Object::Namespace);
        }
        // One that does not answer has nothing: telling it what is wanted fails, and says so.
        if let Ok(config) = self.wire.config()
            && config != Config::default()
        {
            put(&mut objects, Object::Wire(config));
        }
        self.host.indexes = links.indexes;
        self.host.tables(&[Table::Host, Table::Bridge], &self.skeletons, &mut objects)?;
        sysctl::read(&look.sysctls).into_iter().for_each(|object| put(&mut objects, object));
        seen.facts.underlay_mtu = links.underlay_mtu;
        seen.facts.no_ipv6 = !sysctl::has_ipv6();
        self.look_at_others(&mut objects, &mut seen.facts)?;
        let switches = self.switches.look(look, links.switched);
        match switches {
            Ok(switches) => switches.into_iter().for_each(|object| put(&mut objects, object)),
            Err(error) => seen.switch_error = Some(error),
        }
        Ok(objects)
    }

    /// What other people's firewalls mean for us, and our rules in them.
    fn look_at_others(
        &mut self,
        objects: &mut Objects,
        facts: &mut Facts,
    ) -> Result<(), KernelError> {
        let socket = &mut self.host.netfilter;
        let foreign = foreign::look(socket)?;
        facts.foreign_forward = foreign.forward || sysctl::legacy_iptables();
        [facts.passage4, facts.passage6] = foreign.tables.map(Iptables::has_place);
        facts.foreign_drop = foreign.drop;
        for (tables, family) in foreign.tables.into_iter().zip([Family::V4, Family::V6]) {
            if foreign::find(socket, &self.skeletons, family, tables)?.is_some() {
                put(objects, Object::Passage(family));
            }
        }
        Ok(())
    }

    fn look_inside(&mut self, key: &str, look: &SandboxLook) -> Result<Objects, KernelError> {
        let Self { home, host, sandboxes, skeletons, .. } = self;
        let moved =
            |inside: &Inside| look.netns.as_ref().is_some_and(|netns| *netns != inside.reference);
        if sandboxes.get(key).is_none_or(moved) {
            let missing = || KernelError::NoSandbox { key: key.to_owned() };
            let inside = open_inside(look.netns.as_ref().ok_or_else(missing)?, home, host)?;
            sandboxes.insert(key.to_owned(), inside);
        }
        let missing = || KernelError::NoSandbox { key: key.to_owned() };
        let inside = sandboxes.get_mut(key).ok_or_else(missing)?;
        let (mut objects, indexes) =
            route::observe_sandbox(&mut inside.sockets.route, &look.links, &host.indexes)?;
        inside.sockets.indexes = indexes;
        inside.sockets.tables(&[Table::Sandbox], skeletons, &mut objects)?;
        if !look.sysctls.is_empty() {
            let read = inside.netns.enter(home, || sysctl::read(&look.sysctls))?;
            read.into_iter().for_each(|object| put(&mut objects, object));
        }
        Ok(objects)
    }
}

fn open_inside(
    reference: &NetnsRef,
    home: &Netns,
    host: &mut Sockets,
) -> Result<Inside, KernelError> {
    let netns = Netns::open(reference, home)?;
    let sockets = netns.enter(home, Sockets::open)??;
    let nsid = route::namespace::id(&mut host.route, &netns)?;
    Ok(Inside { reference: reference.clone(), netns, sockets, nsid })
}

/// Closes sandboxes beside the loop: a netfilter socket's end waits for all of the kernel's readers, about
/// 20 ms.
fn close(gone: BTreeMap<String, Inside>) {
    if gone.is_empty() {
        return;
    }
    let thread = std::thread::Builder::new().name("weft-close".to_owned());
    // Where no thread can be had, they are closed with the closure.
    let _ = thread.spawn(move || drop(gone));
}

impl Kernel for LinuxKernel {
    fn observe(&mut self, look: &Look) -> Observation {
        let mut seen = Observation::default();
        if let Some(host) = &look.host {
            match self.look_at_host(host, &mut seen) {
                Ok(objects) => drop(seen.plane.places.insert(Place::Host, objects)),
                Err(error) => drop(seen.errors.insert(None, error)),
            }
            match self.look_at_tunnel(host) {
                Ok(inside) => {
                    let inside = inside.map(|objects| (Place::Tunnel, objects));
                    seen.plane.places.extend(inside);
                }
                Err(error) => drop(seen.errors.insert(None, error)),
            }
        }
        for (key, inside) in &look.sandboxes {
            match self.look_inside(key, inside) {
                Ok(objects) => {
                    seen.plane.places.insert(Place::Sandbox(key.clone()), objects);
                }
                Err(error) => drop(seen.errors.insert(Some(key.clone()), error)),
            }
        }
        seen
    }

    fn execute(&mut self, ops: &[Op]) -> Vec<Result<(), KernelError>> {
        execute::execute(self, ops)
    }

    fn release(&mut self, wanted: &BTreeMap<String, NetnsRef>) {
        let all = std::mem::take(&mut self.sandboxes).into_iter();
        let (kept, gone) = all.partition(|(key, _)| wanted.contains_key(key));
        self.sandboxes = kept;
        close(gone);
    }

    fn held(&self) -> Vec<String> {
        self.sandboxes.keys().cloned().collect()
    }
}
