//! Direct links between two containers of this node: `weft p2p`.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use weft_model::{
    Cable, CableEnd, CableId, Command, Container, ContainerId, Rejected, State, cable::overlap,
    command::Named, spec::Invalid,
};

use super::{Local, calls::CallError, choose, engine::Done};
use crate::facts;

/// Where subnets of direct links are cut from: the /24s of 10.1.0.0/16 from this one on.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 0);
/// The last address of them.
const LAST: Ipv4Addr = Ipv4Addr::new(10, 1, 255, 255);
/// Two addresses for hosts, that of the network and that of all: what an IPv4 link needs.
const PREFIX: u8 = 30;

impl Local {
    /// Lays a direct link between two containers; comes back when the kernel has it, or at once if
    /// one of them does not run. Without a subnet it gets one that nothing known overlaps.
    ///
    /// # Errors
    /// Why not.
    pub async fn connect_pair(
        &self,
        request: Option<Named>,
        [one, other]: [String; 2],
        subnet: Option<IpNet>,
    ) -> Result<Cable, CallError> {
        let id = CableId::from_bytes(rand::random());
        let used = self.known_prefixes()?;
        let done = self.engine.propose(request, move |state| {
            let pair = [state.container_named(&one)?, state.container_named(&other)?];
            let subnet = match subnet {
                Some(subnet) => subnet.trunc(),
                None => free_subnet(state, &used)?,
            };
            let addresses = addresses(subnet)?;
            let end = |container: &Container, address| CableEnd {
                container: container.id,
                ifname: choose::ifname(state, container),
                address,
            };
            let ends = [end(pair[0], addresses[0]), end(pair[1], addresses[1])];
            Ok(vec![Command::ConnectPair { id, ends }])
        });
        let Done { applied, state } = done.await?;
        let id = applied.id.parse().unwrap_or(id);
        let gone = || Rejected::NotFound { kind: "link".to_owned(), name: id.short() };
        let cable = Cable::clone(state.cable(id).ok_or_else(gone)?);
        let [one, other] = [&cable.ends[0], &cable.ends[1]].map(|end| end.container);
        if self.is_plumbed(one) && self.is_plumbed(other) {
            self.carried(one, state.revision()).await?;
            self.carried(other, state.revision()).await?;
        }
        Ok(cable)
    }

    /// What the machine and the cluster use.
    fn known_prefixes(&self) -> Result<Vec<IpNet>, CallError> {
        let mut used: Vec<_> = facts::used()?.into_keys().collect();
        used.extend(self.cluster_subnets().into_iter().map(|(cidr, _)| cidr));
        Ok(used)
    }

    /// The name of a container that may be gone.
    pub fn name_of(&self, id: ContainerId) -> String {
        self.state().container(id).map_or_else(|| id.short(), |found| found.spec.name.clone())
    }
}

/// The first subnet that nothing known overlaps.
fn free_subnet(state: &State, used: &[IpNet]) -> Result<IpNet, Rejected> {
    let own = state.networks().flat_map(|network| &network.subnets).map(|subnet| subnet.cidr);
    let mut taken: Vec<IpNet> = own.chain(state.cables().map(|cable| cable.subnet())).collect();
    taken.extend(used);
    let size = 1 << (Ipv4Addr::BITS - u32::from(PREFIX));
    let candidates = (u32::from(FIRST)..=u32::from(LAST)).step_by(size);
    let subnets = candidates
        .filter_map(|bits| Ipv4Net::new(Ipv4Addr::from(bits), PREFIX).ok().map(IpNet::V4));
    let free = |subnet: &IpNet| !taken.iter().any(|other| overlap(other, subnet));
    let mut subnets = subnets.filter(free);
    subnets.next().ok_or_else(|| Rejected::Exhausted {
        pool: format!("{FIRST} to {LAST}"),
        detail: format!("no /{PREFIX} is free"),
        hint: "name a subnet: weft p2p --subnet CIDR".to_owned(),
    })
}

/// The first two addresses for hosts of a subnet.
fn addresses(subnet: IpNet) -> Result<[IpNet; 2], Rejected> {
    let with = |address: IpAddr| IpNet::new(address, subnet.prefix_len()).ok();
    // The first one of an IPv6 subnet is that of all its routers (RFC 4291 section 2.6.1).
    let routers = usize::from(subnet.addr().is_ipv6() && subnet.prefix_len() < 127);
    let mut hosts = subnet.hosts().skip(routers).filter_map(with);
    let pair = hosts.next().zip(hosts.next());
    pair.map(|(one, other)| [one, other])
        .ok_or_else(|| Invalid::new("--subnet", subnet, "has no two addresses").into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn ends(subnet: &str) -> [String; 2] {
        addresses(subnet.parse().unwrap()).unwrap().map(|net| net.to_string())
    }

    #[test]
    fn the_ends_have_the_first_two_addresses() {
        assert_eq!(ends("10.1.1.0/30"), ["10.1.1.1/30", "10.1.1.2/30"]);
        assert_eq!(ends("10.1.1.0/31"), ["10.1.1.0/31", "10.1.1.1/31"]);
        assert_eq!(ends("fd00::/64"), ["fd00::1/64", "fd00::2/64"]);
        assert_eq!(ends("fd00::/127"), ["fd00::/127", "fd00::1/127"]);
        assert!(addresses("10.1.1.0/32".parse().unwrap()).is_err());
    }

    #[test]
    fn the_first_free_subnet_is_chosen() {
        let free = |used: &[&str]| {
            let used: Vec<IpNet> = used.iter().map(|net| net.parse().unwrap()).collect();
            free_subnet(&State::default(), &used).map(|net| net.to_string())
        };
        assert_eq!(free(&[]).unwrap(), "10.1.1.0/30");
        assert_eq!(free(&["10.1.1.0/28", "10.1.1.17/32"]).unwrap(), "10.1.1.20/30");
        let full = free(&["10.0.0.0/8"]).unwrap_err().to_string();
        assert!(full.contains("no /30 is free"), "{full}");
    }
}
