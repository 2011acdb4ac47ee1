//! What a node chooses for networks of its own, and how it finds what users name.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use weft_ipam::{AddressPool, choose_local, choose_unique_local, overlaps};

use super::{State, not_found};
use crate::{
    object::{Container, Network, Subnet},
    rejected::Rejected,
    spec::{Driver, NetworkSpec, PoolSpec, escape},
};

/// Most candidates that an error names.
const CANDIDATES_SHOWN: usize = 5;
/// Most characters of a wrong name that an error repeats.
const NAME_SHOWN: usize = 64;

/// What subnets of a node's own networks are chosen from and must keep clear of.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Where subnets are cut from when none is given, in this order.
    pub pools: &'a [AddressPool],
    /// 40 bits of the node's own, for unique local prefixes.
    pub global_id: u64,
    /// Prefixes that the machine reaches otherwise, and whose they are: "the route of eth0".
    pub used: &'a [(IpNet, String)],
}

impl Subnet {
    /// The whole of a subnet of which the user may have said some parts: the gateway is the first
    /// address that is not an auxiliary one, as in Docker.
    pub fn of(cidr: IpNet, pool: &PoolSpec) -> Self {
        let taken = |address: &_| pool.auxiliary.values().any(|other| other == address);
        let first = || cidr.hosts().find(|ip| *ip != cidr.network() && !taken(ip));
        Self {
            cidr,
            gateway: pool.gateway.or_else(first).unwrap_or_else(|| cidr.addr()),
            range: pool.range.unwrap_or(cidr),
            auxiliary: pool.auxiliary.clone(),
            cursor: None,
            resting: BTreeMap::new(),
        }
    }
}

impl State {
    /// The subnets of a new network of the node. Those given decide which families it has; `ipv6`
    /// adds a unique local one if none was given; with none at all it gets one from the pools.
    ///
    /// # Errors
    /// [`Rejected::Overlap`] with what the machine reaches otherwise, and [`Rejected::Exhausted`].
    pub fn choose_local_subnets(
        &self,
        spec: &NetworkSpec,
        around: Surroundings<'_>,
    ) -> Result<Vec<Subnet>, Rejected> {
        if matches!(spec.driver, Driver::Host | Driver::Null) {
            return Ok(Vec::new());
        }
        let mut chosen: Vec<Subnet> = Vec::new();
        for pool in &spec.pools {
            if let Some(cidr) = pool.subnet {
                refuse_used(cidr, around.used)?;
                chosen.push(Subnet::of(cidr, pool));
            }
        }
        let has =
            |chosen: &[Subnet], v6: bool| chosen.iter().any(|s| s.cidr.addr().is_ipv6() == v6);
        // A pool without a subnet says no more than that one is wanted.
        let wants_v4 = chosen.is_empty() || spec.pools.iter().any(|pool| pool.subnet.is_none());
        if wants_v4 && !has(&chosen, false) {
            let used = self.in_the_way(&chosen, around);
            let cidr = choose_local(around.pools, &used).map_err(exhausted)?;
            chosen.push(Subnet::of(cidr, &PoolSpec::default()));
        }
        if spec.ipv6 && !has(&chosen, true) {
            let used = self.in_the_way(&chosen, around);
            let cidr = choose_unique_local(around.global_id, &used).map_err(exhausted)?;
            chosen.push(Subnet::of(cidr, &PoolSpec::default()));
        }
        Ok(chosen)
    }

    fn in_the_way(&self, chosen: &[Subnet], around: Surroundings<'_>) -> Vec<IpNet> {
        let networks = self.networks().flat_map(|network| network.subnets.iter());
        let used = around.used.iter().map(|(prefix, _)| *prefix).filter(|prefix| is_used(*prefix));
        networks.chain(chosen).map(|subnet| subnet.cidr).chain(used).collect()
    }

    /// A container by name (a `/` before it is allowed), ID or unique beginning of an ID.
    ///
    /// # Errors
    /// [`Rejected::NotFound`], and [`Rejected::Forbidden`] for the beginning of several IDs.
    pub fn container_named(&self, text: &str) -> Result<&Arc<Container>, Rejected> {
        let text = text.strip_prefix('/').unwrap_or(text);
        find("container", text, self.containers(), |container| {
            (container.id.to_string(), &container.spec.name)
        })
    }

    /// A network by name, ID or unique beginning of an ID.
    ///
    /// # Errors
    /// As for containers.
    pub fn network_named(&self, text: &str) -> Result<&Arc<Network>, Rejected> {
        let key = |network: &Arc<Network>| network.id.to_string();
        find("network", text, self.networks(), |network| (key(network), &network.spec.name))
    }
}

/// A default route overlaps everything and blocks nothing.
fn is_used(prefix: IpNet) -> bool {
    prefix.prefix_len() > 0
}

/// A subnet that the machine already reaches another way would cut that way off.
fn refuse_used(cidr: IpNet, used: &[(IpNet, String)]) -> Result<(), Rejected> {
    let mut used = used.iter().filter(|(prefix, _)| is_used(*prefix));
    match used.find(|(prefix, _)| overlaps(*prefix, cidr)) {
        Some((other, owner)) => {
            Err(Rejected::Overlap { subnet: cidr, other: *other, owner: owner.clone() })
        }
        None => Ok(()),
    }
}

fn exhausted(full: weft_ipam::Exhausted) -> Rejected {
    Rejected::Exhausted {
        pool: format!("default address pool {}", full.pool),
        detail: "networks, and the routes of this machine, are in the way of all its subnets"
            .to_owned(),
        hint: "remove networks that nobody uses (weft network prune), or give a --subnet outside \
               of the pool"
            .to_owned(),
    }
}

/// The object of that ID, or else of that name, or else the only one whose ID begins so.
fn find<'a, T>(
    kind: &str,
    text: &str,
    all: impl Iterator<Item = &'a Arc<T>>,
    key: impl Fn(&'a Arc<T>) -> (String, &'a String),
) -> Result<&'a Arc<T>, Rejected> {
    let lower = text.to_ascii_lowercase();
    let all: Vec<_> = all.map(|object| (key(object), object)).collect();
    let by_id = all.iter().find(|((id, _), _)| *id == lower);
    let by_name = || all.iter().find(|((_, name), _)| name.eq_ignore_ascii_case(text));
    if let Some((_, object)) = by_id.or_else(by_name) {
        return Ok(object);
    }
    // The empty text begins every ID and means none.
    let begins: Vec<_> =
        all.iter().filter(|((id, _), _)| !lower.is_empty() && id.starts_with(&lower)).collect();
    match begins[..] {
        [] => Err(not_found(kind, text.chars().take(NAME_SHOWN).collect::<String>())),
        [(_, object)] => Ok(object),
        _ => {
            let names = begins.iter().take(CANDIDATES_SHOWN);
            let names: Vec<_> = names
                .map(|((id, name), _)| format!("{name} ({})", &id[..crate::id::SHORT]))
                .collect();
            Err(Rejected::Forbidden {
                what: format!("{kind} {} is ambiguous", escape(text, NAME_SHOWN)),
                why: format!("it begins the IDs of {}", names.join(", ")),
                hint: "give more of the ID, or the name".to_owned(),
            })
        }
    }
}
