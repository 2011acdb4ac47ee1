//! What can go wrong in the user's side, and what each outcome looks like on the terminal: one
//! line `error: WHAT: WHY`, where there is one a line `hint: NEXT COMMAND`, and an exit code that
//! scripts can rely on.

use std::{fmt, io};

use tonic::{Code, Status};

use crate::output::escape::{one_line, shown};

/// Exit code of a command that the cluster refused or that failed.
pub const EXIT_REFUSED: u8 = 1;
/// Exit code of a command line that makes no sense.
pub const EXIT_USAGE: u8 = 2;
/// Exit code when the daemon cannot be reached, or a flag of Docker's is not supported.
pub const EXIT_DAEMON: u8 = 125;

/// Metadata entry with the server's advice, UTF-8.
const HINT_KEY: &str = "weft-hint-bin";

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A value on the command line is wrong.
    #[error("{what}: {why}")]
    Usage { what: String, why: String },
    /// Docker has it, Weft does not.
    #[error("{what}: unsupported: {flag}")]
    Unsupported { what: String, flag: String },
    /// Nobody listens at the address of the daemon.
    #[error("{uri}: cannot reach the daemon: {why}")]
    Unreachable { uri: String, why: String },
    /// The daemon or the cluster said no.
    #[error("{what}: {why}")]
    Refused { what: String, why: String, hint: Option<String> },
    /// The command of the user ended with this code; there is nothing to say.
    #[error("exit code {0}")]
    Exit(u8),
    /// Some of several objects failed; each failure was printed when it happened.
    #[error("some objects failed")]
    Reported,
    /// The terminal, a pipe or a file refused.
    #[error("{what}")]
    Io { what: String, source: io::Error },
}

impl CliError {
    /// A wrong value, with the flag or argument it stands for.
    pub fn usage(what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self::Usage { what: what.into(), why: why.to_string() }
    }

    /// A refusal that the client itself found.
    pub fn refused(what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self::Refused { what: what.into(), why: why.to_string(), hint: None }
    }

    /// A flag, mode or command that is not there yet.
    pub fn unsupported(what: impl Into<String>, flag: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), flag: flag.into() }
    }

    /// Adds advice, unless the server gave some already.
    #[must_use]
    pub fn or_hint(self, advice: impl Into<String>) -> Self {
        match self {
            Self::Refused { what, why, hint: None } => {
                Self::Refused { what, why, hint: Some(advice.into()) }
            }
            other => other,
        }
    }

    /// Whether the reader of our output has gone.
    pub fn is_closed_output(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit code that stands for this outcome.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => EXIT_USAGE,
            Self::Unsupported { .. } | Self::Unreachable { .. } => EXIT_DAEMON,
            Self::Refused { .. } | Self::Reported | Self::Io { .. } => EXIT_REFUSED,
            Self::Exit(code) => *code,
        }
    }

    /// The next command to try, if one is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { hint, .. } => hint.clone(),
            Self::Unreachable { .. } => {
                Some("start it with `weft daemon`, or name another one with -H or WEFT_HOST".into())
            }
            Self::Usage { .. }
            | Self::Unsupported { .. }
            | Self::Exit(_)
            | Self::Reported
            | Self::Io { .. } => None,
        }
    }

    /// Prints the error and its hint, each on one line, with foreign bytes escaped.
    pub fn report(&self, err: &mut dyn io::Write) {
        let text = match self {
            Self::Exit(_) | Self::Reported => return,
            Self::Io { what, source } => format!("{what}: {source}"),
            other => other.to_string(),
        };
        // Nothing can be done about a closed standard error.
        let _ = writeln!(err, "error: {}", one_line(&text));
        if let Some(hint) = self.hint() {
            let _ = writeln!(err, "hint: {}", one_line(&hint));
        }
    }
}

impl From<io::Error> for CliError {
    fn from(source: io::Error) -> Self {
        Self::Io { what: "output".into(), source }
    }
}

/// Turns a refusal on the wire into an error that names what was tried.
pub fn refusal(what: &str, status: &Status) -> CliError {
    let message = status.message().trim();
    let why = if message.is_empty() { code_words(status.code()) } else { message };
    CliError::Refused {
        what: what.to_owned(),
        why: why.to_owned(),
        hint: hint_of(status).or_else(|| default_hint(status.code()).map(str::to_owned)),
    }
}

/// The server's advice, if the answer carries some.
pub fn hint_of(status: &Status) -> Option<String> {
    let bytes = status.metadata().get_bin(HINT_KEY)?.to_bytes().ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (!text.trim().is_empty()).then_some(text)
}

fn default_hint(code: Code) -> Option<&'static str> {
    match code {
        Code::Unavailable => Some("`weft info` shows the managers that this node knows"),
        Code::Aborted => Some("somebody else changed it in between: look again and retry"),
        Code::Unauthenticated | Code::PermissionDenied => {
            Some("`weft cluster client-cert NAME` on a manager writes a certificate")
        }
        // tonic's codes are not ours: the ones without advice of ours stay silent.
        _ => None,
    }
}

fn code_words(code: Code) -> &'static str {
    code.description()
}

/// The words "COMMAND NAME" for an error, with the name escaped.
pub fn what(command: &str, name: &str) -> String {
    format!("{command} {}", shown(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::metadata::{MetadataMap, MetadataValue};

    fn reported(error: &CliError) -> String {
        let mut out = Vec::new();
        error.report(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_error_is_one_line_and_its_hint_another() {
        let mut metadata = MetadataMap::new();
        metadata.insert_bin(HINT_KEY, MetadataValue::from_bytes(b"weft service rm web"));
        let status = Status::with_metadata(
            Code::FailedPrecondition,
            "used by service\nweb \u{1b}[31m",
            metadata,
        );
        let error = refusal("network rm blue", &status);
        assert_eq!(
            reported(&error),
            "error: network rm blue: used by service\\nweb \\u{1b}[31m\nhint: weft service rm web\n"
        );
        assert_eq!(error.exit_code(), EXIT_REFUSED);
    }

    #[test]
    fn each_outcome_has_its_exit_code() {
        assert_eq!(CliError::usage("--replicas", "no").exit_code(), 2);
        assert_eq!(CliError::unsupported("service create", "--secret").exit_code(), 125);
        let gone = CliError::Unreachable { uri: "unix:///x".into(), why: "no such file".into() };
        assert_eq!(gone.exit_code(), 125);
        assert!(reported(&gone).contains("hint: start it with `weft daemon`"));
        assert_eq!(CliError::Exit(42).exit_code(), 42);
        assert_eq!(reported(&CliError::Exit(42)), "");
    }

    #[test]
    fn an_empty_message_still_says_something() {
        assert_eq!(
            refusal("node ls", &Status::new(Code::NotFound, "")).to_string(),
            "node ls: Some requested entity was not found"
        );
    }
}
