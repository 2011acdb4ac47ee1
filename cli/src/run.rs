//! From the arguments of the process to its exit code.

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::{
    CommandFactory, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{
    args::{Cli, Command, connection, unsupported::is_unsupported},
    client::Client,
    commands::{self, Context, Terminal},
    error::{CliError, EXIT_DAEMON, EXIT_USAGE},
    output::escape::one_line,
};

/// The whole program. Takes the arguments with the program's name.
///
/// Words that begin with `__container` are for the runtime's own helper: it must run before any
/// thread exists, because it forks. `wire` is the engine of encrypted networks, a process that only the
/// daemon starts; it blocks signals before its first thread.
pub fn main(argv: Vec<OsString>) -> ExitCode {
    if argv.get(1).is_some_and(|word| word.to_string_lossy().starts_with("__container")) {
        return weft_worker::container::helper::main(argv.into_iter().skip(1));
    }
    if argv.get(1).is_some_and(|word| word == "wire") {
        return weft_overlay::wire::main(argv.into_iter().skip(2));
    }
    let cli = match read(&argv) {
        Ok(cli) => cli,
        Err(Refusal::Clap(command, error)) => return ExitCode::from(explain(&command, &error)),
        Err(Refusal::Ours(error)) => return finish(Err(error)),
    };
    finish(execute(cli))
}

/// Why the arguments were not understood, or that they asked for help.
#[derive(Debug)]
pub enum Refusal {
    /// In which command, and what.
    Clap(String, clap::Error),
    Ours(CliError),
}

/// The whole command line, as clap sees it.
pub fn command() -> clap::Command {
    connection::copy_to_commands(Cli::command())
}

/// Reads the arguments. A flag of Docker's that is not built is told from an unknown one.
pub fn read(argv: &[OsString]) -> Result<Cli, Refusal> {
    let parsed = command().try_get_matches_from(argv).and_then(|matches| {
        let mut cli = Cli::from_arg_matches(&matches)?;
        cli.connection.refine(&matches);
        Ok(cli)
    });
    let error = match parsed {
        Ok(cli) => return Ok(cli),
        Err(error) => error,
    };
    let command = command_path(argv);
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg)
    {
        let flag = flag.split('=').next().unwrap_or(flag);
        if is_unsupported(&command, flag) {
            return Err(Refusal::Ours(CliError::unsupported(command, flag)));
        }
    }
    // A reader of a value says "unsupported: x" when Docker knows the value.
    if error.kind() == ErrorKind::ValueValidation
        && let Some(source) = std::error::Error::source(&error)
        && let Some(value) = source.to_string().strip_prefix("unsupported: ")
    {
        return Err(Refusal::Ours(CliError::unsupported(command, value)));
    }
    Err(Refusal::Clap(command, error))
}

/// The words of the command, such as `service create`.
fn command_path(argv: &[OsString]) -> String {
    let mut command = command();
    let mut path = Vec::new();
    for word in argv.iter().skip(1).filter_map(|word| word.to_str()) {
        let Some(found) = command.find_subcommand(word).cloned() else { continue };
        path.push(found.get_name().to_owned());
        command = found;
    }
    path.join(" ")
}

/// The exit code of a command line that makes no sense: that of `run` and `exec` must not be taken
/// for one of the user's command.
pub fn usage_code(command: &str) -> u8 {
    match command.strip_prefix("container ").unwrap_or(command) {
        "run" | "exec" => EXIT_DAEMON,
        _ => EXIT_USAGE,
    }
}

/// Prints what clap found, in the form of all our errors.
fn explain(command: &str, error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nothing can be done about a closed standard output.
            let _ = error.print();
            0
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            usage_code(command)
        }
        // The kinds are clap's, not ours: all others are wrong usage.
        _ => {
            let mut err = io::stderr().lock();
            let _ = write!(err, "{}", usage_words(command, error));
            usage_code(command)
        }
    }
}

/// Clap's message as one line, and the next command as another.
pub fn usage_words(command: &str, error: &clap::Error) -> String {
    let text = error.to_string();
    let mut body: Vec<&str> = Vec::new();
    let mut tip = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.starts_with("Usage:") || line.starts_with("For more") {
            break;
        }
        match line.strip_prefix("tip: ") {
            // How to pass a flag as a value is no advice: nobody wanted that.
            Some(text) if text.contains("similar") => tip = Some(text.to_owned()),
            Some(_) => {}
            None => body.push(line),
        }
    }
    let joined = body.join(" ");
    let why = one_line(joined.strip_prefix("error: ").unwrap_or(&joined));
    let whole = format!("weft {command}");
    let whole = whole.trim_end();
    let hint = one_line(&tip.unwrap_or_else(|| format!("{whole} --help")));
    format!("error: {}: {why}\nhint: {hint}\n", if command.is_empty() { "weft" } else { command })
}

fn execute(cli: Cli) -> Result<(), CliError> {
    let runtime = |threads: usize| {
        let mut builder = if threads == 1 {
            tokio::runtime::Builder::new_current_thread()
        } else {
            tokio::runtime::Builder::new_multi_thread()
        };
        builder
            .enable_all()
            .build()
            .map_err(|source| CliError::Io { what: "cannot start the runtime".into(), source })
    };
    let command = match cli.command {
        Command::Daemon(args) => {
            weft_worker::memory::bound_heaps();
            return runtime(0)?.block_on(crate::daemon::run(*args)).map_err(|error| {
                // The alternate form puts the causes behind the error, in one line.
                let refused = CliError::refused("daemon", format!("{error:#}"));
                match crate::daemon::hint(&error) {
                    Some(hint) => refused.or_hint(hint),
                    None => refused,
                }
            });
        }
        Command::Completion(args) => return commands::shell::completion(args.shell),
        Command::Man(args) => return commands::shell::man(&args.dir),
        command => command,
    };
    if let Some(error) = commands::not_built(&command) {
        return Err(error);
    }
    let runtime = runtime(1)?;
    let result = runtime.block_on(async {
        let client = match (&command, Client::connect(&cli.connection).await) {
            (_, Ok(client)) => Some(client),
            // The version of the client is known without a daemon, and so is much that is wrong.
            (Command::Version(_), Err(error @ CliError::Unreachable { .. })) => {
                error.report(&mut io::stderr().lock());
                None
            }
            (Command::Doctor(_), Err(CliError::Unreachable { .. })) => None,
            (_, Err(error)) => return Err(error),
        };
        let (mut out, mut err) = (io::stdout(), io::stderr());
        let terminal = Terminal { out: out.is_terminal(), err: err.is_terminal() };
        let mut context =
            Context { out: &mut out, err: &mut err, terminal, now: jiff::Timestamp::now };
        match (client, command) {
            (Some(client), command) => commands::run(&client, command, &mut context).await,
            (None, Command::Doctor(args)) => {
                commands::doctor::alone(&cli.connection, &args, &mut context)
            }
            (None, command) => commands::info::client_version(command, &mut context),
        }
    });
    // Standard input may still be read by a thread that nobody can stop.
    runtime.shutdown_background();
    result
}

fn finish(result: Result<(), CliError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if error.is_closed_output() => ExitCode::SUCCESS,
        Err(error) => {
            error.report(&mut io::stderr().lock());
            ExitCode::from(error.exit_code())
        }
    }
}
