//! What this node's own networks and containers mean for its kernel and for names. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use weft_dns::{
    Asker, NetworkNames,
    asker::{Linked, Outside},
};
use weft_model::{
    Cable, CableEnd, Container, ContainerId, Network as Object, NetworkId, State,
    object::{Endpoint, Holder, PortBinding},
    spec::{Driver, NetworkMode, Protocol},
};
use weft_overlay::{
    Bridge, Dataplane, HostPolicy, Ipvlan, Kind, Mac, Macvlan, NetnsRef, Network, NetworkKey,
    Opening, Ovs, Port, Publish, Sandbox, Subnet, names,
};

use super::{
    Defaults,
    defaults::DEFAULT_BRIDGE,
    files::{has_names, network_has_names},
};
use crate::{
    desired::{
        LocalSandbox, LocalSandboxes, Sorted, ipvlan, key_of, key_without_vni, macvlan,
        network_key, with_prefixes,
    },
    plumbing::Resolving,
};

/// This node's own part of what is wanted.
pub struct Own<'a> {
    /// Its networks and containers.
    pub state: &'a State,
    /// What the daemon was told.
    pub defaults: &'a Defaults,
    /// The cluster's part: containers of this node may be on its networks.
    pub sorted: &'a Sorted<'a>,
    /// The sandboxes that are there.
    pub sandboxes: &'a LocalSandboxes,
}

impl Own<'_> {
    /// Adds it to what the kernel should hold.
    pub fn add_to(&self, plane: &mut Dataplane) {
        plane.host = HostPolicy {
            ip_forward: self.defaults.ip_forward,
            nftables: self.defaults.nftables,
            respects_firewall: self.defaults.respects_firewall,
        };
        for network in self.state.networks() {
            if let Some(kind) = self.kind(network) {
                plane.networks.insert(key(network.id), described(network, kind));
            }
        }
        for (container, sandbox) in self.present() {
            let name = key_of(Holder::Container(container.id));
            plane.sandboxes.insert(name, self.sandbox(container, sandbox));
            plane.publish.extend(self.published(container));
        }
        plane.cables =
            self.state.cables().map(|cable| (cable.id.to_string(), laid(cable))).collect();
    }

    /// The containers that have a sandbox now.
    fn present(&self) -> impl Iterator<Item = (&Container, &LocalSandbox)> {
        self.sandboxes.iter().filter_map(|(holder, sandbox)| match holder {
            Holder::Container(id) => Some((self.state.container(*id)?.as_ref(), sandbox)),
            Holder::Task(_) | Holder::Foreign(_) => None,
        })
    }

    fn is_present(&self, id: ContainerId) -> bool {
        self.sandboxes.contains_key(&Holder::Container(id))
    }

    fn kind(&self, network: &Object) -> Option<Kind> {
        let spec = &network.spec;
        Some(match spec.driver {
            Driver::Bridge => Kind::Bridge(self.bridge(network)),
            Driver::Macvlan => Kind::Macvlan(Macvlan {
                parent: spec.parent().map(ToOwned::to_owned),
                mode: macvlan(spec.macvlan_mode()),
            }),
            Driver::Ipvlan => Kind::Ipvlan(Ipvlan {
                parent: spec.parent().map(ToOwned::to_owned),
                mode: ipvlan(spec.ipvlan_mode()),
            }),
            Driver::Ovs => {
                let theirs = spec.ovs_bridge().map(ToOwned::to_owned);
                let owned = theirs.is_none();
                let bridge = theirs.unwrap_or_else(|| names::bridge(key(network.id)));
                Kind::Ovs(Ovs { bridge, owned })
            }
            Driver::Overlay | Driver::Host | Driver::Null => return None,
        })
    }

    fn bridge(&self, network: &Object) -> Bridge {
        let spec = &network.spec;
        let theirs = self.defaults.bridge.as_ref().filter(|_| spec.is_predefined());
        let icc = spec.icc();
        Bridge {
            device: theirs.cloned().unwrap_or_else(|| device(network)),
            owned: theirs.is_none(),
            icc,
            masquerade: spec.masquerade(),
            openings: if icc { BTreeSet::new() } else { self.openings(network.id) },
        }
    }

    /// What links open on a bridge whose members do not reach each other: the exposed and published
    /// ports of the target.
    fn openings(&self, network: NetworkId) -> BTreeSet<Opening> {
        let mut openings = BTreeSet::new();
        for (container, _) in self.present() {
            let Some(endpoint) = container.endpoint_on(network) else { continue };
            for link in &endpoint.spec.links {
                let Some(target) = self.state.container(link.target) else { continue };
                let Some(there) = target.endpoint_on(network) else { continue };
                let pairs = pairs(self.addresses(endpoint), self.addresses(there));
                for (from, to) in pairs {
                    openings.extend(ports(target).into_iter().map(|(port, protocol)| Opening {
                        from,
                        to,
                        protocol: lowered(protocol),
                        port,
                    }));
                }
            }
        }
        openings
    }

    fn sandbox(&self, container: &Container, local: &LocalSandbox) -> Sandbox {
        let mut attachments = BTreeMap::new();
        let mut vips = BTreeMap::new();
        for (rank, endpoint) in (0..).zip(&container.endpoints) {
            match endpoint.foreign() {
                true => {
                    let item = self.sorted.endpoints.get(&endpoint.attachment);
                    let network = item.and_then(|item| self.sorted.networks.get(&item.network));
                    let (Some(item), Some(network)) = (item, network) else { continue };
                    let port = Port {
                        ifname: endpoint.ifname.clone(),
                        mac: Mac(item.mac),
                        addresses: with_prefixes(&item.addresses, network),
                        default_gateway: !network.internal,
                        rank,
                    };
                    attachments.insert(network_key(item.network, network), port);
                    self.sorted.add_vips(item.network, &mut vips);
                }
                false => {
                    let network = self.state.network(endpoint.spec.network);
                    let found = self.state.attachment(endpoint.attachment);
                    let (Some(network), Some(found)) = (network, found) else { continue };
                    let port = Port {
                        ifname: endpoint.ifname.clone(),
                        mac: Mac(found.mac),
                        addresses: prefixed(&found.addresses, network),
                        default_gateway: !network.spec.internal,
                        rank,
                    };
                    attachments.insert(key(network.id), port);
                }
            }
        }
        let alone = container.spec.network == NetworkMode::None;
        Sandbox {
            netns: NetnsRef(local.netns.clone()),
            attachments,
            vips,
            dns_port: local.dns_port.filter(|_| !alone),
        }
    }

    /// The kernel's share of a container's ports; what is for loopback, and what changes the family,
    /// is its holder's.
    fn published(&self, container: &Container) -> Vec<Publish> {
        let Some((network, targets)) = self.reached_at(container) else { return Vec::new() };
        let publish = |binding: &PortBinding| {
            let target = targets.iter().find(|t| t.is_ipv4() == binding.host_ip.is_ipv4())?;
            Some(Publish {
                protocol: lowered(binding.protocol),
                host: binding.host_ip,
                host_port: binding.host_port,
                network: key(network),
                target: *target,
                port: binding.port,
            })
        };
        let bindings = container.ports.iter().filter(|binding| !binding.host_ip.is_loopback());
        bindings.filter_map(publish).collect()
    }

    /// Where published ports reach a container: its first bridge with a way out.
    pub fn reached_at(&self, container: &Container) -> Option<(NetworkId, Vec<IpAddr>)> {
        container.endpoints.iter().filter(|endpoint| !endpoint.foreign()).find_map(|endpoint| {
            let network = self.state.network(endpoint.spec.network)?;
            let fits = network.spec.driver == Driver::Bridge && !network.spec.internal;
            fits.then(|| (network.id, self.addresses(endpoint).to_vec()))
        })
    }

    fn addresses(&self, endpoint: &Endpoint) -> &[IpAddr] {
        let found = self.state.attachment(endpoint.attachment);
        found.map_or(&[], |found| &found.addresses)
    }

    /// The names on each of its networks: those of its members, with the addresses of the ones that
    /// are there. The default bridge has none.
    pub fn names(&self) -> Vec<NetworkNames> {
        let named = self.state.networks().filter(|n| network_has_names(self.state, n.id));
        let mut all: BTreeMap<NetworkId, NetworkNames> = named
            .map(|network| {
                let names = NetworkNames {
                    key: network.id.to_string(),
                    name: network.spec.name.clone(),
                    subnets: network.subnets.iter().map(|subnet| subnet.cidr).collect(),
                    ..NetworkNames::default()
                };
                (network.id, names)
            })
            .collect();
        for container in self.state.containers() {
            for endpoint in container.endpoints.iter().filter(|endpoint| !endpoint.foreign()) {
                if let Some(names) = all.get_mut(&endpoint.spec.network) {
                    self.add_names(names, container, endpoint);
                }
            }
        }
        all.into_values().collect()
    }

    fn add_names(&self, names: &mut NetworkNames, container: &Container, endpoint: &Endpoint) {
        let there = self.is_present(container.id);
        let own = [container.spec.name.clone(), container.id.short()];
        for name in own.iter().chain(&endpoint.spec.aliases) {
            let entry = names.names.entry(name.to_ascii_lowercase()).or_default();
            if there {
                entry.extend(self.addresses(endpoint));
            }
        }
        if there {
            let full = format!("{}.{}", container.spec.name, names.name);
            let addresses = self.addresses(endpoint).iter();
            names.reverse.extend(addresses.map(|address| (*address, full.clone())));
        }
    }

    /// Who a container is to the resolver.
    pub fn asker(&self, id: ContainerId, resolving: &Resolving) -> Asker {
        let endpoints = self.state.container(id).map_or(&[][..], |c| &c.endpoints[..]);
        let named = endpoints.iter().filter(|endpoint| has_names(self.state, endpoint));
        let open = endpoints.iter().any(|endpoint| self.leads_outside(endpoint));
        Asker {
            networks: named.clone().map(|endpoint| endpoint.spec.network.to_string()).collect(),
            upstreams: resolving.upstreams.clone(),
            outside: if open { Outside::Open } else { Outside::Closed },
            ndots: resolving.ndots,
            links: named.flat_map(|endpoint| self.links(endpoint)).collect(),
        }
    }

    fn leads_outside(&self, endpoint: &Endpoint) -> bool {
        match endpoint.foreign() {
            true => {
                let item = self.sorted.endpoints.get(&endpoint.attachment);
                let network = item.and_then(|item| self.sorted.networks.get(&item.network));
                network.is_some_and(|network| !network.internal)
            }
            false => {
                let network = self.state.network(endpoint.spec.network);
                network.is_some_and(|network| !network.spec.internal)
            }
        }
    }

    /// The names of a container's own choosing on one network, without addresses while the others
    /// are not there.
    fn links(&self, endpoint: &Endpoint) -> Vec<(String, Linked)> {
        let link = |link: &weft_model::spec::Link| {
            let there = self
                .state
                .container(link.target)
                .filter(|target| self.is_present(target.id))
                .and_then(|target| target.endpoint_on(endpoint.spec.network));
            let addresses = there.map(|there| match there.foreign() {
                true => {
                    let item = self.sorted.endpoints.get(&there.attachment);
                    item.map(|item| item.addresses.clone()).unwrap_or_default()
                }
                false => self.addresses(there).to_vec(),
            });
            let mut linked = Linked::default();
            linked.extend(addresses.unwrap_or_default());
            (link.alias.to_ascii_lowercase(), linked)
        };
        endpoint.spec.links.iter().map(link).collect()
    }
}

/// A direct link as the data plane has it; it is laid while both ends are there.
fn laid(cable: &Cable) -> weft_overlay::Cable {
    let end = |end: &CableEnd| weft_overlay::CableEnd {
        sandbox: key_of(Holder::Container(end.container)),
        ifname: end.ifname.clone(),
        addresses: vec![end.address],
    };
    weft_overlay::Cable { ends: [end(&cable.ends[0]), end(&cable.ends[1])] }
}

fn described(network: &Object, kind: Kind) -> Network {
    Network {
        id: network.id.to_string(),
        subnets: network
            .subnets
            .iter()
            .map(|subnet| Subnet { cidr: subnet.cidr, gateway: subnet.gateway })
            .collect(),
        internal: network.spec.internal,
        mtu: network.spec.mtu(),
        kind,
    }
}

/// What the data plane knows a network of this node by.
pub fn key(id: NetworkId) -> NetworkKey {
    key_without_vni(id)
}

/// The device of a bridge network of ours.
pub fn device(network: &Object) -> String {
    match network.spec.bridge_name() {
        Some(name) => name.to_owned(),
        None if network.spec.is_predefined() => DEFAULT_BRIDGE.to_owned(),
        None => names::bridge(key(network.id)),
    }
}

/// The ports a container is said to listen at, published ones included.
pub fn ports(container: &Container) -> BTreeSet<(u16, Protocol)> {
    let published = container.spec.publish.iter().map(|publish| (publish.port, publish.protocol));
    container.spec.expose.iter().copied().chain(published).collect()
}

fn lowered(protocol: Protocol) -> weft_overlay::Protocol {
    match protocol {
        Protocol::Tcp => weft_overlay::Protocol::Tcp,
        Protocol::Udp => weft_overlay::Protocol::Udp,
        Protocol::Sctp => weft_overlay::Protocol::Sctp,
    }
}

/// Each address with the prefix length of its subnet.
pub fn prefixed(addresses: &[IpAddr], network: &Object) -> Vec<IpNet> {
    let with = |address: &IpAddr| {
        let subnet = network.subnets.iter().find(|subnet| subnet.cidr.contains(address))?;
        IpNet::new(*address, subnet.cidr.prefix_len()).ok()
    };
    addresses.iter().filter_map(with).collect()
}

fn pairs(from: &[IpAddr], to: &[IpAddr]) -> Vec<(IpAddr, IpAddr)> {
    let same = |(a, b): &(&IpAddr, &IpAddr)| a.is_ipv4() == b.is_ipv4();
    let all = from.iter().flat_map(|a| to.iter().map(move |b| (a, b)));
    all.filter(same).map(|(a, b)| (*a, *b)).collect()
}
