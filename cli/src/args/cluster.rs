//! `weft cluster ...`

use std::time::Duration;

use clap::{ArgAction, ArgGroup, Args, Subcommand, ValueEnum};

use weft_model::tunnel::WIREGUARD_PORT;

use super::{FormatArgs, Later, values};

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make a cluster with this node as its first manager
    Init(InitArgs),
    /// Make this node a member of a cluster
    Join(JoinArgs),
    /// Show the command that joins a node, or make a token that expires
    JoinToken(JoinTokenArgs),
    /// Write a certificate for a client of the API over TCP
    ClientCert(ClientCertArgs),
    /// Take this node out of its cluster
    Leave(LeaveArgs),
    /// Show the cluster as JSON
    Inspect(FormatArgs),
    /// Change settings of the cluster
    Update(UpdateArgs),
    #[command(hide = true, disable_help_flag = true)]
    Unlock(Later),
    #[command(hide = true, disable_help_flag = true)]
    UnlockKey(Later),
    #[command(hide = true, disable_help_flag = true)]
    Ca(Later),
    #[command(hide = true, disable_help_flag = true)]
    Backup(Later),
    #[command(hide = true, disable_help_flag = true)]
    Restore(Later),
    #[command(hide = true, disable_help_flag = true)]
    Recover(Later),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AvailabilityArg {
    Active,
    Pause,
    Drain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    Worker,
    Manager,
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// Address that other nodes reach this one at [default: the only one of the machine]
    #[arg(long, value_name = "IP|IFACE[:PORT]")]
    pub advertise_addr: Option<String>,
    /// Address of the packets between containers [default: the advertised one]
    #[arg(long, value_name = "IP|IFACE")]
    pub data_path_addr: Option<String>,
    /// UDP port of the packets between containers
    #[arg(long, default_value_t = 4789, value_parser = clap::value_parser!(u16).range(1024..=49151))]
    pub data_path_port: u16,
    /// Where subnets of overlay networks come from
    #[arg(long, value_name = "CIDR", value_parser = values::subnet)]
    pub default_addr_pool: Vec<ipnet::IpNet>,
    /// Prefix length of the subnets cut out of the pools [default: 24]
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u8).range(1..=128))]
    pub default_addr_pool_mask_length: Option<u8>,
    /// How long a node's certificate is valid [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub cert_expiry: Option<Duration>,
    /// Ended tasks to keep for each slot [default: 5]
    #[arg(long, value_name = "N")]
    pub task_history_limit: Option<u32>,
    /// Availability of this node
    #[arg(long, value_enum, default_value = "active")]
    pub availability: AvailabilityArg,
    /// Encrypt every overlay network that does not say otherwise
    #[arg(long)]
    pub encrypt_overlays: bool,
    /// First UDP port of WireGuard, which carries encrypted networks
    #[arg(long, value_name = "PORT", default_value_t = WIREGUARD_PORT,
          value_parser = clap::value_parser!(u16).range(1024..=65503))]
    pub wireguard_port: u16,
    /// Age at which a node's WireGuard key is replaced, 0 for never [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub key_rotation: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct JoinArgs {
    /// Token of the role that this node shall have
    #[arg(long)]
    pub token: String,
    /// Address that other nodes reach this one at
    #[arg(long, value_name = "IP|IFACE[:PORT]")]
    pub advertise_addr: Option<String>,
    /// Address of the packets between containers
    #[arg(long, value_name = "IP|IFACE")]
    pub data_path_addr: Option<String>,
    /// Availability of this node
    #[arg(long, value_enum, default_value = "active")]
    pub availability: AvailabilityArg,
    /// Any manager
    #[arg(value_name = "HOST:PORT", value_parser = values::host_port)]
    pub remote: String,
}

#[derive(Debug, Args)]
pub struct JoinTokenArgs {
    #[arg(value_enum)]
    pub role: RoleArg,
    /// Print the token only
    #[arg(short, long)]
    pub quiet: bool,
    /// Replace the standing token; the old one is worth nothing from then on
    #[arg(long, conflicts_with_all = ["ttl", "uses"])]
    pub rotate: bool,
    /// Make an extra token that expires after this time
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub ttl: Option<Duration>,
    /// Make an extra token for so many nodes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: Option<u32>,
}

#[derive(Debug, Args)]
pub struct ClientCertArgs {
    /// Who the client is; also the name of the files
    #[arg(value_parser = values::file_name, required_unless_present_any = ["ls", "revoke"],
        conflicts_with_all = ["ls", "revoke"])]
    pub name: Option<String>,
    /// List the certificates that have not expired
    #[arg(long, conflicts_with = "revoke")]
    pub ls: bool,
    /// Let the holder of a certificate in no more; a name stands for all that the client has
    #[arg(long, value_name = "NAME|SERIAL")]
    pub revoke: Option<String>,
    /// With --ls: json, "table TEMPLATE" or TEMPLATE
    #[arg(long, value_name = "FORMAT", requires = "ls")]
    pub format: Option<String>,
    /// How long the certificate is valid
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = values::duration)]
    pub ttl: Duration,
    /// Where NAME.crt, NAME.key and ca.crt are written
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: std::path::PathBuf,
}

#[derive(Debug, Args)]
pub struct LeaveArgs {
    /// Leave even if the cluster loses a manager or its state by it
    #[arg(short, long)]
    pub force: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("setting").required(true).multiple(true)
    .args(["task_history_limit", "cert_expiry", "encrypt_overlays", "wireguard_port", "key_rotation"]))]
pub struct UpdateArgs {
    /// Ended tasks to keep for each slot
    #[arg(long, value_name = "N")]
    pub task_history_limit: Option<u32>,
    /// How long a node's certificate is valid
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub cert_expiry: Option<Duration>,
    /// Encrypt the overlay networks that are made from now on and do not say otherwise
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    pub encrypt_overlays: Option<bool>,
    /// First UDP port of WireGuard
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1024..=65503))]
    pub wireguard_port: Option<u16>,
    /// Age at which a node's WireGuard key is replaced, 0 for never
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub key_rotation: Option<Duration>,
}
