//! Networks of this node: the predefined ones, and those of users.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use sha2::{Digest as _, Sha256};
use weft_ipam::default_pools;
use weft_model::{
    Command, NetworkId, Rejected, State,
    command::Named,
    spec::{Driver, NetworkSpec, PoolSpec},
    state::Surroundings,
};

use super::{Defaults, Engine, Local, StartError, calls::CallError};
use crate::{desired::Sorted, facts};

/// File with the machine's own number, that its unique local prefixes are made of.
const MACHINE_ID: &str = "/etc/machine-id";

/// Makes `bridge`, `host` and `none`, or gives them the daemon's present settings.
pub(super) fn make_predefined(engine: &Engine, defaults: &Defaults) -> Result<(), StartError> {
    let used: Vec<(IpNet, String)> = facts::used()?.into_iter().collect();
    for driver in [Driver::Bridge, Driver::Host, Driver::Null] {
        let Some(spec) = NetworkSpec::predefined(driver) else { continue };
        let spec = if driver == Driver::Bridge { default_bridge(spec, defaults) } else { spec };
        let (used, defaults) = (used.clone(), defaults.clone());
        let id = NetworkId::from_bytes(rand::random());
        engine.change_now(move |state| set_predefined(state, id, spec, &defaults, &used))?;
    }
    Ok(())
}

fn default_bridge(mut spec: NetworkSpec, defaults: &Defaults) -> NetworkSpec {
    let mut option = |name: &str, value: String| spec.options.insert(name.to_owned(), value);
    if let Some(bridge) = &defaults.bridge {
        option("name", bridge.clone());
    }
    if let Some(mtu) = defaults.mtu {
        option("mtu", mtu.to_string());
    }
    if !defaults.icc {
        option("icc", "false".to_owned());
    }
    if let Some(bip) = defaults.bip.or_else(|| defaults.bridge.as_deref().and_then(address_of)) {
        spec.pools.push(PoolSpec {
            subnet: Some(bip.trunc()),
            gateway: Some(bip.addr()),
            range: defaults.fixed_cidr,
            ..PoolSpec::default()
        });
    }
    spec
}

/// The IPv4 address that an administrator has given his bridge: the gateway of the containers on it.
fn address_of(bridge: &str) -> Option<IpNet> {
    let list = nix::ifaddrs::getifaddrs().ok()?;
    list.filter(|entry| entry.interface_name == bridge).find_map(|entry| {
        let address = entry.address?.as_sockaddr_in()?.ip();
        let mask = entry.netmask?.as_sockaddr_in()?.ip();
        Some(IpNet::V4(Ipv4Net::with_netmask(address, mask).ok()?))
    })
}

/// What has been chosen once stays as long as the daemon's settings do not ask for something else.
fn set_predefined(
    state: &State,
    id: NetworkId,
    spec: NetworkSpec,
    defaults: &Defaults,
    used: &[(IpNet, String)],
) -> Result<Vec<Command>, Rejected> {
    let present = state.networks().find(|network| network.spec.name == spec.name);
    let kept = present.filter(|network| network.spec.pools == spec.pools);
    let subnets = match kept {
        Some(network) if network.spec == spec => return Ok(Vec::new()),
        Some(network) => network.subnets.clone(),
        // An address that the user gives the bridge may be the bridge's already.
        None if defaults.bip.is_some() || defaults.bridge.is_some() => {
            choose(state, &spec, defaults, &[])?
        }
        None => choose(state, &spec, defaults, used)?,
    };
    Ok(vec![Command::SetPredefined { id, spec, subnets }])
}

fn choose(
    state: &State,
    spec: &NetworkSpec,
    defaults: &Defaults,
    used: &[(IpNet, String)],
) -> Result<Vec<weft_model::Subnet>, Rejected> {
    let pools = if defaults.pools.is_empty() { default_pools() } else { defaults.pools.clone() };
    state.choose_local_subnets(spec, Surroundings { pools: &pools, global_id: global_id(), used })
}

/// 40 bits (RFC 4193 section 3.1) that are this machine's own.
fn global_id() -> u64 {
    let text = std::fs::read_to_string(MACHINE_ID).unwrap_or_default();
    let digest = Sha256::digest(format!("weft {text}"));
    let mut bytes = [0; 8];
    bytes[3..].copy_from_slice(&digest[..5]);
    u64::from_be_bytes(bytes)
}

impl Local {
    /// Makes a network; its device is there when this comes back.
    ///
    /// # Errors
    /// Why not.
    pub async fn create_network(
        &self,
        request: Option<Named>,
        spec: NetworkSpec,
    ) -> Result<NetworkId, CallError> {
        spec.check().map_err(Rejected::from)?;
        let used = self.used(&spec)?;
        let (id, defaults) = (NetworkId::from_bytes(rand::random()), self.defaults.clone());
        let made = self.engine.propose(request, move |state| {
            // A name that is taken is the clearer refusal than a subnet that overlaps.
            let same = |other: &str| other.eq_ignore_ascii_case(&spec.name);
            if let Some(other) = state.networks().find(|other| same(&other.spec.name)) {
                let (kind, name) = ("network".to_owned(), spec.name.clone());
                return Err(Rejected::Exists { kind, name, id: other.id.short() });
            }
            let subnets = choose(state, &spec, &defaults, &used)?;
            Ok(vec![Command::CreateNetwork { id, spec: spec.clone(), vni: None, subnets }])
        });
        let made = made.await?;
        let id = made.applied.id.parse().unwrap_or(id);
        self.seen(made.state.revision()).await;
        Ok(id)
    }

    /// What the machine reaches otherwise. Networks on a device of the host are meant to be there.
    fn used(&self, spec: &NetworkSpec) -> Result<Vec<(IpNet, String)>, CallError> {
        match spec.driver {
            Driver::Macvlan | Driver::Ipvlan => return Ok(Vec::new()),
            Driver::Ovs if spec.ovs_bridge().is_some() => return Ok(Vec::new()),
            Driver::Bridge | Driver::Ovs | Driver::Overlay | Driver::Host | Driver::Null => {}
        }
        let mut used: Vec<_> = facts::used()?.into_iter().collect();
        used.extend(self.cluster_subnets());
        let state = self.engine.state();
        let links = state.cables().map(|cable| (cable.subnet(), "a direct link".to_owned()));
        used.extend(links);
        // A network of ours is refused by its name, not by the route of its device.
        used.retain(|(prefix, _)| {
            let mut own = state.networks().flat_map(|network| &network.subnets);
            !own.any(|subnet| subnet.cidr == *prefix)
        });
        Ok(used)
    }

    /// The subnets of the cluster's networks that are known here, and whose they are.
    pub(super) fn cluster_subnets(&self) -> Vec<(IpNet, String)> {
        let assigned = self.context.assigned.borrow().1.clone();
        let mut subnets = Vec::new();
        for network in Sorted::new(&assigned).networks.values() {
            let owner = format!("network {} of the cluster", network.name);
            subnets.extend(network.subnets.iter().map(|(cidr, _)| (*cidr, owner.clone())));
        }
        subnets
    }

    /// Removes a network nobody uses; its device is gone when this comes back.
    ///
    /// # Errors
    /// Why not.
    pub async fn remove_network(
        &self,
        request: Option<Named>,
        text: String,
    ) -> Result<String, CallError> {
        let removed = self.engine.propose(request, move |state| {
            let id = state.network_named(&text)?.id;
            Ok(vec![Command::RemoveNetwork { id }])
        });
        let removed = removed.await?;
        self.seen(removed.state.revision()).await;
        Ok(removed.applied.id)
    }

    /// Removes the networks that nobody uses; their names.
    ///
    /// # Errors
    /// When the state cannot be kept.
    pub async fn prune_networks(&self) -> Result<Vec<String>, CallError> {
        let state = self.engine.state();
        let mut removed = Vec::new();
        for network in state.networks().filter(|network| !network.spec.is_predefined()) {
            let id = network.id;
            if !state.network_users(id).is_empty() {
                continue;
            }
            match self.remove_network(None, id.to_string()).await {
                Ok(_) => removed.push(network.spec.name.clone()),
                // Somebody has come to use it, or has removed it.
                Err(CallError::Propose(super::ProposeError::Rejected(_))) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// The subnets of this node's own networks and direct links: the cluster keeps clear of them.
    pub fn prefixes(&self) -> Vec<IpNet> {
        let state = self.engine.state();
        let subnets = state.networks().flat_map(|network| &network.subnets);
        let links = state.cables().map(|cable| cable.subnet());
        subnets.map(|subnet| subnet.cidr).chain(links).collect()
    }
}

/// Whether the host speaks IPv6.
pub(super) fn host_has_v6() -> bool {
    std::fs::read_to_string("/proc/thread-self/net/if_inet6").is_ok_and(|text| !text.is_empty())
}

/// Whether another program of the host has a port.
pub(super) fn is_taken(protocol: weft_model::spec::Protocol, host: IpAddr, port: u16) -> bool {
    use weft_model::spec::Protocol;
    match protocol {
        Protocol::Tcp => std::net::TcpListener::bind((host, port)).is_err(),
        Protocol::Udp => std::net::UdpSocket::bind((host, port)).is_err(),
        // Tried when it is taken.
        Protocol::Sctp => false,
    }
}
