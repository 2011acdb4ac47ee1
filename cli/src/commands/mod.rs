//! What each command does, one file for each noun. A command gets the daemon, its arguments and a
//! place to print to; it knows nothing of the process it runs in, so that tests run it too.

pub mod attached;
pub mod attachments;
pub mod cluster;
pub mod containers;
pub mod converge;
pub mod exec;
pub mod filter;
pub mod info;
pub mod input;
pub mod inspect;
pub mod logs;
pub mod network;
pub mod node;
pub mod prune;
pub mod run;
pub mod run_spec;
pub mod service;
pub mod service_spec;
pub mod shell;
pub mod terminal;

use std::{future::Future, io::Write};

use jiff::Timestamp;
use weft_proto::v1;

use crate::{
    args::{
        Command, Later, ListArgs,
        cluster::{AvailabilityArg, ClusterCommand, RoleArg},
        run::SystemCommand,
    },
    client::Client,
    error::CliError,
    output::list::Style,
};

/// Which of the two outputs is a terminal.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terminal {
    pub out: bool,
    pub err: bool,
}

/// Where a command prints, and what time it is.
pub struct Context<'a> {
    pub out: &'a mut (dyn Write + Send),
    pub err: &'a mut (dyn Write + Send),
    pub terminal: Terminal,
    pub now: fn() -> Timestamp,
}

impl Context<'_> {
    /// Prints one line of result.
    pub fn line(&mut self, text: &str) -> Result<(), CliError> {
        writeln!(self.out, "{text}")?;
        Ok(())
    }

    /// Does one thing for each name; says what failed, goes on, and fails at the end if anything
    /// did.
    pub async fn each<'n, F>(
        &mut self,
        names: &'n [String],
        mut one: impl FnMut(&'n str) -> F,
    ) -> Result<(), CliError>
    where
        F: Future<Output = Result<String, CliError>>,
    {
        let mut failed = None;
        for name in names {
            match one(name).await {
                Ok(text) => self.line(&text)?,
                Err(error) => {
                    if let Some(earlier) = failed.replace(error) {
                        earlier.report(self.err);
                    }
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Runs one command against a daemon.
pub async fn run(
    client: &Client,
    command: Command,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    if let Some(error) = not_built(&command) {
        return Err(error);
    }
    match command {
        Command::Cluster(command) => cluster::run(client, command, context).await,
        Command::Node(command) => node::run(client, command, context).await,
        Command::Network(command) => network::run(client, command, context).await,
        Command::Service(command) => service::run(client, command, context).await,
        Command::Run(args) => run::run(client, args.args, context).await,
        Command::Create(args) => run::create(client, &args.args, context).await,
        Command::Start(args) => run::start(client, &args, context).await,
        Command::Restart(args) => containers::restart(client, &args, context).await,
        Command::Rm(args) => containers::rm(client, &args, context).await,
        Command::Wait(args) => containers::wait(client, &args, context).await,
        Command::Port(args) => containers::port(client, &args, context).await,
        Command::P2p(args) => containers::p2p(client, &args, context).await,
        Command::System(SystemCommand::Prune(args)) => prune::system(client, &args, context).await,
        Command::Ps(args) => containers::ps(client, &args, context).await,
        Command::Inspect(args) => inspect::any(client, &args, context).await,
        Command::Exec(args) => exec::exec(client, args, context).await,
        Command::Logs(args) => logs::container(client, &args, context).await,
        Command::Stop(args) => containers::stop(client, &args, context).await,
        Command::Kill(args) => containers::kill(client, &args, context).await,
        Command::Attach(args) => attachments::attach(client, &args, context).await,
        Command::Detach(args) => attachments::detach(client, &args, context).await,
        Command::Info(args) => info::info(client, &args, context).await,
        Command::Version(args) => info::version(client, &args, context).await,
        Command::Completion(args) => shell::completion(args.shell),
        Command::Man(args) => shell::man(&args.dir),
        Command::Daemon(_) => Err(CliError::refused("daemon", "it is not a command of a client")),
        Command::Events(_)
        | Command::Top(_)
        | Command::Doctor(_)
        | Command::Trace(_)
        | Command::Dns(_)
        | Command::Ipam(_) => Err(CliError::unsupported("weft", "this command")),
    }
}

/// The answer to a command of the contract that is not built yet; it needs no daemon.
pub fn not_built(command: &Command) -> Option<CliError> {
    use ClusterCommand as C;
    let name = match command {
        Command::Events(Later { .. }) => "events",
        Command::Top(_) => "top",
        Command::Doctor(_) => "doctor",
        Command::Trace(_) => "trace",
        Command::Dns(_) => "dns",
        Command::Ipam(_) => "ipam",
        Command::Cluster(C::Unlock(_)) => "cluster unlock",
        Command::Cluster(C::UnlockKey(_)) => "cluster unlock-key",
        Command::Cluster(C::Ca(_)) => "cluster ca",
        Command::Cluster(C::Backup(_)) => "cluster backup",
        Command::Cluster(C::Restore(_)) => "cluster restore",
        Command::Cluster(C::Recover(_)) => "cluster recover",
        Command::Daemon(_)
        | Command::Cluster(_)
        | Command::Node(_)
        | Command::Network(_)
        | Command::Service(_)
        | Command::Run(_)
        | Command::Create(_)
        | Command::Start(_)
        | Command::Restart(_)
        | Command::Rm(_)
        | Command::Wait(_)
        | Command::Port(_)
        | Command::P2p(_)
        | Command::System(_)
        | Command::Ps(_)
        | Command::Inspect(_)
        | Command::Exec(_)
        | Command::Logs(_)
        | Command::Stop(_)
        | Command::Kill(_)
        | Command::Attach(_)
        | Command::Detach(_)
        | Command::Info(_)
        | Command::Version(_)
        | Command::Completion(_)
        | Command::Man(_) => return None,
    };
    Some(CliError::unsupported("weft", name))
}

/// How the user wants a list.
pub fn style(args: &ListArgs) -> Style<'_> {
    Style { format: args.format.as_deref(), quiet: args.quiet }
}

/// The wire's word for a role.
pub fn role(role: RoleArg) -> v1::Role {
    match role {
        RoleArg::Worker => v1::Role::Worker,
        RoleArg::Manager => v1::Role::Manager,
    }
}

/// The wire's word for an availability.
pub fn availability(availability: AvailabilityArg) -> v1::Availability {
    match availability {
        AvailabilityArg::Active => v1::Availability::Active,
        AvailabilityArg::Pause => v1::Availability::Pause,
        AvailabilityArg::Drain => v1::Availability::Drain,
    }
}
