//! Links, addresses, rows, routes and rules by rtnetlink: each file writes and reads one kind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{HostLook, KernelError};
use crate::kernel::socket::Socket;
use crate::plane::{Objects, put};

pub(crate) mod address;
pub(crate) mod child;
pub(crate) mod link;
pub(crate) mod namespace;
pub(crate) mod neighbour;
pub(crate) mod policy;

/// Interface indexes by name, of one namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Indexes {
    by_name: BTreeMap<String, u32>,
    by_index: BTreeMap<u32, String>,
}

impl Indexes {
    pub(crate) fn insert(&mut self, name: String, index: u32) {
        self.by_index.insert(index, name.clone());
        self.by_name.insert(name, index);
    }

    pub(crate) fn forget(&mut self, name: &str) {
        if let Some(index) = self.by_name.remove(name) {
            self.by_index.remove(&index);
        }
    }

    pub(crate) fn index(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn name(&self, index: u32) -> Option<&str> {
        self.by_index.get(&index).map(String::as_str)
    }

    pub(crate) fn need(&self, name: &str) -> Result<u32, KernelError> {
        self.index(name).ok_or_else(|| KernelError::NoLink { name: name.to_owned() })
    }
}

/// What one look at the host's links gave.
pub(crate) struct HostLinks {
    pub(crate) objects: Objects,
    pub(crate) indexes: Indexes,
    pub(crate) underlay_mtu: Option<u32>,
    pub(crate) switched: BTreeSet<(String, u32, bool)>,
}

/// Reads everything of ours in the host that rtnetlink knows; `tunnel` is the number of the tunnel's
/// namespace.
pub(crate) fn observe_host(
    socket: &mut Socket,
    look: &HostLook,
    tunnel: Option<i32>,
) -> Result<HostLinks, KernelError> {
    let dump = link::dump(socket)?;
    let mut objects = Objects::new();
    let ours = link::host_objects(&dump, &look.links, tunnel, &mut objects);
    let indexes = link::indexes(&dump);
    let addresses = address::dump(socket)?;
    for (index, net) in &addresses {
        if let Some(name) = ours.name(*index)
            && !address::is_kernels_own(*net)
        {
            put(&mut objects, crate::plane::Object::Address(name.to_owned(), *net));
        }
    }
    let holder = |vtep: IpAddr| addresses.iter().find(|(_, net)| net.addr() == vtep);
    let underlay_mtu = look
        .vtep
        .and_then(holder)
        .and_then(|(index, _)| dump.iter().find(|link| link.index == *index));
    let underlay_mtu = underlay_mtu.map(|link| link.mtu);
    neighbour::forwarding(socket, &ours, &mut objects)?;
    neighbour::neighbours(socket, &ours, &mut objects)?;
    policy::barriers(socket, &mut objects)?;
    policy::rules(socket, &mut objects)?;
    let switched = link::switched(&dump);
    Ok(HostLinks { objects, indexes, underlay_mtu, switched })
}

/// What one look at the tunnel's links gave.
pub(crate) struct TunnelLinks {
    pub(crate) objects: Objects,
    pub(crate) indexes: Indexes,
    /// The WireGuard devices.
    pub(crate) devices: Vec<String>,
    /// What each of them lost.
    pub(crate) losses: Vec<link::Losses>,
}

/// Reads everything of ours in the tunnel's namespace that rtnetlink knows.
pub(crate) fn observe_tunnel(socket: &mut Socket) -> Result<TunnelLinks, KernelError> {
    let dump = link::dump(socket)?;
    let mut objects = Objects::new();
    let (ours, devices) = link::tunnel_objects(&dump, &mut objects);
    for (index, net) in address::dump(socket)? {
        if let Some(name) = ours.name(index) {
            put(&mut objects, crate::plane::Object::Address(name.to_owned(), net));
        }
    }
    policy::defaults(socket, &ours, &mut objects)?;
    let lossy = dump.iter().filter(|link| devices.contains(&link.name));
    let losses = lossy.map(|link| link.losses).collect();
    Ok(TunnelLinks { objects, indexes: link::indexes(&dump), devices, losses })
}

/// Reads everything of ours in a sandbox that rtnetlink knows; `wanted` are the interfaces that would be
/// ours even unmarked.
pub(crate) fn observe_sandbox(
    socket: &mut Socket,
    wanted: &std::collections::BTreeSet<String>,
    host: &Indexes,
) -> Result<(Objects, Indexes), KernelError> {
    let dump = link::dump(socket)?;
    let mut objects = Objects::new();
    let ours = link::sandbox_objects(&dump, wanted, host, &mut objects);
    for (index, net) in address::dump(socket)? {
        if let Some(name) = ours.name(index)
            && !address::is_kernels_own(net)
        {
            put(&mut objects, crate::plane::Object::Address(name.to_owned(), net));
        }
    }
    policy::defaults(socket, &ours, &mut objects)?;
    Ok((objects, link::indexes(&dump)))
}
