//! The options of `weft daemon`. Each one that is absent is taken from the configuration file,
//! and then from the daemon's own default; so all are optional here.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{ArgAction, Args, ValueEnum};
use ipnet::IpNet;

/// Where the configuration is looked for; it need not exist unless it was named.
pub const DEFAULT_CONFIG: &str = "/etc/weft/weft.toml";

#[derive(Debug, Clone, Default, Args)]
pub struct DaemonArgs {
    /// Configuration file [default: /etc/weft/weft.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What must outlive a reboot [default: /var/lib/weft]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Sockets and what a reboot clears [default: /run/weft]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Name of this node [default: its host name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Where other nodes and clients connect [default: 0.0.0.0:2377]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen_addr: Option<SocketAddr>,
    /// Serve metrics for Prometheus here, at /metrics; without it none are served
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics_addr: Option<SocketAddr>,
    /// What is logged: error, warn, info, debug, trace, or a filter [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// [default: text]
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormat>,
    /// Which WireGuard carries encrypted overlays [default: kernel, if it is there]
    #[arg(long, value_enum)]
    pub wireguard: Option<WireguardKind>,
    #[command(flatten)]
    pub network: NetworkDefaults,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WireguardKind {
    Kernel,
    Userspace,
}

/// What new networks and containers of this node get when nothing else is said.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Network defaults")]
pub struct NetworkDefaults {
    /// An existing bridge to use instead of weft0
    #[arg(long, value_name = "NAME")]
    pub bridge: Option<String>,
    /// Address of weft0
    #[arg(long, value_name = "CIDR", value_parser = super::values::cidr)]
    pub bip: Option<IpNet>,
    /// Part of weft0's subnet that containers get addresses from
    #[arg(long, value_name = "CIDR", value_parser = super::values::cidr)]
    pub fixed_cidr: Option<IpNet>,
    /// MTU of weft0
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(576..=65535))]
    pub mtu: Option<u32>,
    /// Let the containers of weft0 reach each other
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    pub icc: Option<bool>,
    /// Default address of published ports
    #[arg(long, value_name = "ADDR")]
    pub ip: Option<IpAddr>,
    /// Turn on forwarding in the kernel
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    pub ip_forward: Option<bool>,
    /// Write rules into the host's nftables
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    pub nftables: Option<bool>,
    /// DNS server of containers
    #[arg(long, value_name = "IP")]
    pub dns: Vec<IpAddr>,
    /// DNS search domain of containers
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// DNS option of containers
    #[arg(long, visible_alias = "dns-option", value_name = "OPTION")]
    pub dns_opt: Vec<String>,
    /// Where node-local subnets come from: base=CIDR,size=N
    #[arg(long, value_name = "base=CIDR,size=N", value_parser = super::values::address_pool)]
    pub default_address_pool: Vec<AddressPool>,
    /// Published ports obey the host's own firewall rules
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    pub publish_respects_host_firewall: Option<bool>,
}

/// Subnets of `size` bits of prefix are cut out of `base`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPool {
    pub base: IpNet,
    pub size: u8,
}
