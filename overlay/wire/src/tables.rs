//! A configuration in the form that the data path looks things up in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use boringtun::x25519::StaticSecret;

use crate::{Config, Identity, Key, Node, PeerIdentity};

/// Most lanes of a node: it bounds threads and sockets.
const MOST_LANES: usize = 64;
/// Longest name of a device, without the zero at its end (`IFNAMSIZ`).
const LONGEST_NAME: usize = 15;
/// Network identifiers have 24 bits (RFC 7348, section 5).
const MOST_VNI: u32 = (1 << 24) - 1;

/// A configuration that was checked, and what follows from it. It never changes.
#[derive(Debug, Default)]
pub struct Tables {
    /// What was configured.
    pub config: Config,
    /// This node's identities, in the order of the configuration.
    pub own: Vec<Own>,
    /// By network, the nodes with an interface on it: where broadcasts go.
    pub present: BTreeMap<u32, BTreeSet<u64>>,
    /// By public key: whose it is.
    pub holders: BTreeMap<Key, u64>,
    /// By the address that was configured: who may be there.
    pub places: BTreeMap<IpAddr, Vec<u64>>,
}

/// One of this node's identities.
#[derive(Clone)]
pub struct Own {
    /// The public half of its key.
    pub public: Key,
    /// The private half.
    pub secret: StaticSecret,
    /// The address inside the tunnel.
    pub address: Ipv4Addr,
    /// UDP ports, one for each lane.
    pub ports: Vec<u16>,
}

/// Without the private key.
impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Why a configuration cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadConfig {
    #[error("identities must have the same number of ports, from 1 to {MOST_LANES}")]
    Lanes,
    #[error("port {0} is used twice, or zero")]
    Port(u16),
    #[error("an identity of node {0} has no port")]
    NoPort(u64),
    #[error("a key is used twice, the second time by node {0}")]
    Key(u64),
    #[error("{0} is no VXLAN network identifier")]
    Vni(u32),
    #[error("{0:?} is no name of a device, or used twice")]
    Device(String),
}

impl Own {
    fn new(identity: &Identity) -> Self {
        let secret = StaticSecret::from(identity.private_key.0);
        let public = identity.private_key.public();
        Self { public, secret, address: identity.address, ports: identity.ports.clone() }
    }
}

impl Tables {
    /// Checks a configuration and derives the rest.
    pub fn new(config: Config) -> Result<Self, BadConfig> {
        let own: Vec<Own> = config.identities.iter().map(Own::new).collect();
        check_ports(&own)?;
        let holders = holders(&config, &own)?;
        let present = present(&config)?;
        let mut places: BTreeMap<IpAddr, Vec<u64>> = BTreeMap::new();
        for (number, node) in &config.nodes {
            places.entry(node.endpoint.to_canonical()).or_default().push(*number);
        }
        Ok(Self { config, own, present, holders, places })
    }

    /// How many lanes this node has.
    pub fn lanes(&self) -> usize {
        self.own.first().map_or(0, |own| own.ports.len())
    }

    /// The lane on which flows of `lane` reach a node: it may have fewer.
    pub fn lane_towards(&self, node: &Node, lane: usize) -> usize {
        let theirs = node.identities.first().map_or(1, |identity| identity.ports.len());
        lane % self.lanes().min(theirs).max(1)
    }

    /// Whether `next` sends to a node of both by other keys than this.
    pub fn sends_by_other_keys(&self, next: &Self) -> bool {
        let own = |tables: &Self| tables.own.first().map(|own| own.public);
        let first = |node: &Node| node.identities.first().map(|identity| identity.public_key);
        let nodes = &self.config.nodes;
        own(self) != own(next)
            || next.config.nodes.iter().any(|(number, node)| {
                nodes.get(number).is_some_and(|known| first(known) != first(node))
            })
    }

    /// Whether keys of ours or of others are no longer known to `next`.
    pub fn forgets_keys(&self, next: &Self) -> bool {
        self.own.iter().any(|own| next.own_of(&own.public).is_none())
            || self.holders.keys().any(|key| !next.holders.contains_key(key))
    }

    /// The identity with this public key, if it is ours.
    pub fn own_of(&self, public: &Key) -> Option<&Own> {
        self.own.iter().find(|own| own.public == *public)
    }

    /// The node and the identity with this public key.
    pub fn peer_of(&self, public: &Key) -> Option<(u64, &Node, &PeerIdentity)> {
        let number = self.holders.get(public)?;
        let node = self.config.nodes.get(number)?;
        let identity = node.identities.iter().find(|identity| identity.public_key == *public)?;
        Some((*number, node, identity))
    }
}

fn check_ports(own: &[Own]) -> Result<(), BadConfig> {
    let lanes = own.first().map_or(1, |own| own.ports.len());
    let mut seen = BTreeSet::new();
    for own in own {
        if own.ports.len() != lanes || lanes == 0 || lanes > MOST_LANES {
            return Err(BadConfig::Lanes);
        }
        for port in &own.ports {
            if *port == 0 || !seen.insert(*port) {
                return Err(BadConfig::Port(*port));
            }
        }
    }
    Ok(())
}

fn holders(config: &Config, own: &[Own]) -> Result<BTreeMap<Key, u64>, BadConfig> {
    let mut holders = BTreeMap::new();
    for (number, node) in &config.nodes {
        for identity in &node.identities {
            if identity.ports.is_empty() {
                return Err(BadConfig::NoPort(*number));
            }
            let key = identity.public_key;
            let ours = own.iter().any(|own| own.public == key);
            if ours || holders.insert(key, *number).is_some() {
                return Err(BadConfig::Key(*number));
            }
        }
    }
    Ok(holders)
}

fn present(config: &Config) -> Result<BTreeMap<u32, BTreeSet<u64>>, BadConfig> {
    let mut devices = BTreeSet::new();
    let mut present = BTreeMap::new();
    for (vni, network) in &config.networks {
        if *vni > MOST_VNI {
            return Err(BadConfig::Vni(*vni));
        }
        let name = &network.device;
        if name.is_empty() || name.len() > LONGEST_NAME || !devices.insert(name) {
            return Err(BadConfig::Device(name.clone()));
        }
        // A node whose key is not known yet is in the networks before it is among the nodes.
        let nodes = network.members.values().map(|member| member.node);
        present.insert(*vni, nodes.filter(|node| config.nodes.contains_key(node)).collect());
    }
    Ok(present)
}
