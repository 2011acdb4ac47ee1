//! The user's terminal: asking a question, and handing it over to a program elsewhere.

use std::{
    io::{self, BufRead},
    os::fd::AsFd,
};

use nix::sys::termios::{self, SetArg, Termios};
use weft_proto::v1::exec_request::WindowSize;

use super::Context;
use crate::error::CliError;

/// Asks on standard error; anything but `y` means no.
pub fn confirm(context: &mut Context<'_>, warning: &str) -> Result<bool, CliError> {
    write!(context.err, "{warning}\nAre you sure you want to continue? [y/N] ")?;
    context.err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// A terminal in raw mode: every key goes to the program elsewhere. Dropping it gives the user the
/// terminal back as it was.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Changes the terminal that is standard input.
    pub fn enter() -> Result<Self, CliError> {
        let failed = |source: nix::Error| CliError::Io {
            what: "cannot set the terminal".into(),
            source: source.into(),
        };
        let input = io::stdin();
        let before = termios::tcgetattr(input.as_fd()).map_err(failed)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(input.as_fd(), SetArg::TCSADRAIN, &raw).map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // There is nobody left to tell if the terminal is gone.
        let _ = termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &self.before);
    }
}

/// The size of the terminal that is standard output; `None` if it is none.
pub fn size() -> Option<WindowSize> {
    let (columns, rows) = terminal_size::terminal_size()?;
    Some(WindowSize { rows: rows.0.into(), columns: columns.0.into() })
}
