//! The engine of encrypted networks, where the kernel has no WireGuard: a process of its own that is told
//! everything at once.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use weft_wire::{Client, ClientError, Config, Status};

use super::KernelError;

/// Something that carries encrypted networks in user space: the process, or the [fake](crate::fake).
pub trait WireEngine: fmt::Debug + Send {
    /// What it was told last, with the public half of each private key in its place; the default if it was
    /// told nothing.
    ///
    /// # Errors
    /// If it does not answer.
    fn config(&mut self) -> Result<Config, KernelError>;

    /// Tells it everything that it should do.
    ///
    /// # Errors
    /// If it does not answer, or cannot.
    fn configure(&mut self, config: &Config) -> Result<(), KernelError>;

    /// How it is doing.
    ///
    /// # Errors
    /// If it does not answer.
    fn status(&mut self) -> Result<Status, KernelError>;
}

/// The process that listens in a directory of what runs. Each call is a connection of its own: the process may
/// have been replaced since the last.
#[derive(Debug)]
pub(crate) struct Process {
    run_dir: PathBuf,
}

impl Process {
    pub(crate) fn of(run_dir: &Path) -> Self {
        Self { run_dir: run_dir.to_owned() }
    }

    fn ask<T>(
        &self,
        question: impl FnOnce(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, KernelError> {
        let answer = Client::connect(&self.run_dir).and_then(|mut client| question(&mut client));
        answer.map_err(|error| KernelError::Engine { message: with_causes(&error) })
    }
}

fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl WireEngine for Process {
    fn config(&mut self) -> Result<Config, KernelError> {
        self.ask(Client::get)
    }

    fn configure(&mut self, config: &Config) -> Result<(), KernelError> {
        self.ask(|client| client.set(config.clone()))
    }

    fn status(&mut self) -> Result<Status, KernelError> {
        self.ask(Client::status)
    }
}
