//! `weft network ...`

use std::net::IpAddr;

use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;

use super::{ListArgs, values};

#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Make a network
    Create(Box<NetworkCreateArgs>),
    /// List the networks
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show everything about networks, as JSON
    Inspect(NetworkInspectArgs),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(NetworkRmArgs),
    /// Remove the networks that nobody uses
    Prune(NetworkPruneArgs),
    /// Put a container of this node on a network
    Connect(NetworkConnectArgs),
    /// Take a container of this node off a network
    Disconnect(NetworkDisconnectArgs),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScopeArg {
    Local,
    Cluster,
}

#[derive(Debug, Args)]
pub struct NetworkCreateArgs {
    /// bridge (this node), overlay (the cluster), macvlan, ipvlan, ovs
    #[arg(short, long, default_value = "bridge")]
    pub driver: String,
    /// Subnet; one for each family
    #[arg(long, value_name = "CIDR", value_parser = values::subnet, value_delimiter = ',')]
    pub subnet: Vec<IpNet>,
    /// Gateway; one for each subnet
    #[arg(long, value_name = "IP", value_parser = values::address, value_delimiter = ',')]
    pub gateway: Vec<IpAddr>,
    /// Part of a subnet that containers get addresses from
    #[arg(long, value_name = "CIDR", value_parser = values::subnet, value_delimiter = ',')]
    pub ip_range: Vec<IpNet>,
    /// Address that no container gets
    #[arg(long, value_name = "NAME=IP", value_parser = values::aux_address)]
    pub aux_address: Vec<(String, IpAddr)>,
    /// Give it an IPv6 subnet too
    #[arg(long)]
    pub ipv6: bool,
    /// No way out of the network
    #[arg(long)]
    pub internal: bool,
    /// Containers that belong to no service may join
    #[arg(long)]
    pub attachable: bool,
    /// Make it the network of published ports
    #[arg(long)]
    pub ingress: bool,
    #[arg(long, value_name = "K=V", value_parser = values::label)]
    pub label: Vec<(String, String)>,
    /// Option of the driver, such as com.docker.network.driver.mtu=1400 or encrypted
    #[arg(short, long, value_name = "K=V", value_parser = values::option)]
    pub opt: Vec<(String, String)>,
    #[arg(long, value_enum)]
    pub scope: Option<ScopeArg>,
    pub name: String,
}

#[derive(Debug, Args)]
pub struct NetworkInspectArgs {
    #[arg(required = true, value_name = "NETWORK")]
    pub networks: Vec<String>,
    /// json or TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Also services and their tasks
    #[arg(short, long)]
    pub verbose: bool,
}

#[derive(Debug, Args)]
pub struct NetworkRmArgs {
    /// Do not complain about a network that does not exist
    #[arg(short, long)]
    pub force: bool,
    #[arg(required = true, value_name = "NETWORK")]
    pub networks: Vec<String>,
}

#[derive(Debug, Args)]
pub struct NetworkPruneArgs {
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct NetworkConnectArgs {
    /// IPv4 address [default: chosen]
    #[arg(long, value_name = "IP", value_parser = values::address4)]
    pub ip: Option<IpAddr>,
    /// IPv6 address [default: chosen]
    #[arg(long, value_name = "IP", value_parser = values::address6)]
    pub ip6: Option<IpAddr>,
    /// MAC address [default: derived from the addresses]
    #[arg(long, value_name = "MAC", value_parser = values::run::mac)]
    pub mac_address: Option<String>,
    /// What else the container is found by on the network
    #[arg(long = "alias", value_name = "NAME")]
    pub aliases: Vec<String>,
    /// Make another container known to this one: NAME[:ALIAS]
    #[arg(long, value_name = "NAME[:ALIAS]", value_parser = values::run::link)]
    pub link: Vec<String>,
    pub network: String,
    pub container: String,
}

#[derive(Debug, Args)]
pub struct NetworkDisconnectArgs {
    /// Also a container that is on its way out
    #[arg(short, long)]
    pub force: bool,
    pub network: String,
    pub container: String,
}
