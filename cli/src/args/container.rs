//! Commands on the containers of this node, and `inspect` of anything.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;

use super::{Helped, ListArgs, run, values};
use crate::commands::escape::Keys;

/// What is done to containers: the same words with and without `container` before them.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a command in a new container of this node
    #[command(disable_help_flag = true)]
    Run(Box<Helped<run::RunArgs>>),
    /// Make a container of this node and do not start it
    #[command(disable_help_flag = true)]
    Create(Box<Helped<run::CreateArgs>>),
    /// Start containers of this node that do not run
    Start(run::StartArgs),
    /// Stop containers of this node
    Stop(StopArgs),
    /// Stop containers of this node and start them again
    Restart(StopArgs),
    /// Kill containers of this node
    Kill(KillArgs),
    /// Remove containers of this node
    #[command(alias = "remove")]
    Rm(run::RmArgs),
    /// Wait until containers of this node have ended, and print their exit codes
    Wait(run::WaitArgs),
    /// Show the published ports of a container of this node
    Port(run::PortArgs),
    /// Run a command in a container of this node
    Exec(ExecArgs),
    /// Show the output of a container of this node
    Logs(LogsArgs),
}

/// `weft container ...`: what stands at the top level too, and what needs the noun.
#[derive(Debug, Subcommand)]
pub enum ContainerCommand {
    /// List the containers of this node
    #[command(visible_aliases = ["ps", "list"])]
    Ls(PsArgs),
    #[command(flatten)]
    Verb(Verb),
    /// Show everything about containers of this node, as JSON
    Inspect(ContainerInspectArgs),
    /// Show the output of a running container, with the user's keyboard and signals at its command
    Attach(ContainerAttachArgs),
    /// Remove all containers of this node that do not run
    Prune(ContainerPruneArgs),
}

#[derive(Debug, Args)]
pub struct ContainerInspectArgs {
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
    /// json or TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}

#[derive(Debug, Args)]
pub struct ContainerAttachArgs {
    pub container: String,
    #[command(flatten)]
    pub flags: AttachFlags,
}

/// How somebody looks at a container that runs.
#[derive(Debug, Clone, Args)]
pub struct AttachFlags {
    /// Do not pass standard input on
    #[arg(long)]
    pub no_stdin: bool,
    /// Send the signals that come here on to the command
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value = "true", default_missing_value = "true")]
    pub sig_proxy: bool,
    /// Keys that leave the terminal and let the command go on
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: Keys,
}

#[derive(Debug, Args)]
pub struct ContainerPruneArgs {
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct PsArgs {
    /// Ended ones too
    #[arg(short, long)]
    pub all: bool,
    /// The newest N, ended ones too
    #[arg(short = 'n', long, value_name = "N")]
    pub last: Option<usize>,
    /// The newest one
    #[arg(short, long)]
    pub latest: bool,
    #[command(flatten)]
    pub list: ListArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ObjectKind {
    Container,
    Network,
    Service,
    Node,
    Task,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    #[arg(required = true, value_name = "NAME|ID")]
    pub objects: Vec<String>,
    /// json or TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Look among objects of this kind only
    #[arg(long = "type", value_enum)]
    pub kind: Option<ObjectKind>,
}

#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Pass standard input on to the command
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Do not wait for the command
    #[arg(short, long)]
    pub detach: bool,
    /// Environment: K=V, or K for the value that it has here
    #[arg(short, long, value_name = "K[=V]", value_parser = values::env)]
    pub env: Vec<String>,
    /// Directory to run in
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User to run as: NAME|UID[:GROUP|GID]
    #[arg(short, long)]
    pub user: Option<String>,
    pub container: String,
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub command: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub struct LogFlags {
    /// Go on with what comes
    #[arg(short, long)]
    pub follow: bool,
    /// Lines from the end, or "all"
    #[arg(short = 'n', long, value_name = "N", default_value = "all", value_parser = values::tail)]
    pub tail: Tail,
    /// Since a time (RFC 3339, UNIX seconds) or for a span (10m)
    #[arg(long, value_name = "TIME", value_parser = values::since)]
    pub since: Option<Since>,
    /// Show when each line was written
    #[arg(short, long)]
    pub timestamps: bool,
}

/// How much of the past to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    All,
    Lines(u64),
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    At(Timestamp),
    Ago(Duration),
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    #[command(flatten)]
    pub flags: LogFlags,
    pub container: String,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    /// Seconds until it is killed [default: the container's own]
    #[arg(short = 't', long = "timeout", visible_alias = "time", value_name = "SECONDS",
          value_parser = values::seconds)]
    pub timeout: Option<u32>,
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub struct KillArgs {
    /// Name or number
    #[arg(short, long, default_value = "KILL", value_parser = values::signal)]
    pub signal: u32,
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}
