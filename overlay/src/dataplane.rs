//! What a caller wants of this node's data plane, in the words of networks and sandboxes.
//!
//! Pure values only: no interface index, no file descriptor, nothing that a restart would change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::names::Mac;

pub use host::{Cable, CableEnd, HostPolicy, Publish};
pub use kind::{
    Bridge, Ipvlan, IpvlanMode, Kind, Macvlan, MacvlanMode, Opening, Overlay, Ovs, Plain, Protocol,
    Remote,
};
pub use tunnel::{Engine, Tunnel};

mod host;
mod kind;
mod tunnel;

/// Everything one node's kernel should hold: its networks and the sandboxes attached to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataplane {
    /// How this node reaches the others. `None` on a node that is in no cluster: its networks get a
    /// bridge and no VXLAN device.
    pub underlay: Option<Underlay>,
    /// The encrypted link to the other nodes. `None`: encrypted networks do not leave this node.
    pub tunnel: Option<Tunnel>,
    /// The networks present on this node.
    pub networks: BTreeMap<NetworkKey, Network>,
    /// The network namespaces attached on this node, by a key that is stable for their life (a task id).
    pub sandboxes: BTreeMap<String, Sandbox>,
    /// The ports of the host that lead to sandboxes.
    pub publish: BTreeSet<Publish>,
    /// Wires between sandboxes, by a key of their own.
    pub cables: BTreeMap<String, Cable>,
    /// What of the host we may touch.
    pub host: HostPolicy,
}

/// What tells networks apart, and what their devices are named after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NetworkKey {
    /// A network of the cluster, by its VXLAN network identifier (24 bits).
    Vni(u32),
    /// A network of this node, by the first 12 hexadecimal digits of its ID.
    Local([u8; 6]),
}

impl fmt::Display for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkKey::Vni(vni) => write!(f, "{vni:06x}"),
            NetworkKey::Local(id) => id.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

/// The address and port VXLAN frames travel on (RFC 7348), and who may send them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Underlay {
    /// This node's tunnel endpoint: an address of one of its own interfaces.
    pub vtep: IpAddr,
    /// UDP port, 4789 unless the cluster says otherwise.
    pub port: u16,
    /// Endpoints of all members. VXLAN frames from any other address are dropped.
    pub members: BTreeSet<IpAddr>,
}

/// One network as it should look on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The network's id, written into the alias of every link of it (`weft:<id>`).
    pub id: String,
    /// Address ranges and the gateway address this node answers for in each.
    pub subnets: Vec<Subnet>,
    /// An internal network has no way out of itself.
    pub internal: bool,
    /// Upper bound for the containers' MTU, in bytes; the underlay may impose a smaller one. `None` on a
    /// network of this node: 1500, or what the parent device has.
    pub mtu: Option<u32>,
    /// What it is made of.
    pub kind: Kind,
}

/// One address range of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The range.
    pub cidr: IpNet,
    /// The gateway's address inside it, the same on every node. On macvlan and ipvlan networks it belongs
    /// to somebody outside.
    pub gateway: IpAddr,
}

/// One network namespace of a container, a pod or a foreign program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Where its network namespace is found.
    pub netns: NetnsRef,
    /// Its ports. Without any, and without VIPs and a resolver, only its loopback is set up.
    pub attachments: BTreeMap<NetworkKey, Port>,
    /// Virtual addresses and the backends behind each. One without backends refuses connections at once.
    pub vips: BTreeMap<IpAddr, Vec<IpAddr>>,
    /// Port on 127.0.0.11 inside the namespace that answers DNS; 127.0.0.11:53 leads there.
    pub dns_port: Option<u16>,
}

/// Path of a network namespace, such as `/proc/4711/ns/net`.
///
/// It is opened once, checked to be a network namespace other than the host's, and kept open as long as
/// the sandbox is wanted: a reused process id cannot lead elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetnsRef(pub PathBuf);

/// One interface inside a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Name inside the namespace, 1 to 15 characters.
    pub ifname: String,
    /// MAC, see [`mac_for`](crate::mac_for).
    pub mac: Mac,
    /// Addresses with the prefix length of their subnet.
    pub addresses: Vec<IpNet>,
    /// Whether this port may carry the default route. Of such ports, on networks that are not internal
    /// and have the address family, the one of the lowest `rank` wins, then the one of the lowest key.
    pub default_gateway: bool,
    /// Its place among the ports that may carry the default route.
    pub rank: u32,
}
