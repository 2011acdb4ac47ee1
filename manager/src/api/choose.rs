//! What the leader chooses for a new network: pure functions of the state.

use std::collections::BTreeSet;

use ipnet::IpNet;
use sha2::{Digest as _, Sha256};
use weft_ipam::{choose_subnet, choose_vni, overlaps, unique_local};
use weft_model::{
    Cluster, ClusterId, Rejected, State, Subnet,
    spec::{NetworkSpec, PoolSpec},
};

/// A free VNI.
pub(super) fn vni(state: &State, cluster: &Cluster) -> Result<u32, Rejected> {
    let used: BTreeSet<u32> = state.networks().filter_map(|network| network.vni).collect();
    choose_vni(&used, cluster.last_vni).map_err(|full| Rejected::Exhausted {
        pool: "VNIs".to_owned(),
        detail: format!("{} of {} in use", full.used, full.size),
        hint: "remove networks that nobody uses: weft network prune".to_owned(),
    })
}

/// The subnets of a new network. Those given decide which families it has; `ipv6` adds a unique
/// local one if none was given; with none at all it gets one from the cluster's pools.
pub(super) fn subnets(
    state: &State,
    cluster: &Cluster,
    spec: &NetworkSpec,
) -> Result<Vec<Subnet>, Rejected> {
    let mut chosen: Vec<Subnet> = Vec::new();
    let given = |pool: &&PoolSpec| pool.subnet.is_some();
    for pool in spec.pools.iter().filter(given) {
        if let Some(cidr) = pool.subnet {
            // The prefix of the nodes' own segment is a route of each of them.
            if !spec.on_segment() {
                refuse_used(state, cidr)?;
            }
            chosen.push(subnet(cidr, pool));
        }
    }
    let has = |chosen: &[Subnet], v6: bool| chosen.iter().any(|s| s.cidr.addr().is_ipv6() == v6);
    // A pool without a subnet says no more than that one is wanted.
    let wants_v4 = chosen.is_empty() || spec.pools.iter().any(|pool| pool.subnet.is_none());
    if wants_v4 && !has(&chosen, false) {
        chosen.push(subnet(from_pools(state, cluster, &chosen)?, &PoolSpec::default()));
    }
    if spec.ipv6 && !has(&chosen, true) {
        chosen.push(subnet(local_v6(state, cluster.id, &chosen)?, &PoolSpec::default()));
    }
    Ok(chosen)
}

/// The whole of a subnet of which the user may have said some parts.
fn subnet(cidr: IpNet, pool: &PoolSpec) -> Subnet {
    let taken: BTreeSet<_> = pool.auxiliary.values().copied().collect();
    // As in Docker: the first address that is not an auxiliary one.
    let first =
        || cidr.hosts().find(|address| *address != cidr.network() && !taken.contains(address));
    Subnet {
        cidr,
        gateway: pool.gateway.or_else(first).unwrap_or_else(|| cidr.addr()),
        range: pool.range.unwrap_or(cidr),
        auxiliary: pool.auxiliary.clone(),
        cursor: None,
        resting: std::collections::BTreeMap::new(),
    }
}

/// A subnet that a node already reaches another way would cut that way off.
fn refuse_used(state: &State, cidr: IpNet) -> Result<(), Rejected> {
    let mut used = state.nodes().flat_map(|node| {
        let prefixes = node.description.used_prefixes.iter();
        prefixes.map(|prefix| (*prefix, &node.description.hostname))
    });
    used.find(|(prefix, _)| is_used(*prefix) && overlaps(*prefix, cidr)).map_or(Ok(()), |found| {
        let (other, name) = found;
        let owner = format!("the routes or resolvers of node {name}");
        Err(Rejected::Overlap { subnet: cidr, other, owner })
    })
}

/// A default route overlaps everything and blocks nothing.
fn is_used(prefix: IpNet) -> bool {
    prefix.prefix_len() > 0
}

/// All prefixes that a chosen subnet must keep clear of.
fn in_use(state: &State, chosen: &[Subnet]) -> Vec<IpNet> {
    let networks = state.networks().flat_map(|network| network.subnets.iter());
    let nodes = state.nodes().flat_map(|node| node.description.used_prefixes.iter().copied());
    networks
        .chain(chosen)
        .map(|subnet| subnet.cidr)
        .chain(nodes.filter(|prefix| is_used(*prefix)))
        .collect()
}

fn from_pools(state: &State, cluster: &Cluster, chosen: &[Subnet]) -> Result<IpNet, Rejected> {
    let (pools, length) = (&cluster.spec.pools, cluster.spec.subnet_size);
    choose_subnet(pools, length, &in_use(state, chosen)).map_err(|full| Rejected::Exhausted {
        pool: format!("default address pool {}", full.pool),
        detail: format!(
            "no free /{length}: {} networks, and the routes of {} nodes, are in the way",
            state.networks().count(),
            state.nodes().count()
        ),
        hint: "remove networks that nobody uses (weft network prune), or give a --subnet outside \
               of the pool"
            .to_owned(),
    })
}

/// The first free /64 of the cluster's own unique local prefix (RFC 4193): its global ID is a hash
/// of the cluster's ID, so that two clusters do not choose the same.
fn local_v6(state: &State, cluster: ClusterId, chosen: &[Subnet]) -> Result<IpNet, Rejected> {
    let digest = Sha256::digest(cluster.to_string().as_bytes());
    let mut global = [0; 8];
    // 40 bits, RFC 4193 section 3.1.
    global[3..].copy_from_slice(&digest[..5]);
    let global = u64::from_be_bytes(global);
    let used = in_use(state, chosen);
    let free = |subnet: &IpNet| !used.iter().any(|other| overlaps(*other, *subnet));
    (0..=u16::MAX).map(|subnet| unique_local(global, subnet)).find(free).ok_or_else(|| {
        Rejected::Exhausted {
            pool: "the cluster's IPv6 /48".to_owned(),
            detail: "all of its /64 are in use".to_owned(),
            hint: "give a --subnet".to_owned(),
        }
    })
}
