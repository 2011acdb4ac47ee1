//! Links in the fake kernel: what they rest on, what comes with them and goes with them.

use super::*;

/// The loopback device of a new namespace.
pub(super) fn loopback() -> Object {
    Object::Link("lo".to_owned(), Link::bare(LinkKind::Loopback))
}

impl FakeKernel {
    pub(super) fn add_link(
        &mut self,
        place: &Place,
        name: &str,
        link: &Link,
    ) -> Result<(), KernelError> {
        let same_tunnel = |other: &Link| match (&other.kind, &link.kind) {
            (LinkKind::Vxlan { vni: a, port: p, .. }, LinkKind::Vxlan { vni: b, port: q, .. })
            | (LinkKind::Tunnelled { vni: a, port: p }, LinkKind::Tunnelled { vni: b, port: q }) => {
                (a, p) == (b, q)
            }
            _ => false,
        };
        self.check_parent(link)?;
        self.check_tunnel(link)?;
        let objects = self.objects(place);
        if let Some(master) =
            link.master.as_ref().filter(|name| plane::link(objects, name).is_none())
        {
            return Err(KernelError::NoLink { name: master.clone() });
        }
        let taken = objects.values().any(|object| match object {
            Object::Link(other, old) => other == name || same_tunnel(old),
            _ => false,
        });
        if taken {
            return Err(refused(libc::EEXIST));
        }
        put(objects, Object::Link(name.to_owned(), half_made(link)));
        add_parameters(objects, name);
        if let LinkKind::Stub { peer } = &link.kind {
            let kind = LinkKind::Stub { peer: name.to_owned() };
            put(objects, Object::Link(peer.clone(), half_made(&Link { kind, ..link.clone() })));
        }
        self.configure(place, name, link)
    }

    /// What comes with a new namespace.
    pub(super) fn open_tunnel(&mut self) {
        let inside = self.objects(&Place::Tunnel);
        put(inside, loopback());
        for (path, value) in [("net/ipv4/ip_forward", "1"), ("net/ipv4/conf/all/rp_filter", "2")] {
            put(inside, Object::Sysctl(path.to_owned(), Setting::Is(value.to_owned())));
        }
    }

    /// The tunnel's namespace is there for what is made in it, and the kernel knows WireGuard.
    fn check_tunnel(&self, link: &Link) -> Result<(), KernelError> {
        let there = self.plane.places.contains_key(&Place::Tunnel);
        match link.kind {
            LinkKind::Tunnelled { .. } if !there => Err(KernelError::NoTunnel),
            LinkKind::WireGuard if self.without.contains(&"wireguard") => {
                Err(wireguard::refusal(libc::EOPNOTSUPP))
            }
            _ => Ok(()),
        }
    }

    /// The end of the tunnel's namespace: what sends in it goes too.
    pub(super) fn close_tunnel(&mut self) {
        self.plane.places.remove(&Place::Tunnel);
        let host = self.objects(&Place::Host);
        let rests: Vec<String> = host
            .values()
            .filter_map(|object| match object {
                Object::Link(name, Link { kind: LinkKind::Tunnelled { .. }, .. }) => {
                    Some(name.clone())
                }
                _ => None,
            })
            .collect();
        rests.iter().for_each(|name| self.remove_link(&Place::Host, name));
    }

    /// The device of a switch.
    pub(super) fn add_device(
        &mut self,
        place: &Place,
        name: &str,
        mac: Option<Mac>,
    ) -> Result<(), KernelError> {
        let link = Link {
            kind: LinkKind::Internal,
            alias: String::new(),
            mac,
            mtu: crate::mtu::ETHERNET,
            master: None,
            port: None,
            up: false,
        };
        self.add_link(place, name, &link)
    }

    /// The device that a link is made on is there, and is shared.
    fn check_parent(&self, link: &Link) -> Result<(), KernelError> {
        let Some(parent) = route::child::parent(&link.kind) else { return Ok(()) };
        let missing = || KernelError::NoLink { name: parent.to_owned() };
        let host = self.plane.places.get(&Place::Host).ok_or_else(missing)?;
        plane::link(host, parent).ok_or_else(missing)?;
        let passthru = |kind: &LinkKind| match kind {
            LinkKind::Macvlan { parent: other, mode: MacvlanMode::Passthru } => other == parent,
            _ => false,
        };
        let all = self.plane.places.values().flat_map(|objects| objects.values());
        let taken = all.into_iter().any(|object| match object {
            Object::Link(_, other) => passthru(&other.kind),
            _ => false,
        });
        match (&link.kind, self.without.as_slice()) {
            (LinkKind::Ipvlan { .. }, ["ipvlan", ..]) => {
                Err(route::child::refusal(link, libc::EOPNOTSUPP))
            }
            (LinkKind::Macvlan { .. } | LinkKind::Ipvlan { .. }, _) if taken => {
                Err(KernelError::Taken { name: parent.to_owned() })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn add_pair(
        &mut self,
        place: &Place,
        outer: &Object,
        sandbox: &str,
        name: &str,
        inner: &Link,
    ) -> Result<(), KernelError> {
        let Object::Link(outer_name, outer) = outer else { return Err(refused(libc::EINVAL)) };
        let inside = Place::Sandbox(sandbox.to_owned());
        let Some(objects) = self.plane.places.get_mut(&inside) else {
            return Err(KernelError::NoSandbox { key: sandbox.to_owned() });
        };
        if plane::link(objects, name).is_some() {
            return Err(refused(libc::EEXIST));
        }
        let born = Link { mac: inner.mac, ..half_made(inner) };
        put(objects, Object::Link(name.to_owned(), born));
        add_parameters(objects, name);
        self.pairs.insert(((place.clone(), outer_name.clone()), (inside.clone(), name.to_owned())));
        let result = self.add_link(place, outer_name, outer);
        if result.is_err() && plane::link(self.objects(place), outer_name).is_none() {
            self.remove_link(&inside, name);
        }
        result
    }

    pub(super) fn configure(
        &mut self,
        place: &Place,
        name: &str,
        link: &Link,
    ) -> Result<(), KernelError> {
        let objects = self.objects(place);
        let missing = |name: &str| KernelError::NoLink { name: name.to_owned() };
        let old = plane::link(objects, name).ok_or_else(|| missing(name))?.clone();
        if let Some(master) = &link.master
            && plane::link(objects, master).is_none()
        {
            return Err(missing(master));
        }
        if old.master != link.master {
            objects.retain(|_, object| {
                !matches!(object, Object::Fdb(Fdb::Behind { port, .. }) if port == name)
            });
        }
        if link.mac.is_some() {
            objects.retain(
                |_, object| !matches!(object, Object::Neighbour { link, .. } if link == name),
            );
        }
        let new = Link { kind: old.kind, mac: link.mac.or(old.mac), ..link.clone() };
        put(objects, Object::Link(name.to_owned(), new));
        Ok(())
    }

    /// Removes a link, and the other end if it was a veth.
    pub(super) fn remove_link(&mut self, place: &Place, name: &str) {
        let old = plane::link(self.objects(place), name).cloned();
        plane::remove_link(self.objects(place), name);
        if let Some(Link { kind: LinkKind::Stub { peer }, .. }) = old {
            plane::remove_link(self.objects(place), &peer);
        }
        let end = (place.clone(), name.to_owned());
        let pair = self.pairs.iter().find(|(a, b)| *a == end || *b == end);
        if let Some(pair) = pair.cloned() {
            self.pairs.remove(&pair);
            for (place, name) in [pair.0, pair.1] {
                plane::remove_link(self.objects(&place), &name);
            }
        }
        if *place == Place::Host {
            self.remove_children(name);
        }
    }

    /// What was made on a device goes with it.
    fn remove_children(&mut self, parent: &str) {
        let mut gone = Vec::new();
        for (place, objects) in &self.plane.places {
            gone.extend(objects.values().filter_map(|object| match object {
                Object::Link(name, link) if route::child::parent(&link.kind) == Some(parent) => {
                    Some((place.clone(), name.clone()))
                }
                _ => None,
            }));
        }
        gone.into_iter().for_each(|(place, name)| self.remove_link(&place, &name));
    }
}

/// A link between being made and being configured: its group says that it is ours, its alias not yet whose.
fn half_made(link: &Link) -> Link {
    let alias = ALIAS_PREFIX.to_owned();
    Link { alias, master: None, port: None, up: false, ..link.clone() }
}

/// The parameters that come with a link.
fn add_parameters(objects: &mut Objects, name: &str) {
    let path = format!("net/ipv4/conf/{name}/rp_filter");
    put(objects, Object::Sysctl(path, Setting::Is("2".to_owned())));
    for (parameter, value) in [("disable_ipv6", "0"), ("accept_ra", "1")] {
        let path = format!("net/ipv6/conf/{name}/{parameter}");
        put(objects, Object::Sysctl(path, Setting::Is(value.to_owned())));
    }
}
