//! How to reach the daemon. These options may stand before the command or behind it, but clap's
//! "global" options cannot be used: `service create --host NAME:IP` is Docker's, and there
//! `--host` means another thing. So every command gets a copy of its own, and the copy wins.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, parser::ValueSource};

/// Where the daemon of this machine listens.
pub const DEFAULT_HOST: &str = "unix:///run/weft/weft.sock";

/// The commands that call no daemon.
const ALONE: [&str; 3] = ["daemon", "completion", "man"];
/// The names that clap knows the copies by.
const HOST: &str = "connection-host";
const CA: &str = "connection-tls-ca";
const CERT: &str = "connection-tls-cert";
const KEY: &str = "connection-tls-key";
const HEADING: &str = "Connection";

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = HEADING)]
pub struct Connection {
    /// Daemon to talk to: unix:///PATH or tcp://HOST:PORT
    #[arg(short = 'H', long, env = "WEFT_HOST", default_value = DEFAULT_HOST, value_name = "URI")]
    pub host: String,
    /// Root certificate of the cluster, PEM (for tcp://)
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Certificate of this client, PEM (for tcp://)
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Key of this client, PEM (for tcp://)
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
}

/// Gives every command its copy of the options.
pub fn copy_to_commands(command: Command) -> Command {
    copy(command, true)
}

fn copy(mut command: Command, top: bool) -> Command {
    let names: Vec<String> = command
        .get_subcommands()
        // What is not built takes anything.
        .filter(|child| !(child.is_hide_set() || top && ALONE.contains(&child.get_name())))
        .map(|child| child.get_name().to_owned())
        .collect();
    for name in &names {
        command = command.mut_subcommand(name, |child| copy(child, false));
    }
    if top || !names.is_empty() {
        return command;
    }
    let host = Arg::new(HOST)
        .short('H')
        .value_name("URI")
        .help("Daemon to talk to: unix:///PATH or tcp://HOST:PORT");
    let taken = command.get_arguments().any(|arg| arg.get_long() == Some("host"));
    let host = if taken { host } else { host.long("host") };
    let file = |id: &'static str, long: &'static str, help: &'static str| {
        Arg::new(id)
            .long(long)
            .value_name("FILE")
            .help(help)
            .value_parser(clap::value_parser!(PathBuf))
    };
    let all = [
        host,
        file(CA, "tls-ca", "Root certificate of the cluster, PEM (for tcp://)"),
        file(CERT, "tls-cert", "Certificate of this client, PEM (for tcp://)"),
        file(KEY, "tls-key", "Key of this client, PEM (for tcp://)"),
    ];
    command.args(all.map(|arg| arg.action(ArgAction::Set).help_heading(HEADING)))
}

impl Connection {
    /// Takes what was said behind the command.
    pub fn refine(&mut self, matches: &ArgMatches) {
        let mut leaf = matches;
        while let Some((_, deeper)) = leaf.subcommand() {
            leaf = deeper;
        }
        if let Some(host) = said::<String>(leaf, HOST) {
            self.host = host;
        }
        let files = [(CA, &mut self.tls_ca), (CERT, &mut self.tls_cert), (KEY, &mut self.tls_key)];
        for (id, field) in files {
            if let Some(path) = said::<PathBuf>(leaf, id) {
                *field = Some(path);
            }
        }
    }
}

fn said<T: Clone + Send + Sync + 'static>(leaf: &ArgMatches, id: &str) -> Option<T> {
    // A command without the copies does not know the name at all.
    let value = leaf.try_get_one::<T>(id).ok().flatten()?;
    (leaf.value_source(id) == Some(ValueSource::CommandLine)).then(|| value.clone())
}
