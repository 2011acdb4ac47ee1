//! Names, numbers and marks by which everything of ours in the kernel is known as ours.
//!
//! Interface names have 15 characters, so they are derived from the VNI or from a hash, never from a
//! user's text. A restarted process derives the same ones and so adopts what it finds.

use std::fmt;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::dataplane::NetworkKey;

/// Route and rule protocol number (`/etc/iproute2/rt_protos`) of everything we add.
/// 219 is in the range the kernel leaves to user space and in nobody's published list.
pub const PROTOCOL: u8 = 219;

/// Table holding a `prohibit` route for every subnet of ours: what comes from one of our bridges is looked
/// up here first. "WEFT" on a telephone keypad, out of the way of numbers people choose by hand.
pub const ISOLATION_TABLE: u32 = 9338;

/// Priority of the rules that lead to [`ISOLATION_TABLE`]; before `main` (32766) and usual hand-made rules.
pub const ISOLATION_PRIORITY: u32 = 933;

/// Priority of the rules that keep internal networks in; after isolation, before `main`.
pub const INTERNAL_PRIORITY: u32 = 934;

/// Mark on packets, and on connections, of a published port: what we translated may cross our walls. Bit 12
/// (0x1000) says that our forward chain let a packet pass.
pub const PUBLISHED_MARK: u32 = 0x2000;

/// Priority of the rule that leads packets with [`PUBLISHED_MARK`] past the walls.
pub const PUBLISHED_PRIORITY: u32 = 932;

/// Priority of the rule, of no effect, at which they go on.
pub const REJOIN_PRIORITY: u32 = 935;

/// Every alias of ours begins with this; the network's id follows.
pub const ALIAS_PREFIX: &str = "weft:";

/// What follows is the key of a cable, not the id of a network.
const CABLE_PREFIX: &str = "weft:cable ";

/// Link group of everything we make. A link is given its group in the very request that makes it, its alias
/// only afterwards: the group is how a link is known as ours when we were killed between the two.
pub const LINK_GROUP: u32 = 9338;

/// Number of slots in the VIP map. A change of backends touches slots, never a rule.
pub const SLOTS: u32 = 64;

/// The standard DNS port: inside a sandbox names are asked at 127.0.0.11 (`sandbox.nft`) and this port.
pub const DNS_PORT: u16 = 53;

/// UDP port of VXLAN inside the tunnel (IANA, "vxlan"); both engines of all nodes agree on it.
pub const VXLAN_PORT: u16 = 4789;

/// What the names of WireGuard devices begin with; also in `tunnel.nft`.
const WIREGUARD_PREFIX: &str = "weft-wg";

/// The id that the alias of WireGuard devices has in place of a network's.
pub const TUNNEL_ID: &str = "tunnel";

/// Where the tunnel's network namespace is held, below the directory of what runs.
pub const TUNNEL_FILE: &str = "tunnel";

/// An Ethernet address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The MAC that belongs to a set of addresses: 02:42 and the first IPv4 address, or, with IPv6 only, a
/// locally administered hash of the first one. Derived, so that a static FDB never lies.
pub fn mac_for(addresses: impl IntoIterator<Item = IpAddr>) -> Mac {
    let mut first6 = None;
    for address in addresses {
        match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                return Mac([0x02, 0x42, a, b, c, d]);
            }
            IpAddr::V6(v6) => first6 = first6.or(Some(v6)),
        }
    }
    let hash = first6.map_or(0, |v6| stable_hash(&v6.octets())).to_be_bytes();
    // 0x06: locally administered and unicast, and never equal to an address made from IPv4.
    Mac([0x06, hash[0], hash[1], hash[2], hash[3], hash[4]])
}

/// Name of the bridge of a network.
pub fn bridge(network: NetworkKey) -> String {
    match network {
        NetworkKey::Vni(_) => format!("wb{network}"),
        NetworkKey::Local(_) => format!("br-{network}"),
    }
}

/// Name of the VXLAN or TAP device of a network.
pub fn vxlan(vni: u32) -> String {
    format!("wx{vni:06x}")
}

/// Name of the WireGuard device of one of our keys, in the tunnel's namespace. Addresses of successive keys
/// differ in their last bit. Some kernels (6.1 is one) refuse a name that the host has, so it is no usual one.
pub fn wireguard(address: Ipv4Addr) -> String {
    format!("{WIREGUARD_PREFIX}{}", address.octets()[3] & 1)
}

/// Name of the host's end of a sandbox's port.
pub fn veth(sandbox: &str, network: NetworkKey) -> String {
    let mut text = sandbox.as_bytes().to_vec();
    text.push(0);
    match network {
        NetworkKey::Vni(vni) => text.extend(vni.to_be_bytes()),
        NetworkKey::Local(id) => text.extend(id),
    }
    // 13 characters after the prefix: 52 bits, so that 10,000 ports collide with probability 1e-8.
    format!("wv{:013x}", stable_hash(&text) >> 12)
}

/// Names of the two ends of a device that leads nowhere, which a network's members are made on where it has
/// no parent.
pub fn stub(network: NetworkKey) -> [String; 2] {
    let hash = stable_hash(network.to_string().as_bytes()) >> 12;
    [format!("wp{hash:013x}"), format!("wq{hash:013x}")]
}

/// Whether a name is one of those.
pub fn is_stub(name: &str) -> bool {
    is_derived(name) && (name.starts_with("wp") || name.starts_with("wq"))
}

/// Name of an interface of a sandbox until it has its own.
pub fn newborn(sandbox: &str, ifname: &str) -> String {
    let hash = stable_hash(format!("{sandbox}\0{ifname}").as_bytes()) >> 12;
    format!("wn{hash:013x}")
}

/// The alias of both ends of a cable.
pub fn cable_alias(key: &str) -> String {
    format!("{CABLE_PREFIX}{key}")
}

/// Whether an alias is one of those.
pub fn is_cable(alias: &str) -> bool {
    alias.starts_with(CABLE_PREFIX)
}

/// Whether a name has the shape of one of those above.
pub fn is_derived(name: &str) -> bool {
    let hex = |rest: &str, len: usize| {
        rest.len() == len && rest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    match name.split_at_checked(2) {
        Some(("wb" | "wx", rest)) => hex(rest, 6),
        Some(("wv" | "wp" | "wq", rest)) => hex(rest, 13),
        Some(_) | None => false,
    }
}

/// The alias of a link that belongs to a network.
pub fn alias(network: &str) -> String {
    format!("{ALIAS_PREFIX}{network}")
}

/// A hash that is the same in every build and on every machine.
pub(crate) fn stable_hash(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_are_recognised() {
        let (cluster, local) = (NetworkKey::Vni(0xff_ffff), NetworkKey::Local([0xab; 6]));
        for name in [bridge(cluster), vxlan(65536), veth("task-1", cluster)] {
            assert!(name.len() <= 15, "{name}");
            assert!(is_derived(&name), "{name}");
        }
        for name in ["wb0", "wlan0", "wbzzzzzz", "eth0", "w", "wé"] {
            assert!(!is_derived(name), "{name}");
        }
        assert_ne!(veth("a", NetworkKey::Vni(1)), veth("a", NetworkKey::Vni(2)));
        assert_ne!(veth("a", cluster), veth("a", local));
        assert_eq!(bridge(local), "br-abababababab");
    }

    #[test]
    fn mac_comes_from_ipv4_or_a_hash() {
        let v6: IpAddr = "fd00::5".parse().unwrap();
        assert_eq!(mac_for([v6, "10.1.0.2".parse().unwrap()]).to_string(), "02:42:0a:01:00:02");
        let hashed = mac_for([v6]);
        assert_eq!(hashed.0[0], 6);
        assert_ne!(hashed, mac_for(["fd00::6".parse().unwrap()]));
    }
}
