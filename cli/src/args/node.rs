//! `weft node ...`

use clap::{ArgGroup, Args, Subcommand};

use super::{ListArgs, cluster::AvailabilityArg, cluster::RoleArg, values};

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List the nodes
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show everything about nodes, as JSON
    Inspect(NodeInspectArgs),
    /// List the tasks of nodes
    Ps(NodePsArgs),
    /// Change a node
    Update(NodeUpdateArgs),
    /// Make workers managers
    Promote(NodeNames),
    /// Make managers workers
    Demote(NodeNames),
    /// Remove nodes from the cluster
    #[command(visible_alias = "remove")]
    Rm(NodeRmArgs),
}

#[derive(Debug, Args)]
pub struct NodeInspectArgs {
    /// Names, IDs, or "self"
    #[arg(required = true, value_name = "NODE")]
    pub nodes: Vec<String>,
    /// json or TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Text for people instead of JSON
    #[arg(long, conflicts_with = "format")]
    pub pretty: bool,
}

#[derive(Debug, Args)]
pub struct NodePsArgs {
    /// Names, IDs, or "self"
    #[arg(value_name = "NODE", default_value = "self")]
    pub nodes: Vec<String>,
    #[command(flatten)]
    pub list: ListArgs,
    /// Show IDs instead of names
    #[arg(long)]
    pub no_resolve: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true)
    .args(["availability", "role", "label_add", "label_rm", "rotate_key"]))]
pub struct NodeUpdateArgs {
    #[arg(long, value_enum)]
    pub availability: Option<AvailabilityArg>,
    #[arg(long, value_enum)]
    pub role: Option<RoleArg>,
    /// Label to add or replace
    #[arg(long, value_name = "K=V", value_parser = values::label)]
    pub label_add: Vec<(String, String)>,
    /// Key of a label to remove
    #[arg(long, value_name = "K")]
    pub label_rm: Vec<String>,
    /// Give it another WireGuard key; nothing is lost meanwhile
    #[arg(long)]
    pub rotate_key: bool,
    pub node: String,
}

#[derive(Debug, Args)]
pub struct NodeNames {
    #[arg(required = true, value_name = "NODE")]
    pub nodes: Vec<String>,
}

#[derive(Debug, Args)]
pub struct NodeRmArgs {
    /// Remove it even though it is not down
    #[arg(short, long)]
    pub force: bool,
    #[arg(required = true, value_name = "NODE")]
    pub nodes: Vec<String>,
}
