//! Direct links between two containers: which interface and which address each end has.

use std::sync::Arc;

use ipnet::IpNet;

use super::{State, not_found};
use crate::{
    cable::{Cable, CableEnd, overlap},
    command::Applied,
    id::{CableId, ContainerId},
    object::{Container, Wanted},
    rejected::Rejected,
    spec::{Invalid, NetworkMode},
};

/// Longest IPv4 prefix that has two addresses for hosts (RFC 3021).
const LONGEST_V4: u8 = 31;
/// The same of IPv6 (RFC 6164).
const LONGEST_V6: u8 = 127;

/// Looking.
impl State {
    /// All direct links, by ID.
    pub fn cables(&self) -> impl Iterator<Item = &Arc<Cable>> {
        self.cables.values()
    }

    /// One of them.
    pub fn cable(&self, id: CableId) -> Option<&Arc<Cable>> {
        self.cables.get(&id)
    }

    /// Whether a container has an interface of this name, on a network or at a direct link.
    pub fn has_interface(&self, container: &Container, ifname: &str) -> bool {
        let mut ends = self.cables().filter_map(|cable| cable.end_in(container.id));
        container.endpoints.iter().any(|endpoint| endpoint.ifname == ifname)
            || ends.any(|end| end.ifname == ifname)
    }
}

/// Changing.
impl State {
    pub(super) fn connect_pair(
        &mut self,
        id: CableId,
        ends: &[CableEnd; 2],
    ) -> Result<Applied, Rejected> {
        let cable = Cable { id, ends: ends.clone() };
        if self.cables.contains_key(&id) {
            let (kind, id) = ("link".to_owned(), id.short());
            return Err(Rejected::Exists { kind, name: id.clone(), id });
        }
        for end in ends {
            self.check_end(end)?;
        }
        if ends[0].container == ends[1].container {
            let text = ends[0].container.short();
            return Err(Invalid::new("containers", text, "is named twice").into());
        }
        check_addresses(&cable)?;
        self.check_subnet_of(&cable)?;
        self.cables.insert_mut(id, Arc::new(cable));
        Ok(Applied::of(id))
    }

    /// Drops the direct links of a container that is forgotten.
    pub(super) fn drop_cables(&mut self, container: ContainerId) {
        let gone = self.cables().filter(|cable| cable.end_in(container).is_some());
        let gone: Vec<_> = gone.map(|cable| cable.id).collect();
        for id in gone {
            self.cables.remove_mut(&id);
        }
    }

    fn check_end(&self, end: &CableEnd) -> Result<(), Rejected> {
        let container = self.container(end.container);
        let container = container.ok_or_else(|| not_found("container", end.container.short()))?;
        let why = match container.spec.network {
            NetworkMode::Host => Some("it has the host's network namespace"),
            NetworkMode::Container(_) => Some("it has another container's network namespace"),
            NetworkMode::Networks | NetworkMode::None => None,
        };
        let removed = (container.wanted == Wanted::Removed).then_some("it is being removed");
        if let Some(why) = why.or(removed) {
            return Err(Rejected::Forbidden {
                what: format!("container {} cannot have a direct link", container.spec.name),
                why: why.to_owned(),
                hint: String::new(),
            });
        }
        crate::spec::check_device("interface", &end.ifname)?;
        match self.has_interface(container, &end.ifname) {
            true => Err(Invalid::new("interface", &end.ifname, "is given twice").into()),
            false => Ok(()),
        }
    }

    /// An address of the node's networks, or of another link, would not be reached any more.
    fn check_subnet_of(&self, cable: &Cable) -> Result<(), Rejected> {
        let subnet = cable.subnet();
        let taken = |other: IpNet, by: String| {
            let reason = format!("overlaps {other} of {by}");
            Rejected::from(Invalid::new("--subnet", subnet, reason))
        };
        for network in self.networks() {
            let mut own = network.subnets.iter().map(|own| own.cidr);
            if let Some(other) = own.find(|own| overlap(own, &subnet)) {
                return Err(taken(other, format!("network {}", network.spec.name)));
            }
        }
        match self.cables().map(|other| other.subnet()).find(|other| overlap(other, &subnet)) {
            Some(other) => Err(taken(other, "another direct link".to_owned())),
            None => Ok(()),
        }
    }
}

/// Both addresses are for hosts, of one subnet, and different.
fn check_addresses(cable: &Cable) -> Result<(), Rejected> {
    let [one, other] = [&cable.ends[0].address, &cable.ends[1].address];
    let longest = if one.addr().is_ipv4() { LONGEST_V4 } else { LONGEST_V6 };
    let reason = if one.prefix_len() > longest {
        "has no two addresses"
    } else if one.trunc() != other.trunc() || one.addr() == other.addr() {
        "must have both addresses, one at each end"
    } else if [one, other].into_iter().any(is_reserved) {
        "has addresses that are not for hosts"
    } else {
        return Ok(());
    };
    Err(Invalid::new("--subnet", cable.subnet(), reason).into())
}

/// The network's own address, or that of all its hosts.
fn is_reserved(address: &IpNet) -> bool {
    match address {
        IpNet::V4(v4) => {
            v4.prefix_len() < LONGEST_V4 && [v4.network(), v4.broadcast()].contains(&v4.addr())
        }
        // That of all routers of the subnet (RFC 4291 section 2.6.1).
        IpNet::V6(v6) => v6.prefix_len() < LONGEST_V6 && v6.network() == v6.addr(),
    }
}
