//! The tunnel's namespace: opened, looked at, and written to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use weft_wire::{Key, Reason, Status};

use super::{LinuxKernel, Sockets};
use crate::dataplane::Tunnel;
use crate::kernel::netns::Netns;
use crate::kernel::nft::compile::Skeletons;
use crate::kernel::nft::{family, ruleset};
use crate::kernel::route::link::Losses;
use crate::kernel::socket::Socket;
use crate::kernel::wireguard::{self, Device, Family, SeenPeer};
use crate::kernel::{KernelError, route, sysctl};
use crate::op::{Op, Verb};
use crate::plane::{Object, Objects, Peer, Table, put};

/// The open namespace.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) netns: Netns,
    pub(super) sockets: Sockets,
    /// The kernel's number for it as seen from the host.
    pub(super) nsid: Option<i32>,
    generic: Socket,
    family: Option<Family>,
    devices: Vec<String>,
    /// What each peer was told of where it is, by us.
    told: BTreeMap<(String, Key), SocketAddr>,
}

/// Opens the namespace that is held at `path`, if it is not the one that is open already. None is held
/// there: it is closed.
pub(super) fn reopen(
    space: &mut Option<Space>,
    path: &Path,
    home: &Netns,
    host: &mut Sockets,
) -> Result<(), KernelError> {
    let Some(netns) = Netns::made(path).filter(|netns| !netns.is(home)) else {
        *space = None;
        return Ok(());
    };
    if space.as_ref().is_some_and(|space| space.netns.is(&netns)) {
        return Ok(());
    }
    *space = None;
    let open = || Ok((Sockets::open()?, Socket::open(libc::NETLINK_GENERIC)?));
    let (sockets, generic) = netns.enter(home, open)??;
    let nsid = route::namespace::id(&mut host.route, &netns)?;
    let (family, devices, told) = (None, Vec::new(), BTreeMap::new());
    *space = Some(Space { netns, sockets, nsid, generic, family, devices, told });
    Ok(())
}

impl Space {
    /// Everything of ours in it.
    pub(super) fn look(
        &mut self,
        parameters: &BTreeSet<String>,
        skeletons: &Skeletons,
        home: &Netns,
    ) -> Result<Objects, KernelError> {
        let links = route::observe_tunnel(&mut self.sockets.route)?;
        let mut objects = links.objects;
        self.sockets.indexes = links.indexes;
        self.devices = links.devices;
        self.sockets.tables(&[Table::Tunnel], skeletons, &mut objects)?;
        if !parameters.is_empty() {
            let read = self.netns.enter(home, || sysctl::read(parameters))?;
            read.into_iter().for_each(|object| put(&mut objects, object));
        }
        let now = SystemTime::now();
        for name in self.devices.clone() {
            let device = self.device(&name)?;
            let secret =
                device.key.map(|key| Object::Secret { link: name.clone(), key, port: device.port });
            secret.into_iter().for_each(|object| put(&mut objects, object));
            for peer in device.peers {
                let endpoint = self.endpoint(&name, &peer, now);
                let SeenPeer { key, allowed, keepalive, .. } = peer;
                let peer = Peer { link: name.clone(), key, allowed, endpoint, keepalive };
                put(&mut objects, Object::Peer(peer));
            }
        }
        Ok(objects)
    }

    /// Where a peer counts as being. A peer with a session may have moved, and says so itself: for that what
    /// it was told last is what matters, if that is known.
    fn endpoint(&self, link: &str, peer: &SeenPeer, now: SystemTime) -> Option<SocketAddr> {
        match peer.is_alive(now) {
            true => self.told.get(&(link.to_owned(), peer.key)).copied(),
            false => peer.endpoint,
        }
    }

    fn family(&mut self) -> Result<Family, KernelError> {
        match self.family {
            Some(family) => Ok(family),
            None => Ok(*self.family.insert(wireguard::family(&mut self.generic)?)),
        }
    }

    fn device(&mut self, name: &str) -> Result<Device, KernelError> {
        let (family, index) = (self.family()?, self.sockets.indexes.need(name)?);
        wireguard::read(&mut self.generic, family, index)
    }

    /// Executes one operation on a WireGuard device.
    pub(super) fn execute(&mut self, op: &Op) -> Result<(), KernelError> {
        let family = self.family()?;
        let (message, peer) = match (&op.object, &op.verb) {
            (Object::Secret { link, key, port }, Verb::Add | Verb::Change) => {
                let index = self.index(link)?;
                (wireguard::write_secret(family, index, *key, *port), None)
            }
            (Object::Peer(peer), Verb::Remove) => {
                self.told.remove(&(peer.link.clone(), peer.key));
                let index = self.index(&peer.link)?;
                (wireguard::remove_peer(family, index, peer), None)
            }
            (Object::Peer(peer), Verb::Add | Verb::Change) => {
                let index = self.index(&peer.link)?;
                (wireguard::write_peer(family, index, peer), Some(peer))
            }
            _ => return Err(KernelError::Senseless { op: op.to_string() }),
        };
        let answers = self.generic.request(vec![message]);
        let answers = answers.map_err(|error| KernelError::io("WireGuard", &error))?;
        let refused = |errno| KernelError::errno("WireGuard", errno);
        answers.into_iter().find(Result::is_err).unwrap_or(Ok(())).map_err(refused)?;
        if let Some((peer, endpoint)) = peer.and_then(|peer| Some((peer, peer.endpoint?))) {
            self.told.insert((peer.link.clone(), peer.key), endpoint);
        }
        Ok(())
    }

    fn index(&mut self, name: &str) -> Result<u32, KernelError> {
        if let Some(index) = self.sockets.indexes.index(name) {
            return Ok(index);
        }
        let index = route::link::find(&mut self.sockets.route, name)?;
        self.sockets.indexes.insert(name.to_owned(), index);
        Ok(index)
    }
}

impl LinuxKernel {
    /// How the encrypted link is doing, by the engine that carries it. The kernel counts bytes for each peer,
    /// and what it dropped for all of them together.
    ///
    /// # Errors
    /// If the engine, or the kernel, does not answer.
    pub fn tunnel_status(&mut self, tunnel: &Tunnel) -> Result<Status, KernelError> {
        match tunnel.engine {
            crate::dataplane::Engine::Userspace => self.wire.status(),
            crate::dataplane::Engine::Kernel => {
                let path = self.tunnel_file();
                reopen(&mut self.tunnel, &path, &self.home, &mut self.host)?;
                let space = self.tunnel.as_mut().ok_or(KernelError::NoTunnel)?;
                space.status(tunnel)
            }
        }
    }
}

impl Space {
    fn status(&mut self, tunnel: &Tunnel) -> Result<Status, KernelError> {
        let links = route::observe_tunnel(&mut self.sockets.route)?;
        self.sockets.indexes = links.indexes;
        let mut devices = Vec::new();
        for name in links.devices {
            devices.push(self.device(&name)?);
        }
        let peers = tunnel.nodes.iter().map(|(number, node)| {
            let keys: BTreeSet<Key> = node.identities.iter().map(|key| key.public_key).collect();
            let peers = devices.iter().flat_map(|device| &device.peers);
            let own: Vec<&SeenPeer> = peers.filter(|peer| keys.contains(&peer.key)).collect();
            (*number, wireguard::status(&own, SystemTime::now()))
        });
        let counted = ruleset::counters(&mut self.sockets.netfilter, family(Table::Tunnel))?;
        let drops = drops(&links.losses, &counted);
        Ok(Status { peers: peers.collect(), drops, ..Status::default() })
    }
}

/// What was dropped, in the words of our own engine. The devices count what is authentic and has an inner
/// source that its key may not have (received, wrong), what has no peer (unsendable), and what there was no
/// room for; our rules count what is not VXLAN, or not what its sender may send.
fn drops(losses: &[Losses], counted: &BTreeMap<String, u64>) -> BTreeMap<Reason, u64> {
    let rule = |name: &str| counted.get(name).copied().unwrap_or(0);
    let lost = |which: fn(&Losses) -> u64| losses.iter().map(which).sum::<u64>();
    let all = [
        (Reason::ForeignInside, rule("foreign-inside") + lost(|losses| losses.wrong)),
        (Reason::ForeignNetwork, rule("foreign-network")),
        (Reason::SpoofedSource, rule("spoofed-source")),
        (Reason::NoDestination, lost(|losses| losses.unsendable)),
        (Reason::NoSession, lost(|losses| losses.not_sent)),
        (Reason::Device, lost(|losses| losses.not_taken)),
    ];
    all.into_iter().filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dropped_is_told_by_reason_over_all_devices() {
        let losses = Losses { wrong: 1, unsendable: 2, not_taken: 3, not_sent: 4 };
        let counted = [("foreign-inside".to_owned(), 10), ("spoofed-source".to_owned(), 20)];
        let expected = [
            (Reason::ForeignInside, 12),
            (Reason::SpoofedSource, 20),
            (Reason::NoDestination, 4),
            (Reason::NoSession, 8),
            (Reason::Device, 6),
        ];
        assert_eq!(drops(&[losses, losses], &counted.into()), expected.into());
        assert_eq!(drops(&[], &BTreeMap::new()), BTreeMap::new());
    }
}
