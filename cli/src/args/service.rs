//! `weft service ...`. `create` and `update` share the settings that replace as a whole; the ones
//! that are lists have `--X-add` and `--X-rm` in `update`, as in Docker.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use weft_proto::v1;

use super::{ListArgs, container::LogFlags, run::HealthFlags, values};

#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Make a service
    Create(Box<ServiceCreateArgs>),
    /// List the services
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// List the tasks of services
    Ps(ServicePsArgs),
    /// Show everything about services, as JSON
    Inspect(ServiceInspectArgs),
    /// Change a service
    Update(Box<ServiceUpdateArgs>),
    /// Change the number of tasks of services
    Scale(ServiceScaleArgs),
    /// Go back to the spec before the last update
    Rollback(ServiceRollbackArgs),
    /// Show the output of all tasks of a service, or of one task
    Logs(ServiceLogsArgs),
    /// Remove services
    #[command(visible_alias = "remove")]
    Rm(ServiceNames),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EndpointModeArg {
    Vip,
    Dnsrr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RestartArg {
    Any,
    OnFailure,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OrderArg {
    StopFirst,
    StartFirst,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FailureArg {
    Pause,
    Continue,
    Rollback,
}

/// Settings that `create` sets and `update` replaces.
#[derive(Debug, Clone, Default, Args)]
pub struct Settings {
    /// Number of tasks
    #[arg(long, value_name = "N", value_parser = values::replicas)]
    pub replicas: Option<u32>,
    /// Most tasks on one node; 0 is no limit
    #[arg(long, value_name = "N")]
    pub replicas_max_per_node: Option<u32>,
    /// vip: one address for all tasks; dnsrr: the name gives the addresses of the tasks
    #[arg(long, value_enum)]
    pub endpoint_mode: Option<EndpointModeArg>,
    /// Host name in the container
    #[arg(long)]
    pub hostname: Option<String>,
    /// When a task that ended is replaced
    #[arg(long, value_enum)]
    pub restart_condition: Option<RestartArg>,
    /// Pause before a task is replaced
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub restart_delay: Option<Duration>,
    /// Most replacements of one task; 0 is without end
    #[arg(long, value_name = "N")]
    pub restart_max_attempts: Option<u32>,
    /// Time in which replacements are counted
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub restart_window: Option<Duration>,
    /// Time that a task has to stop before it is killed
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub stop_grace_period: Option<Duration>,
    /// Tasks replaced at the same time; 0 is all at once
    #[arg(long, value_name = "N")]
    pub update_parallelism: Option<u32>,
    /// Pause between replacements
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub update_delay: Option<Duration>,
    #[arg(long, value_enum)]
    pub update_order: Option<OrderArg>,
    /// What happens when a new task does not run
    #[arg(long, value_enum)]
    pub update_failure_action: Option<FailureArg>,
    /// Memory of one task, such as 512m; 0 is no limit
    #[arg(long, value_name = "BYTES", value_parser = values::bytes)]
    pub limit_memory: Option<u64>,
    /// CPUs of one task, such as 0.5; 0 is no limit
    #[arg(long = "limit-cpu", value_name = "CPUS", value_parser = values::nano_cpus)]
    pub limit_nano_cpus: Option<u64>,
    /// Processes of one task; 0 is no limit
    #[arg(long, value_name = "N")]
    pub limit_pids: Option<u64>,
    /// Directory that the command runs in
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User that the command runs as
    #[arg(short, long)]
    pub user: Option<String>,
}

/// Whether to wait until the tasks run.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct WaitArgs {
    /// Do not wait until the tasks run
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", value_name = "BOOL", action = clap::ArgAction::Set)]
    pub detach: bool,
    /// No progress
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Without --detach it waits until all tasks run. It gives up, with exit code 1, when the \
                  tasks of one slot have failed 3 times or when nothing has changed for 30 seconds; the \
                  service stays."
)]
pub struct ServiceCreateArgs {
    /// Name of the service [default: a random one]
    #[arg(long)]
    pub name: Option<String>,
    /// replicated or global
    #[arg(long, default_value = "replicated", value_parser = values::service_mode)]
    pub mode: values::ModeArg,
    /// Network: NET[,alias=A]... or name=NET,alias=A
    #[arg(long, visible_alias = "net", value_name = "NETWORK", value_parser = values::network)]
    pub network: Vec<v1::NetworkAttachmentSpec>,
    /// Where tasks may run, such as node.labels.zone==a
    #[arg(long, value_name = "EXPR", value_parser = values::constraint)]
    pub constraint: Vec<String>,
    /// How tasks are spread, such as spread=node.labels.zone
    #[arg(long, value_name = "PREF", value_parser = values::preference)]
    pub placement_pref: Vec<String>,
    /// Environment: K=V, or K for the value that it has here
    #[arg(short, long, value_name = "K[=V]", value_parser = values::env)]
    pub env: Vec<String>,
    /// type=bind,source=DIR,target=DIR[,readonly] or type=tmpfs,target=DIR
    #[arg(long, value_name = "MOUNT", value_parser = values::mount)]
    pub mount: Vec<v1::Mount>,
    /// Capability over the usual ones, or ALL
    #[arg(long, value_name = "CAP")]
    pub cap_add: Vec<String>,
    /// Capability to be without, or ALL
    #[arg(long, value_name = "CAP")]
    pub cap_drop: Vec<String>,
    /// Run the command under a small init that passes signals on and reaps
    #[arg(long)]
    pub init: bool,
    /// The root file system cannot be written
    #[arg(long)]
    pub read_only: bool,
    /// Signal that ends the command: name or number [default: TERM]
    #[arg(long, value_name = "SIGNAL", value_parser = values::signal)]
    pub stop_signal: Option<u32>,
    /// Kernel parameter of the container's own namespaces
    #[arg(long, value_name = "K=V", value_parser = values::key_value)]
    pub sysctl: Vec<(String, String)>,
    /// Line of /etc/hosts
    #[arg(long, value_name = "NAME:IP", value_parser = values::host)]
    pub host: Vec<String>,
    /// DNS server
    #[arg(long, value_name = "IP", value_parser = values::address)]
    pub dns: Vec<std::net::IpAddr>,
    /// DNS search domain
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// DNS option
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub dns_option: Vec<String>,
    /// Label of the service
    #[arg(short, long, value_name = "K=V", value_parser = values::label)]
    pub label: Vec<(String, String)>,
    /// Label of the containers
    #[arg(long, value_name = "K=V", value_parser = values::label)]
    pub container_label: Vec<(String, String)>,
    #[command(flatten)]
    pub settings: Settings,
    #[command(flatten)]
    pub wait: WaitArgs,
    #[command(flatten)]
    pub health: HealthFlags,
    /// Image, then the command and its arguments
    // One list, so that everything behind the image belongs to the command, flags too.
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    pub image_and_args: Vec<String>,
}

#[derive(Debug, Args)]
#[command(allow_negative_numbers = true)]
pub struct ServiceUpdateArgs {
    #[command(flatten)]
    pub settings: Settings,
    #[arg(long)]
    pub image: Option<String>,
    /// Arguments of the command, as a shell would split them
    #[arg(long, value_name = "COMMAND", value_parser = values::words, allow_hyphen_values = true)]
    pub args: Option<values::Words>,
    /// Replace the tasks even though nothing asks for it
    #[arg(long)]
    pub force: bool,
    /// Go back to the spec before the last update
    #[arg(long)]
    pub rollback: bool,
    #[arg(long, value_name = "NETWORK", value_parser = values::network)]
    pub network_add: Vec<v1::NetworkAttachmentSpec>,
    #[arg(long, value_name = "NETWORK")]
    pub network_rm: Vec<String>,
    #[arg(long, value_name = "EXPR", value_parser = values::constraint)]
    pub constraint_add: Vec<String>,
    #[arg(long, value_name = "EXPR")]
    pub constraint_rm: Vec<String>,
    #[arg(long, value_name = "PREF", value_parser = values::preference)]
    pub placement_pref_add: Vec<String>,
    #[arg(long, value_name = "PREF")]
    pub placement_pref_rm: Vec<String>,
    #[arg(long, value_name = "K[=V]", value_parser = values::env)]
    pub env_add: Vec<String>,
    #[arg(long, value_name = "K")]
    pub env_rm: Vec<String>,
    #[arg(long, value_name = "MOUNT", value_parser = values::mount)]
    pub mount_add: Vec<v1::Mount>,
    #[arg(long, value_name = "TARGET")]
    pub mount_rm: Vec<String>,
    #[arg(long, value_name = "NAME:IP", value_parser = values::host)]
    pub host_add: Vec<String>,
    #[arg(long, value_name = "NAME:IP")]
    pub host_rm: Vec<String>,
    #[arg(long, value_name = "IP", value_parser = values::address)]
    pub dns_add: Vec<std::net::IpAddr>,
    #[arg(long, value_name = "IP")]
    pub dns_rm: Vec<String>,
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search_add: Vec<String>,
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search_rm: Vec<String>,
    #[arg(long, value_name = "OPTION")]
    pub dns_option_add: Vec<String>,
    #[arg(long, value_name = "OPTION")]
    pub dns_option_rm: Vec<String>,
    #[arg(long, value_name = "K=V", value_parser = values::label)]
    pub label_add: Vec<(String, String)>,
    #[arg(long, value_name = "K")]
    pub label_rm: Vec<String>,
    #[arg(long, value_name = "K=V", value_parser = values::label)]
    pub container_label_add: Vec<(String, String)>,
    #[arg(long, value_name = "K")]
    pub container_label_rm: Vec<String>,
    #[arg(long, value_name = "K=V", value_parser = values::key_value)]
    pub sysctl_add: Vec<(String, String)>,
    #[arg(long, value_name = "K")]
    pub sysctl_rm: Vec<String>,
    /// Capability over the usual ones, ALL, or RESET for none of those added so far
    #[arg(long, value_name = "CAP")]
    pub cap_add: Vec<String>,
    /// Capability to be without, ALL, or RESET for none of those dropped so far
    #[arg(long, value_name = "CAP")]
    pub cap_drop: Vec<String>,
    /// Run the command under a small init that passes signals on and reaps
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL")]
    pub init: Option<bool>,
    /// The root file system cannot be written
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL")]
    pub read_only: Option<bool>,
    /// Signal that ends the command: name or number
    #[arg(long, value_name = "SIGNAL", value_parser = values::signal)]
    pub stop_signal: Option<u32>,
    #[command(flatten)]
    pub wait: WaitArgs,
    #[command(flatten)]
    pub health: HealthFlags,
    pub service: String,
}

#[derive(Debug, Args)]
pub struct ServicePsArgs {
    #[arg(required = true, value_name = "SERVICE")]
    pub services: Vec<String>,
    #[command(flatten)]
    pub list: ListArgs,
    /// Show IDs instead of names
    #[arg(long)]
    pub no_resolve: bool,
}

#[derive(Debug, Args)]
pub struct ServiceInspectArgs {
    #[arg(required = true, value_name = "SERVICE")]
    pub services: Vec<String>,
    /// json or TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Text for people instead of JSON
    #[arg(long, conflicts_with = "format")]
    pub pretty: bool,
}

#[derive(Debug, Args)]
pub struct ServiceScaleArgs {
    #[arg(required = true, value_name = "SERVICE=N", value_parser = values::scale)]
    pub scales: Vec<(String, u32)>,
    #[command(flatten)]
    pub wait: WaitArgs,
}

#[derive(Debug, Args)]
pub struct ServiceRollbackArgs {
    pub service: String,
    #[command(flatten)]
    pub wait: WaitArgs,
}

#[derive(Debug, Args)]
pub struct ServiceLogsArgs {
    #[command(flatten)]
    pub flags: LogFlags,
    /// The lines as they were written, without the name of the task
    #[arg(long)]
    pub raw: bool,
    /// Whole IDs
    #[arg(long)]
    pub no_trunc: bool,
    /// Only the number of the task, not its ID
    #[arg(long)]
    pub no_task_ids: bool,
    /// Show IDs instead of names
    #[arg(long)]
    pub no_resolve: bool,
    /// Service or task
    #[arg(value_name = "SERVICE|TASK")]
    pub target: String,
}

#[derive(Debug, Args)]
pub struct ServiceNames {
    #[arg(required = true, value_name = "SERVICE")]
    pub services: Vec<String>,
}
