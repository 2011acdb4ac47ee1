//! The command line as types, one file for each noun. Values are checked here, so that a command
//! never starts with half of its arguments understood.

pub mod attachment;
pub mod cluster;
pub mod connection;
pub mod container;
pub mod daemon;
pub mod network;
pub mod node;
pub mod run;
pub mod service;
pub mod unsupported;
pub mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use connection::Connection;
pub use daemon::DaemonArgs;

/// Containers of many hosts in one network.
#[derive(Debug, Parser)]
#[command(
    name = "weft",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    after_help = "Lists take --format json, --format TEMPLATE (Go templates), --filter k=v and -q."
)]
pub struct Cli {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon of this node
    Daemon(Box<DaemonArgs>),
    /// Make, join and leave a cluster
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Manage nodes
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Manage networks
    #[command(subcommand)]
    Network(network::NetworkCommand),
    /// Manage services
    #[command(subcommand)]
    Service(service::ServiceCommand),
    #[command(flatten)]
    Verb(container::Verb),
    /// Manage the containers of this node
    #[command(subcommand)]
    Container(container::ContainerCommand),
    /// Lay a direct link between two containers of this node
    P2p(run::P2pArgs),
    /// Clean up this node
    #[command(subcommand)]
    System(run::SystemCommand),
    /// List the containers of this node
    Ps(container::PsArgs),
    /// Show everything about objects of any kind, as JSON
    Inspect(container::InspectArgs),
    /// Show the output of a running container, or put a namespace of another owner on a network
    Attach(attachment::AttachArgs),
    /// Take network namespaces off their networks
    Detach(attachment::DetachArgs),
    /// Show what this node knows of itself and its cluster
    Info(FormatArgs),
    /// Say what is wrong on this node and between it and others, and what to do about it
    Doctor(FormatArgs),
    /// Show the versions of client and daemon
    Version(FormatArgs),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
    /// Write the manual pages into a directory
    Man(ManArgs),

    // Commands of the contract that are not built yet: understood, so that the answer is exact,
    // and hidden, so that the help promises nothing.
    #[command(hide = true, disable_help_flag = true)]
    Events(Later),
    #[command(hide = true, disable_help_flag = true)]
    Top(Later),
    #[command(hide = true, disable_help_flag = true)]
    Trace(Later),
    #[command(hide = true, disable_help_flag = true)]
    Dns(Later),
    #[command(hide = true, disable_help_flag = true)]
    Ipam(Later),
}

/// The flags of a command in which `-h` means something else: help has its long form only.
#[derive(Debug, Args)]
pub struct Helped<T: Args> {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    pub args: T,
}

/// Whatever stands behind a command that is not built yet.
#[derive(Debug, Args)]
pub struct Later {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub rest: Vec<String>,
}

/// The options that every list has.
#[derive(Debug, Clone, Default, Args)]
pub struct ListArgs {
    /// Print IDs only
    #[arg(short, long)]
    pub quiet: bool,
    /// Print whole IDs
    #[arg(long)]
    pub no_trunc: bool,
    /// Show what matches only, such as name=web; several of one key are alternatives
    #[arg(short, long = "filter", value_name = "K=V", value_parser = values::key_value)]
    pub filters: Vec<(String, String)>,
    /// json, "table TEMPLATE" or TEMPLATE
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

#[derive(Debug, Clone, Default, Args)]
pub struct FormatArgs {
    /// json or TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}

#[derive(Debug, Args)]
pub struct CompletionArgs {
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// Made if it does not exist
    pub dir: PathBuf,
}
