//! `attach`: to the streams of a container, or of a namespace that somebody else owns to a network.

use std::{net::IpAddr, path::PathBuf};

use clap::Args;

use super::{container::AttachFlags, values};

#[derive(Debug, Args)]
pub struct AttachArgs {
    /// A container of this node that runs
    #[arg(required_unless_present = "netns", conflicts_with_all = ["netns", "network", "name",
          "aliases", "service", "ip", "ip6", "ifname"])]
    pub container: Option<String>,
    #[command(flatten)]
    pub flags: AttachFlags,
    #[command(flatten)]
    pub namespace: NamespaceFlags,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "A namespace of another owner, on an attachable network")]
pub struct NamespaceFlags {
    /// Path of the network namespace, such as /run/netns/NAME or /proc/PID/ns/net. Names are answered
    /// there at 127.0.0.11: its resolv.conf is its owner's
    #[arg(long, value_name = "PATH", requires = "network")]
    pub netns: Option<PathBuf>,
    /// An attachable network
    #[arg(long, value_name = "NET", visible_alias = "net", requires = "netns")]
    pub network: Option<String>,
    /// What it is found by [default: the short ID]
    #[arg(long)]
    pub name: Option<String>,
    /// What else it is found by
    #[arg(long = "alias", value_name = "NAME")]
    pub aliases: Vec<String>,
    /// Answer for this service beside its tasks; on a manager only
    #[arg(long)]
    pub service: Option<String>,
    /// IPv4 address [default: chosen]
    #[arg(long, value_name = "ADDRESS", value_parser = values::address)]
    pub ip: Option<IpAddr>,
    /// IPv6 address [default: chosen]
    #[arg(long, value_name = "ADDRESS", value_parser = values::address)]
    pub ip6: Option<IpAddr>,
    /// Name of the interface inside
    #[arg(long, value_name = "NAME", default_value = "eth0")]
    pub ifname: String,
}

#[derive(Debug, Args)]
pub struct DetachArgs {
    /// Name or ID
    #[arg(required = true, value_name = "ATTACHMENT")]
    pub attachments: Vec<String>,
}
