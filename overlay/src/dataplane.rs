//! What a caller wants of this node's data plane, in the words of the cluster.
//!
//! Pure values only: no interface index, no file descriptor, nothing that a restart would change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::names::Mac;

/// Everything one node's kernel should hold: its networks and the sandboxes attached to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataplane {
    /// How this node reaches the others. `None` on a node that is in no cluster: its networks get a
    /// bridge and no VXLAN device.
    pub underlay: Option<Underlay>,
    /// The networks present on this node, by VNI (24 bits).
    pub networks: BTreeMap<u32, Network>,
    /// The network namespaces attached on this node, by a key that is stable for their life (a task id).
    pub sandboxes: BTreeMap<String, Sandbox>,
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
    /// Upper bound for the containers' MTU, in bytes; the underlay may impose a smaller one.
    pub mtu: Option<u32>,
    /// Attachments on other nodes.
    pub remotes: BTreeSet<Remote>,
    /// Endpoints of the other nodes on this network: broadcast and multicast frames are copied to each.
    pub peers: BTreeSet<IpAddr>,
}

/// One address range of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The range.
    pub cidr: IpNet,
    /// The gateway's address inside it, the same on every node.
    pub gateway: IpAddr,
}

/// One attachment on another node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Remote {
    /// Its addresses, IPv4 and IPv6.
    pub addresses: Vec<IpAddr>,
    /// Its MAC, see [`mac_for`](crate::mac_for).
    pub mac: Mac,
    /// The endpoint of its node.
    pub vtep: IpAddr,
}

/// One network namespace of a container, a pod or a foreign program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Where its network namespace is found.
    pub netns: NetnsRef,
    /// Its ports, by VNI.
    pub attachments: BTreeMap<u32, Port>,
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
    /// Whether this port may carry the default route. The first such port, by VNI, of a network that is
    /// not internal and has the address family wins.
    pub default_gateway: bool,
}
