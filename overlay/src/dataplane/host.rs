//! What concerns the host as a whole: published ports, wires between sandboxes, what we may touch.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{NetworkKey, Protocol};

/// A port of the host that leads to a sandbox.
///
/// The kernel translates what is sent to an address of the host, from outside, from the host itself or
/// from another sandbox; the client's address stays, but for clients on the target's own bridge. Left to
/// a proxy are loopback addresses, and a `host` and `target` of different families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Publish {
    /// The protocol.
    pub protocol: Protocol,
    /// The host's address; `0.0.0.0` or `::` is every one of that family.
    pub host: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// The network the target is on; nothing is published of an internal one.
    pub network: NetworkKey,
    /// The sandbox's address.
    pub target: IpAddr,
    /// The sandbox's port.
    pub port: u16,
}

/// A wire between two sandboxes. It is there while both are, and goes with either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cable {
    /// Its ends; never both in one sandbox under one name.
    pub ends: [CableEnd; 2],
}

/// One end of a wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CableEnd {
    /// The sandbox's key.
    pub sandbox: String,
    /// The interface's name inside, 1 to 15 characters.
    pub ifname: String,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
}

/// What of the host we may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPolicy {
    /// Whether the host is made to forward packets. Without it containers reach the host and each other,
    /// and nothing outside.
    pub ip_forward: bool,
    /// Whether we have tables in the host. Without them there is no masquerading, no published port but by
    /// the proxy, no guard of the VXLAN port, no filter on what comes in from outside or goes to the host,
    /// nothing passes between members of a network without `icc` or everything (links need the tables),
    /// and sandboxes may send from any address. MACs stay pinned and networks apart: both are structure.
    pub nftables: bool,
    /// Whether published ports obey the host's own rules for what comes in. The kernel then translates
    /// nothing, and the proxy serves them like any program of the host: the rules need not be understood.
    /// The price is the client's address, which the container no longer sees.
    pub respects_firewall: bool,
}

impl Default for HostPolicy {
    fn default() -> Self {
        Self { ip_forward: true, nftables: true, respects_firewall: false }
    }
}
