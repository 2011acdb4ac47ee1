//! `weft run` and `weft create`: every flag of Docker's that a container of one node can have.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::Args;
use weft_proto::v1;

use super::values::{self, run as parts};
use crate::commands::escape::Keys;

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Run in the background and print the ID
    #[arg(short, long)]
    pub detach: bool,
    /// Send the signals that come here on to the command
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value = "true", default_missing_value = "true")]
    pub sig_proxy: bool,
    /// Keys that leave the terminal and let the command go on
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: Keys,
    #[command(flatten)]
    pub spec: SpecArgs,
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    pub spec: SpecArgs,
}

/// What a container is made from.
#[derive(Debug, Args)]
#[command(allow_negative_numbers = true)]
pub struct SpecArgs {
    /// Name of the container [default: a random one]
    #[arg(long)]
    pub name: Option<String>,
    /// Keep standard input open
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Remove the container when it has ended
    #[arg(long)]
    pub rm: bool,
    /// Write the ID of the container into this file
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// no, always, unless-stopped, on-failure or on-failure:N
    #[arg(long, default_value = "no", value_name = "POLICY", value_parser = parts::restart)]
    pub restart: String,
    /// No output but the ID or that of the command; there is no other
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub network: NetworkFlags,
    #[command(flatten)]
    pub process: ProcessFlags,
    #[command(flatten)]
    pub files: FileFlags,
    #[command(flatten)]
    pub rights: RightsFlags,
    #[command(flatten)]
    pub health: HealthFlags,

    /// Image, then the command and its arguments
    // One list, so that everything behind the image belongs to the command, flags too.
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    pub image_and_args: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkFlags {
    /// NET, host, none, container:NAME, or name=NET,alias=A,ip=IP; may be given several times
    #[arg(long, visible_alias = "net", value_name = "NETWORK",
          value_parser = parts::container_network)]
    pub network: Vec<parts::NetworkArg>,
    /// What else the container is found by on its first network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    pub network_alias: Vec<String>,
    /// IPv4 address on the first network [default: chosen]
    #[arg(long, value_name = "IP", value_parser = values::address4)]
    pub ip: Option<IpAddr>,
    /// IPv6 address on the first network [default: chosen]
    #[arg(long, value_name = "IP", value_parser = values::address6)]
    pub ip6: Option<IpAddr>,
    /// MAC address on the first network [default: derived from the addresses]
    #[arg(long, value_name = "MAC", value_parser = parts::mac)]
    pub mac_address: Option<String>,
    /// Make another container known here: NAME[:ALIAS]
    #[arg(long, value_name = "NAME[:ALIAS]", value_parser = parts::link)]
    pub link: Vec<String>,
    /// Publish a port: [IP:][HOSTPORT:]PORT[/PROTOCOL]
    #[arg(short, long, value_name = "PORT", value_parser = parts::publish,
          allow_hyphen_values = true)]
    pub publish: Vec<v1::PortSpec>,
    /// Publish all exposed ports, each on a port that is free
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// Port that is published with -P and open to links: PORT[/PROTOCOL]
    #[arg(long, value_name = "PORT", value_parser = parts::expose, allow_hyphen_values = true)]
    pub expose: Vec<String>,
    /// Host name in the container
    #[arg(short = 'h', long)]
    pub hostname: Option<String>,
    /// Line of /etc/hosts; the address may be host-gateway, the host as containers reach it
    #[arg(long, value_name = "NAME:IP", value_parser = parts::add_host)]
    pub add_host: Vec<String>,
    /// DNS server
    #[arg(long, value_name = "IP", value_parser = values::address)]
    pub dns: Vec<IpAddr>,
    /// DNS search domain
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// DNS option
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub dns_option: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Process")]
pub struct ProcessFlags {
    /// Environment: K=V, or K for the value that it has here
    #[arg(short, long, value_name = "K[=V]", value_parser = values::env)]
    pub env: Vec<String>,
    /// File with one K=V or K on each line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Label: K=V
    #[arg(short, long, value_name = "K=V", value_parser = values::label)]
    pub label: Vec<(String, String)>,
    /// File with one label on each line
    #[arg(long, value_name = "FILE")]
    pub label_file: Vec<PathBuf>,
    /// Directory to run in
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User to run as: NAME|UID[:GROUP|GID]
    #[arg(short, long)]
    pub user: Option<String>,
    /// Program that gets the command as its arguments
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// Run the command under a small init that passes signals on and reaps
    #[arg(long)]
    pub init: bool,
    /// Signal that ends the command: name or number [default: TERM]
    #[arg(long, value_name = "SIGNAL", value_parser = values::signal)]
    pub stop_signal: Option<u32>,
    /// Seconds from that signal to KILL [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = values::seconds)]
    pub stop_timeout: Option<u32>,
    /// Memory, such as 512m
    #[arg(short, long, value_name = "BYTES", value_parser = values::bytes)]
    pub memory: Option<u64>,
    /// CPUs, such as 0.5
    #[arg(long, value_name = "CPUS", value_parser = values::nano_cpus)]
    pub cpus: Option<u64>,
    /// Processes and threads; 0 or -1 is no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true,
          value_parser = clap::value_parser!(i64).range(-1..))]
    pub pids_limit: Option<i64>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Files")]
pub struct FileFlags {
    /// Show a path of the host in the container: SOURCE:TARGET[:ro]
    #[arg(short, long, value_name = "SOURCE:TARGET", value_parser = parts::volume)]
    pub volume: Vec<v1::Mount>,
    /// type=bind,source=PATH,target=PATH[,readonly] or type=tmpfs,target=PATH[,tmpfs-size=64m]
    #[arg(long, value_name = "MOUNT", value_parser = values::mount)]
    pub mount: Vec<v1::Mount>,
    /// An empty directory in memory: TARGET[:size=64m,mode=1777]
    #[arg(long, value_name = "TARGET", value_parser = parts::tmpfs)]
    pub tmpfs: Vec<v1::Mount>,
    /// The root file system cannot be written
    #[arg(long)]
    pub read_only: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Rights")]
pub struct RightsFlags {
    /// Capability over the usual ones, or ALL
    #[arg(long, value_name = "CAP")]
    pub cap_add: Vec<String>,
    /// Capability to be without, or ALL
    #[arg(long, value_name = "CAP")]
    pub cap_drop: Vec<String>,
    /// All rights that root has on the host
    #[arg(long)]
    pub privileged: bool,
    /// Kernel parameter of the container's own namespaces
    #[arg(long, value_name = "K=V", value_parser = values::key_value)]
    pub sysctl: Vec<(String, String)>,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Health")]
pub struct HealthFlags {
    /// Line of shell that fails while the container is not well
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// Between two checks [default: 30s, of services 5s]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub health_interval: Option<Duration>,
    /// How long one check may take [default: 30s, of services 2s]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub health_timeout: Option<Duration>,
    /// Failures in a row until it is unhealthy [default: 3]
    #[arg(long, value_name = "N")]
    pub health_retries: Option<u32>,
    /// Time in which failures do not count [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub health_start_period: Option<Duration>,
    /// Check nothing
    #[arg(long, conflicts_with = "health_cmd")]
    pub no_healthcheck: bool,
}

#[derive(Debug, Args)]
pub struct StartArgs {
    /// Show the output and wait for the end
    #[arg(short, long)]
    pub attach: bool,
    /// Pass standard input on to the command
    #[arg(short, long)]
    pub interactive: bool,
    /// Keys that leave the terminal and let the command go on
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: Keys,
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub struct RmArgs {
    /// Also one that runs: it is killed
    #[arg(short, long)]
    pub force: bool,
    /// Accepted: there are no anonymous volumes
    #[arg(short, long)]
    pub volumes: bool,
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub struct WaitArgs {
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub struct PortArgs {
    pub container: String,
    /// PORT[/PROTOCOL]
    pub port: Option<String>,
}

#[derive(Debug, Args)]
pub struct P2pArgs {
    pub first: String,
    pub second: String,
    /// Its first two addresses are those of the ends [default: a /30 that is free]
    #[arg(long, value_name = "CIDR", value_parser = values::cidr)]
    pub subnet: Option<ipnet::IpNet>,
}

#[derive(Debug, clap::Subcommand)]
pub enum SystemCommand {
    /// Remove all containers that do not run, and all networks that nobody uses
    Prune(SystemPruneArgs),
}

#[derive(Debug, Args)]
pub struct SystemPruneArgs {
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Accepted: there are no images
    #[arg(short, long)]
    pub all: bool,
}
