//! What each command does, one file for each noun. A command gets the daemon, its arguments and a
//! place to print to; it knows nothing of the process it runs in, so that tests run it too.

pub mod attached;
pub mod attachments;
pub mod capabilities;
pub mod cluster;
pub mod containers;
pub mod converge;
pub mod doctor;
pub mod escape;
pub mod exec;
pub mod filter;
pub mod health;
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
        container::{ContainerCommand, Verb},
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
        Command::Verb(verb) => of_container(client, verb, context).await,
        Command::Container(command) => container(client, command, context).await,
        Command::P2p(args) => containers::p2p(client, &args, context).await,
        Command::System(SystemCommand::Prune(args)) => prune::system(client, &args, context).await,
        Command::Ps(args) => containers::ps(client, &args, context).await,
        Command::Inspect(args) => inspect::any(client, &args, context).await,
        Command::Attach(args) => match &args.container {
            Some(name) => run::attach(client, name, args.flags, context).await,
            None => attachments::attach(client, &args.namespace, context).await,
        },
        Command::Detach(args) => attachments::detach(client, &args, context).await,
        Command::Doctor(args) => doctor::doctor(client, &args, context).await,
        Command::Info(args) => info::info(client, &args, context).await,
        Command::Version(args) => info::version(client, &args, context).await,
        Command::Completion(args) => shell::completion(args.shell),
        Command::Man(args) => shell::man(&args.dir),
        Command::Daemon(_) => Err(CliError::refused("daemon", "it is not a command of a client")),
        Command::Events(_)
        | Command::Top(_)
        | Command::Trace(_)
        | Command::Dns(_)
        | Command::Ipam(_) => Err(CliError::unsupported("weft", "this command")),
    }
}

/// What is done to containers of the node asked.
async fn of_container(
    client: &Client,
    verb: Verb,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    match verb {
        Verb::Run(args) => run::run(client, args.args, context).await,
        Verb::Create(args) => run::create(client, &args.args, context).await,
        Verb::Start(args) => run::start(client, &args, context).await,
        Verb::Stop(args) => containers::stop(client, &args, context).await,
        Verb::Restart(args) => containers::restart(client, &args, context).await,
        Verb::Kill(args) => containers::kill(client, &args, context).await,
        Verb::Rm(args) => containers::rm(client, &args, context).await,
        Verb::Wait(args) => containers::wait(client, &args, context).await,
        Verb::Port(args) => containers::port(client, &args, context).await,
        Verb::Exec(args) => exec::exec(client, args, context).await,
        Verb::Logs(args) => logs::container(client, &args, context).await,
    }
}

/// `weft container ...`
async fn container(
    client: &Client,
    command: ContainerCommand,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    match command {
        ContainerCommand::Ls(args) => containers::ps(client, &args, context).await,
        ContainerCommand::Verb(verb) => of_container(client, verb, context).await,
        ContainerCommand::Inspect(args) => inspect::containers(client, &args, context).await,
        ContainerCommand::Attach(args) => {
            run::attach(client, &args.container, args.flags, context).await
        }
        ContainerCommand::Prune(args) => prune::containers(client, &args, context).await,
    }
}

/// The answer to a command of the contract that is not built yet; it needs no daemon.
pub fn not_built(command: &Command) -> Option<CliError> {
    use ClusterCommand as C;
    let name = match command {
        Command::Events(Later { .. }) => "events",
        Command::Top(_) => "top",
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
        | Command::Verb(_)
        | Command::Container(_)
        | Command::P2p(_)
        | Command::System(_)
        | Command::Ps(_)
        | Command::Inspect(_)
        | Command::Attach(_)
        | Command::Detach(_)
        | Command::Doctor(_)
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
