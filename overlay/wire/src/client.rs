//! How the daemon speaks to the engine.

use std::{io, os::unix::net::UnixStream, path::Path, time::Duration};

use crate::{
    Config, Status,
    message::{self, Call, Request, Response, VERSION},
    server::SOCKET,
};

/// How long the engine may take for one answer; it needs milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A connection to the engine. It blocks: in asynchronous code it belongs on a thread for that.
#[derive(Debug)]
pub struct Client(UnixStream);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the engine of encrypted networks cannot be reached")]
    Unreachable(#[from] io::Error),
    #[error("the engine of encrypted networks refused: {0}")]
    Refused(String),
    #[error("the engine of encrypted networks gave an answer to another question")]
    Confused,
}

impl Client {
    /// Connects to the engine of a run directory.
    ///
    /// # Errors
    /// None runs there.
    pub fn connect(run_dir: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(run_dir.join(SOCKET))?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        Ok(Self(stream))
    }

    /// Tells it what to do; it replaces what was told before.
    ///
    /// # Errors
    /// Refused: it goes on with what it did.
    pub fn set(&mut self, config: Config) -> Result<(), ClientError> {
        self.done(Call::Set(config))
    }

    /// What it does, to be compared with [`Config::without_private_keys`].
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn get(&mut self) -> Result<Config, ClientError> {
        match self.call(Call::Get)? {
            Response::Config(config) => Ok(config),
            Response::Done | Response::Status(_) | Response::Refused(_) => {
                Err(ClientError::Confused)
            }
        }
    }

    /// How it is doing.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn status(&mut self) -> Result<Status, ClientError> {
        match self.call(Call::Status)? {
            Response::Status(status) => Ok(status),
            Response::Done | Response::Config(_) | Response::Refused(_) => {
                Err(ClientError::Confused)
            }
        }
    }

    /// Ends it. The TAP devices stay, as they are the daemon's.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn stop(&mut self) -> Result<(), ClientError> {
        self.done(Call::Stop)
    }

    fn done(&mut self, call: Call) -> Result<(), ClientError> {
        match self.call(call)? {
            Response::Done => Ok(()),
            Response::Config(_) | Response::Status(_) | Response::Refused(_) => {
                Err(ClientError::Confused)
            }
        }
    }

    fn call(&mut self, call: Call) -> Result<Response, ClientError> {
        message::write(&mut self.0, &Request { version: VERSION, call })?;
        match message::read(&mut self.0)? {
            Response::Refused(reason) => Err(ClientError::Refused(reason)),
            response => Ok(response),
        }
    }
}
