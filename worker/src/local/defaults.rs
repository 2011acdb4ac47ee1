//! What new networks and containers of this node get when nothing else is said: the daemon's
//! settings.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_ipam::AddressPool;

/// The device of the default bridge.
pub const DEFAULT_BRIDGE: &str = "weft0";

/// The daemon's settings of networks and containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// An existing bridge of the administrator instead of [`DEFAULT_BRIDGE`].
    pub bridge: Option<String>,
    /// Address of the default bridge, with the prefix length of its subnet.
    pub bip: Option<IpNet>,
    /// The part of the default bridge's subnet that containers get addresses from.
    pub fixed_cidr: Option<IpNet>,
    /// Bytes of a packet on the default bridge.
    pub mtu: Option<u32>,
    /// Whether containers on the default bridge reach each other.
    pub icc: bool,
    /// Address that ports are published at; none is every address of both families.
    pub ip: Option<IpAddr>,
    /// Whether forwarding is turned on in the kernel.
    pub ip_forward: bool,
    /// Whether rules are written into the host's nftables.
    pub nftables: bool,
    /// Name servers of containers, instead of the host's.
    pub dns: Vec<IpAddr>,
    /// Search domains, instead of the host's.
    pub dns_search: Vec<String>,
    /// Resolver options, instead of the host's.
    pub dns_options: Vec<String>,
    /// Where subnets are cut from; empty is Docker's list.
    pub pools: Vec<AddressPool>,
    /// Whether published ports obey the host's own firewall rules.
    pub respects_firewall: bool,
}

impl Default for Defaults {
    /// Docker's values.
    fn default() -> Self {
        Self {
            bridge: None,
            bip: None,
            fixed_cidr: None,
            mtu: None,
            icc: true,
            ip: None,
            ip_forward: true,
            nftables: true,
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            pools: Vec::new(),
            respects_firewall: false,
        }
    }
}
