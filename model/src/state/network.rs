//! Networks, and which of their addresses are used by whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use weft_ipam::{Pool, Use, choose_address, overlaps, vni};

use super::{State, not_found};
use crate::{
    command::Applied,
    id::NetworkId,
    object::{Holder, Meta, Network, Subnet},
    rejected::Rejected,
    spec::{Driver, Invalid, NetworkSpec, Scope},
};

/// How long a released address rests: longer than the TTL of names and than the timeout of an idle
/// UDP flow in connection tracking (30 s).
const REST: Duration = Duration::from_secs(60);

/// How the addresses of one subnet are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressUse {
    /// Addresses that can be given out.
    pub size: u128,
    /// Held by tasks.
    pub tasks: usize,
    /// Held by containers of this node.
    pub containers: usize,
    /// Held by namespaces of others.
    pub foreign: usize,
    /// Held by tasks and others of nodes that are out of touch: they stay held until the node is
    /// back.
    pub out_of_touch: usize,
    /// Held by services.
    pub vips: usize,
    /// Released less than 60 s ago.
    pub resting: usize,
}

impl AddressUse {
    /// Addresses that nobody holds; those at rest included.
    pub fn free(&self) -> u128 {
        self.size.saturating_sub((self.tasks + self.containers + self.foreign + self.vips) as u128)
    }
}

impl State {
    pub(super) fn create_network(
        &mut self,
        id: NetworkId,
        spec: &NetworkSpec,
        vni: Option<u32>,
        subnets: &[Subnet],
    ) -> Result<Applied, Rejected> {
        match spec.scope() {
            Scope::Cluster => {
                self.has_cluster()?;
            }
            Scope::Local => self.has_no_cluster(spec)?,
        }
        spec.check()?;
        self.refuse_taken(id, spec)?;
        self.check_vni(spec, vni)?;
        self.check_devices(id, spec)?;
        self.check_parent(id, spec)?;
        check_some(subnets)?;
        self.check_subnets(id, subnets)?;
        let meta = Meta::new(self.now);
        let encrypted = self.is_encrypted(spec);
        let network =
            Network { id, meta, spec: spec.clone(), vni, subnets: subnets.to_vec(), encrypted };
        self.networks.insert_mut(id, Arc::new(network));
        if vni.is_some() {
            self.change_cluster(|cluster| cluster.last_vni = vni)?;
        }
        Ok(Applied::of(id))
    }

    /// Refuses a network whose name or ID another one has.
    ///
    /// # Errors
    /// [`Rejected::Exists`], or [`Rejected::OtherEncryption`] if the two differ in that.
    pub fn refuse_taken(&self, id: NetworkId, spec: &NetworkSpec) -> Result<(), Rejected> {
        let same = |other: &str| other.eq_ignore_ascii_case(&spec.name);
        let Some(other) = self.networks().find(|n| n.id == id || same(&n.spec.name)) else {
            return Ok(());
        };
        let (name, id) = (spec.name.clone(), other.id.short());
        let overlays = spec.driver == Driver::Overlay && other.spec.driver == Driver::Overlay;
        let encrypted = other.encrypted;
        Err(if overlays && encrypted != self.is_encrypted(spec) {
            Rejected::OtherEncryption { name, id, encrypted }
        } else {
            Rejected::Exists { kind: "network".to_owned(), name, id }
        })
    }

    /// What its own words say, or the cluster's.
    fn is_encrypted(&self, spec: &NetworkSpec) -> bool {
        let default = self.cluster.as_ref().is_some_and(|cluster| cluster.spec.encrypt_overlays);
        spec.driver == Driver::Overlay && spec.encrypted().unwrap_or(default)
    }

    /// Makes a predefined network, or gives it other settings as long as nobody is on it.
    pub(super) fn set_predefined(
        &mut self,
        id: NetworkId,
        spec: &NetworkSpec,
        subnets: &[Subnet],
    ) -> Result<Applied, Rejected> {
        self.has_no_cluster(spec)?;
        spec.check_predefined()?;
        let present = self.networks().find(|network| network.spec.name == spec.name).cloned();
        let id = present.as_ref().map_or(id, |network| network.id);
        if spec.driver == Driver::Bridge {
            check_some(subnets)?;
        }
        self.check_devices(id, spec)?;
        self.check_subnets(id, subnets)?;
        let meta = Meta::new(self.now);
        let network = Network {
            id,
            meta,
            spec: spec.clone(),
            vni: None,
            subnets: subnets.to_vec(),
            encrypted: false,
        };
        let Some(present) = present else {
            if self.networks.contains_key(&id) {
                let (kind, name) = ("network".to_owned(), spec.name.clone());
                return Err(Rejected::Exists { kind, name, id: id.short() });
            }
            self.networks.insert_mut(id, Arc::new(network));
            return Ok(Applied::of(id));
        };
        let same = |a: &Subnet, b: &Subnet| {
            (a.cidr, a.gateway, a.range, &a.auxiliary) == (b.cidr, b.gateway, b.range, &b.auxiliary)
        };
        let kept = present.subnets.len() == subnets.len()
            && present.subnets.iter().zip(subnets).all(|(a, b)| same(a, b));
        let users = self.network_users(id);
        if !kept && !users.is_empty() {
            return Err(in_use(&present, users));
        }
        let mut next = Network::clone(&present);
        next.spec = network.spec;
        if !kept {
            next.subnets = network.subnets;
        }
        if next != *present {
            next.meta.touch(self.now);
            self.networks.insert_mut(id, Arc::new(next));
        }
        Ok(Applied::of(id))
    }

    fn has_no_cluster(&self, spec: &NetworkSpec) -> Result<(), Rejected> {
        if self.cluster().is_none() {
            return Ok(());
        }
        Err(Rejected::Forbidden {
            what: format!("network {} cannot be made in the cluster", spec.name),
            why: format!("a network of driver {} is of scope local", spec.driver.word()),
            hint: "use -d overlay, or macvlan or ipvlan with --scope cluster".to_owned(),
        })
    }

    /// Overlays have a VNI of their own, and nothing else has one.
    fn check_vni(&self, spec: &NetworkSpec, vni: Option<u32>) -> Result<(), Rejected> {
        let refused = |what: String, why: &str| {
            let (why, hint) = (why.to_owned(), String::new());
            Err(Rejected::Forbidden { what, why, hint })
        };
        let Some(vni) = vni else {
            return match spec.driver {
                Driver::Overlay => refused("the overlay has no VNI".to_owned(), "none was chosen"),
                Driver::Bridge
                | Driver::Host
                | Driver::Null
                | Driver::Macvlan
                | Driver::Ipvlan
                | Driver::Ovs => Ok(()),
            };
        };
        if spec.driver != Driver::Overlay {
            let why = "the network is no overlay";
            return refused(format!("VNI {vni} cannot be used"), why);
        }
        let in_range = (vni::FIRST..=vni::LAST).contains(&vni);
        if !in_range || self.networks().any(|network| network.vni == Some(vni)) {
            return refused(format!("VNI {vni} cannot be used"), "it is taken or out of range");
        }
        Ok(())
    }

    /// No two networks have one device of the host.
    fn check_devices(&self, id: NetworkId, spec: &NetworkSpec) -> Result<(), Rejected> {
        let Some(device) = spec.bridge_name() else { return Ok(()) };
        let twin = |other: &&Arc<Network>| {
            other.id != id && other.spec.bridge_name().is_some_and(|name| name == device)
        };
        match self.networks().find(twin) {
            Some(other) => {
                let reason = format!("is the device of network {}", other.spec.name);
                Err(Invalid::new("bridge name", device, reason).into())
            }
            None => Ok(()),
        }
    }

    /// All ipvlan devices on a parent have one mode: one that is made in another changes that of all
    /// (`ipvlan_set_port_mode`).
    fn check_parent(&self, id: NetworkId, spec: &NetworkSpec) -> Result<(), Rejected> {
        let on = |spec: &NetworkSpec| match spec.driver {
            Driver::Ipvlan => spec.parent().map(ToOwned::to_owned),
            _ => None,
        };
        let Some(parent) = on(spec) else { return Ok(()) };
        let differs = |other: &&Arc<Network>| {
            let same = other.id != id && on(&other.spec).as_ref() == Some(&parent);
            same && other.spec.ipvlan_mode() != spec.ipvlan_mode()
        };
        match self.networks().find(differs) {
            Some(other) => {
                let reason = format!("network {} has it in another ipvlan mode", other.spec.name);
                let hint = "give it the same -o mode, or another -o parent";
                Err(Invalid::new("option parent", parent, reason).hint(hint).into())
            }
            None => Ok(()),
        }
    }

    /// The subnets hold their gateways and ranges, and overlap neither each other nor those of
    /// networks other than `id`.
    fn check_subnets(&self, id: NetworkId, subnets: &[Subnet]) -> Result<(), Rejected> {
        for (index, subnet) in subnets.iter().enumerate() {
            let inside =
                subnet.cidr.contains(&subnet.gateway) && subnet.cidr.contains(&subnet.range);
            if !inside {
                return Err(Rejected::Address {
                    address: subnet.gateway,
                    network: subnet.cidr.to_string(),
                    reason: "gateway or range lies outside".to_owned(),
                });
            }
            let earlier = subnets[..index].iter().map(|s| (s.cidr, "the same network".to_owned()));
            let others = self.networks().filter(|network| network.id != id).flat_map(|network| {
                let owner = format!("network {}", network.spec.name);
                network.subnets.iter().map(move |s| (s.cidr, owner.clone()))
            });
            if let Some((other, owner)) =
                earlier.chain(others).find(|(other, _)| overlaps(*other, subnet.cidr))
            {
                return Err(Rejected::Overlap { subnet: subnet.cidr, other, owner });
            }
        }
        Ok(())
    }

    pub(super) fn remove_network(&mut self, id: NetworkId) -> Result<Applied, Rejected> {
        let network = self.network(id).ok_or_else(|| not_found("network", id))?;
        if network.spec.is_predefined() {
            return Err(Rejected::Forbidden {
                what: format!("network {} cannot be removed", network.spec.name),
                why: "it is a pre-defined network".to_owned(),
                hint: String::new(),
            });
        }
        let users = self.network_users(id);
        if !users.is_empty() {
            return Err(in_use(network, users));
        }
        self.networks.remove_mut(&id);
        Ok(Applied::of(id))
    }

    /// Who uses a network: services, tasks whose service is gone, and namespaces of
    /// others.
    pub fn network_users(&self, id: NetworkId) -> Vec<String> {
        let services = self
            .services()
            .filter(|service| service.spec.networks.iter().any(|usage| usage.network == id))
            .map(|service| format!("service {}", service.spec.name));
        let tasks = self.attachments().filter(|attachment| attachment.network == id).filter_map(
            |attachment| match attachment.holder {
                Holder::Task(task) => {
                    let task = self.task(task)?;
                    let orphan = self.service(task.service).is_none();
                    orphan.then(|| format!("task {}", task.name()))
                }
                Holder::Foreign(id) => {
                    self.foreign(id).map(|foreign| format!("attachment {}", foreign.name))
                }
                Holder::Container(id) => {
                    self.container(id).map(|container| format!("container {}", container.spec.name))
                }
            },
        );
        services.chain(tasks).collect()
    }

    /// The addresses of a network that somebody holds.
    pub fn taken(&self, id: NetworkId) -> BTreeSet<IpAddr> {
        let attached = self
            .attachments()
            .filter(|attachment| attachment.network == id)
            .flat_map(|attachment| attachment.addresses.iter().copied());
        let vips = self
            .services()
            .filter_map(|service| service.vips.get(&id))
            .flat_map(|addresses| addresses.iter().copied());
        attached.chain(vips).collect()
    }

    /// One free address of each family, chosen anew.
    ///
    /// # Errors
    /// [`Rejected::Exhausted`] with how many of each use there are, and what to do.
    pub fn choose_addresses(&self, id: NetworkId) -> Result<Vec<IpAddr>, Rejected> {
        self.choose_addresses_beside(id, &[])
    }

    /// The same, with those that the user has given: they stay, what is missing is chosen.
    ///
    /// # Errors
    /// As before. Whether a given address may be had is checked by `apply`.
    pub fn choose_addresses_beside(
        &self,
        id: NetworkId,
        given: &[IpAddr],
    ) -> Result<Vec<IpAddr>, Rejected> {
        let network = self.network(id).ok_or_else(|| not_found("network", id))?;
        let taken = self.taken(id);
        let mut chosen: Vec<IpAddr> = given.to_vec();
        for family in [Family::V4, Family::V6] {
            if given.iter().any(|address| family.is_of(*address)) {
                continue;
            }
            let subnets: Vec<_> =
                network.subnets.iter().filter(|s| family.is_of(s.cidr.addr())).collect();
            let found = subnets.iter().find_map(|subnet| subnet.choose(&taken, self.now).ok());
            match found {
                Some(address) => chosen.push(address),
                None if subnets.is_empty() => {}
                None => return Err(self.exhausted(network)),
            }
        }
        Ok(chosen)
    }

    /// The refusal of a network that has no address left.
    fn exhausted(&self, network: &Network) -> Rejected {
        let uses: Vec<_> = network
            .subnets
            .iter()
            .map(|subnet| {
                let usage = self.address_use(network, subnet);
                let silent = if usage.out_of_touch == 0 {
                    String::new()
                } else {
                    format!(" ({} of nodes that are out of touch)", usage.out_of_touch)
                };
                let foreign = if usage.foreign == 0 {
                    String::new()
                } else {
                    format!(", {} by attached namespaces", usage.foreign)
                };
                format!(
                    "{} has {} addresses: {} held by tasks{foreign}{silent}, {} by VIPs",
                    subnet.cidr, usage.size, usage.tasks, usage.vips
                )
            })
            .collect();
        Rejected::Exhausted {
            pool: format!("network {}", network.spec.name),
            detail: uses.join("; "),
            hint: "scale down, use --endpoint-mode dnsrr to save the VIP, bring back or remove \
                   nodes that are out of touch (weft node rm --force), or make a larger network"
                .to_owned(),
        }
    }

    /// How the addresses of a subnet are used.
    pub fn address_use(&self, network: &Network, subnet: &Subnet) -> AddressUse {
        let inside = |addresses: &[IpAddr]| {
            addresses.iter().filter(|address| subnet.cidr.contains(*address)).count()
        };
        let mut usage = AddressUse {
            size: subnet.size(),
            resting: subnet.resting.values().filter(|at| self.now.since(**at) < REST).count(),
            ..AddressUse::default()
        };
        for attachment in self.attachments().filter(|a| a.network == network.id) {
            let held = inside(&attachment.addresses);
            match attachment.holder {
                Holder::Task(_) => usage.tasks += held,
                Holder::Foreign(_) => usage.foreign += held,
                Holder::Container(_) => usage.containers += held,
            }
            let node = attachment.node.and_then(|node| self.node(node));
            if node.is_some_and(|node| !node.in_touch()) {
                usage.out_of_touch += held;
            }
        }
        let vips = self.services().filter_map(|service| service.vips.get(&network.id));
        usage.vips = vips.map(|addresses| inside(addresses)).sum();
        usage
    }

    /// Checks that the addresses are one of each family of the network, free and allowed, and
    /// moves the cursors.
    pub(super) fn take_addresses(
        &mut self,
        id: NetworkId,
        addresses: &[IpAddr],
    ) -> Result<(), Rejected> {
        let network = self.network(id).ok_or_else(|| not_found("network", id))?;
        let refused = |address: &IpAddr, reason: &str| Rejected::Address {
            address: *address,
            network: network.spec.name.clone(),
            reason: reason.to_owned(),
        };
        let taken = self.taken(id);
        let mut next = Network::clone(network);
        for address in addresses {
            if taken.contains(address) {
                return Err(refused(address, "is taken"));
            }
            let subnet = next.subnets.iter_mut().find(|subnet| subnet.may_give(address));
            let subnet = subnet.ok_or_else(|| refused(address, "may not be given out"))?;
            subnet.cursor = Some(*address);
            subnet.resting.remove(address);
        }
        let wanted = super::families(network.subnets.iter().map(|s| &s.gateway));
        let given = super::families(addresses);
        let fits = |wanted: usize, given: usize| given == wanted.min(1);
        if !fits(wanted.0, given.0) || !fits(wanted.1, given.1) {
            return Err(Rejected::Forbidden {
                what: format!("an attachment to network {} is refused", network.spec.name),
                why: "it must have one address of each family".to_owned(),
                hint: String::new(),
            });
        }
        self.networks.insert_mut(id, Arc::new(next));
        Ok(())
    }

    /// Lays addresses that nobody holds any more to rest.
    pub(super) fn rest_addresses(&mut self, id: NetworkId, addresses: &[IpAddr]) {
        let now = self.now;
        let Some(network) = self.network(id) else { return };
        let mut next = Network::clone(network);
        for subnet in &mut next.subnets {
            subnet.resting.retain(|_, at| now.since(*at) < REST);
            let own = addresses.iter().filter(|address| subnet.cidr.contains(*address));
            subnet.resting.extend(own.map(|address| (*address, now)));
        }
        self.networks.insert_mut(id, Arc::new(next));
    }
}

fn check_some(subnets: &[Subnet]) -> Result<(), Rejected> {
    if !subnets.is_empty() {
        return Ok(());
    }
    Err(Rejected::Forbidden {
        what: "the network has no subnet".to_owned(),
        why: "none was chosen".to_owned(),
        hint: String::new(),
    })
}

fn in_use(network: &Network, users: Vec<String>) -> Rejected {
    Rejected::InUse { kind: "network".to_owned(), name: network.spec.name.clone(), users }
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn is_of(self, address: IpAddr) -> bool {
        match self {
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

impl Subnet {
    fn reserved(&self) -> BTreeSet<IpAddr> {
        self.auxiliary.values().copied().chain([self.gateway]).collect()
    }

    fn with_pool<T>(&self, look: impl FnOnce(Pool<'_>) -> T) -> T {
        let reserved = self.reserved();
        look(Pool {
            subnet: self.cidr,
            range: self.range,
            reserved: &reserved,
            cursor: self.cursor,
        })
    }

    /// How many addresses can be given out.
    pub fn size(&self) -> u128 {
        self.with_pool(|pool| pool.size())
    }

    /// Whether the address may be held by a task or a VIP.
    pub fn may_give(&self, address: &IpAddr) -> bool {
        self.with_pool(|pool| pool.may_give(address))
    }

    fn choose(
        &self,
        taken: &BTreeSet<IpAddr>,
        now: crate::Time,
    ) -> Result<IpAddr, weft_ipam::Exhausted> {
        let resting: BTreeMap<IpAddr, u64> = self
            .resting
            .iter()
            .filter(|(_, at)| now.since(**at) < REST)
            .map(|(address, at)| (*address, at.0))
            .collect();
        self.with_pool(|pool| choose_address(pool, Use { taken, resting: &resting }))
    }
}
