//! Keys and engines of the encrypted links between nodes.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

/// UDP port of WireGuard unless the cluster says otherwise.
pub const WIREGUARD_PORT: u16 = 51_820;
/// Most lanes of one node: their ports, for two generations, are 32.
pub const LANES_MAX: u16 = 16;
/// Most keys in one report: two that are in use, one that is about to be forgotten and one that was
/// made too early.
pub const KEYS_MAX: usize = 4;
/// The last generation: at one rotation a minute it comes after 8,000 years.
pub const GENERATION_MAX: u64 = 1 << 32;
/// First of the addresses that exist only inside the tunnels (RFC 6598, 100.64.0.0/10).
const TUNNELS: u32 = 0x6440_0000;
/// Each node has two addresses of the 2^22, one for each parity of its key's generation.
const NUMBERS: u64 = 1 << 21;

/// What carries a node's encrypted links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Engine {
    /// The kernel's WireGuard.
    Kernel,
    /// A process of ours.
    Userspace,
}

impl Engine {
    /// "kernel" or "userspace".
    pub fn word(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
        }
    }
}

/// A public key of Curve25519.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "PublicKey({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}

/// The public half of a node's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeKey {
    /// Counts up from 1; its parity decides on address and ports.
    pub generation: u64,
    /// The public half.
    pub public: PublicKey,
}

/// What a node says of its end of the encrypted links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelReport {
    /// What carries them.
    pub engine: Engine,
    /// Why that one, in words.
    pub reason: String,
    /// Parallel links to each other node that has as many; 1 for the kernel.
    pub lanes: u16,
    /// The public halves of the keys it has, by generation. Each was written to its disk before it
    /// was said.
    pub keys: BTreeMap<u64, PublicKey>,
}

/// A node's end of the encrypted links, as decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// What carries it.
    pub engine: Engine,
    /// Why that one, in words.
    pub reason: String,
    /// Parallel links.
    pub lanes: u16,
    /// The key that its packets come from, and that others send to.
    pub current: NodeKey,
    /// Since when.
    pub since: crate::Time,
    /// How far the next key has come.
    pub rotation: Rotation,
}

/// How far the change to another key has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rotation {
    /// None is going on.
    #[default]
    Idle,
    /// The node is to make the next key.
    Wanted,
    /// The next key is known, and everybody is to take packets of it.
    Distributed {
        /// The next one.
        next: NodeKey,
        /// Revision of the state that said so first.
        at: u64,
    },
    /// The next key is the current one; packets of the former are still taken.
    Switched {
        /// The former one.
        former: NodeKey,
        /// Revision of the state that said so first.
        at: u64,
    },
}

impl Tunnel {
    /// The keys that others know, the one to send to first.
    pub fn keys(&self) -> Vec<NodeKey> {
        let second = match self.rotation {
            Rotation::Idle | Rotation::Wanted => None,
            Rotation::Distributed { next, .. } => Some(next),
            Rotation::Switched { former, .. } => Some(former),
        };
        std::iter::once(self.current).chain(second).collect()
    }

    /// The generations that the node itself must have, the one to send with first.
    pub fn generations(&self) -> Vec<u64> {
        let second = match self.rotation {
            Rotation::Idle => None,
            Rotation::Wanted => Some(self.current.generation + 1),
            Rotation::Distributed { next, .. } => Some(next.generation),
            Rotation::Switched { former, .. } => Some(former.generation),
        };
        std::iter::once(self.current.generation).chain(second).collect()
    }
}

/// The address inside the tunnel of the node of that number, for that generation of its key; none if
/// the number is too large for the prefix.
pub fn tunnel_address(number: u64, generation: u64) -> Option<Ipv4Addr> {
    let number = u32::try_from(number).ok().filter(|_| number < NUMBERS)?;
    let parity = u32::from(generation % 2 == 1);
    Some(Ipv4Addr::from(TUNNELS + number * 2 + parity))
}

/// The UDP ports of all lanes for that generation of a key.
pub fn tunnel_ports(base: u16, lanes: u16, generation: u64) -> Vec<u16> {
    let parity = u16::from(generation % 2 == 1);
    (0..lanes.min(LANES_MAX)).map(|lane| base + 2 * lane + parity).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_generation_has_an_address_and_ports_of_its_own() {
        assert_eq!(tunnel_address(1, 1), Some(Ipv4Addr::new(100, 64, 0, 3)));
        assert_eq!(tunnel_address(1, 2), Some(Ipv4Addr::new(100, 64, 0, 2)));
        assert_eq!(tunnel_address(NUMBERS - 1, 1), Some(Ipv4Addr::new(100, 127, 255, 255)));
        assert_eq!(tunnel_address(NUMBERS, 1), None);
        assert_eq!(tunnel_ports(WIREGUARD_PORT, 1, 2), [51_820]);
        assert_eq!(tunnel_ports(WIREGUARD_PORT, 2, 1), [51_821, 51_823]);
    }
}
