//! What the engine should do.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use boringtun::x25519::{PublicKey, StaticSecret};
use serde::{Deserialize, Serialize};

/// Hardware address of an interface.
pub type Mac = [u8; 6];

/// A key of Curve25519, private or public.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key(pub [u8; 32]);

impl Key {
    /// The public half of a private key.
    pub fn public(&self) -> Self {
        Self(PublicKey::from(&StaticSecret::from(self.0)).to_bytes())
    }
}

/// No key is ever printed: half of them are private.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Everything that the engine should do; it replaces what it did before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// This node's keys; two while they are rotated. Packets are sent with the first.
    pub identities: Vec<Identity>,
    /// The nodes that share an encrypted network with this one, by their number in the cluster.
    pub nodes: BTreeMap<u64, Node>,
    /// The encrypted networks that are present on this node, by their VXLAN network identifier (24 bits).
    pub networks: BTreeMap<u32, Network>,
}

impl Config {
    /// The same with the public half of each private key in its place: what the engine shows of itself,
    /// and what it is compared with.
    pub fn without_private_keys(&self) -> Self {
        let mut config = self.clone();
        for identity in &mut config.identities {
            identity.private_key = identity.private_key.public();
        }
        config
    }
}

/// One key of this node and where it is listened for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The private key, which never leaves the node.
    pub private_key: Key,
    /// The address inside the tunnel, that VXLAN packets of this identity come from.
    pub address: Ipv4Addr,
    /// UDP ports, one for each lane, in their order; all local addresses are listened on. All identities
    /// have the same number of lanes; none has a port of another.
    pub ports: Vec<u16>,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Where its packets go until an authentic packet comes from elsewhere.
    pub endpoint: IpAddr,
    /// Its keys; two while they are rotated. Packets are sent to the first, taken from all.
    pub identities: Vec<PeerIdentity>,
    /// Seconds between packets that keep a mapping of an address translator alive.
    pub keepalive: Option<u16>,
}

/// One key of another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerIdentity {
    /// The public key.
    pub public_key: Key,
    /// The address inside the tunnel: the only one that its VXLAN packets may come from.
    pub address: Ipv4Addr,
    /// UDP ports, one for each lane. A node whose kernel speaks WireGuard has one.
    pub ports: Vec<u16>,
}

/// One encrypted network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Name of the TAP device that is this network's port on its bridge; made by the daemon, persistent,
    /// with multiple queues (`IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE`). While it is missing
    /// it is looked for four times a second.
    pub device: String,
    /// The interfaces on other nodes.
    pub members: BTreeMap<Mac, Member>,
}

/// One interface of the network on another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Number of its node; frames from this MAC are taken from no other.
    pub node: u64,
    /// Its addresses: the only ones its IP packets and neighbour advertisements may claim.
    pub addresses: Vec<IpAddr>,
}
