//! All names this node can answer, as one value: built whole, swapped whole, never edited.
//!
//! Each network keeps its own names, so an answer is made of the asker's networks only because
//! the others are never looked at: there is no filter that could be forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use siphasher::sip::SipHasher24;

use crate::wire::name;

/// The names of one network, as plain values from whoever knows them.
#[derive(Clone, Debug, Default)]
pub struct NetworkNames {
    /// What [`crate::Asker::networks`] refers to: unique and never shown to anybody.
    pub key: String,
    /// The name users see: `<name>.<network>` is asked with it.
    pub name: String,
    /// Its address ranges: their reverse zones are ours.
    pub subnets: Vec<IpNet>,
    /// Addresses of each name (`web`, `tasks.web`, `ab12cd34ef56`), without the network's name.
    pub names: BTreeMap<String, Vec<IpAddr>>,
    /// The canonical `<name>.<network>` of each address.
    pub reverse: BTreeMap<IpAddr, String>,
}

/// Whether the node has seen a complete set of names since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synced {
    /// A name that would be ours and is not here may still come: SERVFAIL, never NXDOMAIN.
    #[default]
    NotYet,
    /// What is not here does not exist.
    Complete,
}

/// Single labels in use anywhere in the cluster, as keyed hashes. Such a label is not asked
/// upstream by a container that cannot see it, and no node learns a name it has no part in.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere {
    key: [u8; 16],
    hashes: BTreeSet<u64>,
}

impl Elsewhere {
    /// `hashes` are [`elsewhere_hash`] values made with the same key.
    pub fn new(key: [u8; 16], hashes: BTreeSet<u64>) -> Self {
        Self { key, hashes }
    }

    /// Whether this label, lower-cased, is in use somewhere.
    pub fn contains(&self, label: &str) -> bool {
        !self.hashes.is_empty() && self.hashes.contains(&elsewhere_hash(&self.key, label))
    }
}

/// SipHash-2-4 of the label with ASCII letters lower-cased, under a key all nodes of the cluster
/// share. Keyed, so that labels cannot be found by trying words without the key.
pub fn elsewhere_hash(key: &[u8; 16], label: &str) -> u64 {
    SipHasher24::new_with_key(key).hash(label.to_ascii_lowercase().as_bytes())
}

/// Everything the resolver knows. Cheap to read, immutable.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    networks: BTreeMap<String, Network>,
    subnets: BTreeSet<IpNet>,
    elsewhere: Elsewhere,
    synced: Synced,
}

impl Zones {
    /// Builds the value. Names are lower-cased; names that cannot be a DNS name (a label of more
    /// than 63 bytes, 255 in all) stay out of answers, as nobody could ask for them.
    pub fn new(
        networks: impl IntoIterator<Item = NetworkNames>,
        elsewhere: Elsewhere,
        synced: Synced,
    ) -> Self {
        let networks: BTreeMap<_, _> =
            networks.into_iter().map(|names| (names.key.clone(), Network::new(names))).collect();
        let subnets = networks.values().flat_map(|network| network.subnets.clone()).collect();
        Self { networks, subnets, elsewhere, synced }
    }

    /// The same zones with more ranges that are the cluster's own although this node has no names
    /// for them: nobody's reverse lookup of such an address leaves the cluster.
    #[must_use]
    pub fn with_cluster_subnets(mut self, subnets: impl IntoIterator<Item = IpNet>) -> Self {
        self.subnets.extend(subnets);
        self
    }

    /// The network of this key, if this node has its names.
    pub(crate) fn network(&self, key: &str) -> Option<&Network> {
        self.networks.get(key)
    }

    /// Whether the prefix lies inside a range of any network of the cluster.
    pub(crate) fn covers(&self, prefix: IpNet) -> bool {
        self.subnets.iter().any(|subnet| subnet.contains(&prefix))
    }

    pub(crate) fn elsewhere(&self) -> &Elsewhere {
        &self.elsewhere
    }

    pub(crate) fn synced(&self) -> Synced {
        self.synced
    }
}

/// One network, in the form answers are made from.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) name: String,
    pub(crate) subnets: Vec<IpNet>,
    names: BTreeMap<String, Addresses>,
    pointers: BTreeMap<IpAddr, Vec<u8>>,
}

/// The addresses of one name by family, each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    pub(crate) v4: Vec<Ipv4Addr>,
    pub(crate) v6: Vec<Ipv6Addr>,
}

impl Network {
    fn new(input: NetworkNames) -> Self {
        let mut names: BTreeMap<String, Addresses> = BTreeMap::new();
        for (name, addresses) in input.names {
            names.entry(name.to_ascii_lowercase()).or_default().extend(addresses);
        }
        let pointers = input
            .reverse
            .into_iter()
            .filter_map(|(address, name)| Some((address, name::encode(&name)?)))
            .collect();
        let name = input.name.to_ascii_lowercase();
        Self { name, subnets: input.subnets, names, pointers }
    }

    pub(crate) fn addresses(&self, name: &str) -> Option<&Addresses> {
        self.names.get(name)
    }

    /// The canonical name of an address, in wire form.
    pub(crate) fn pointer(&self, address: IpAddr) -> Option<&[u8]> {
        self.pointers.get(&address).map(Vec::as_slice)
    }
}

impl Addresses {
    fn extend(&mut self, addresses: Vec<IpAddr>) {
        for address in addresses {
            match address {
                IpAddr::V4(v4) => self.v4.push(v4),
                IpAddr::V6(v6) => self.v6.push(v6),
            }
        }
        self.v4.sort_unstable();
        self.v4.dedup();
        self.v6.sort_unstable();
        self.v6.dedup();
    }
}
