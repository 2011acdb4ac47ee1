//! What comes from the user while a command elsewhere runs: bytes of standard input, signals, and
//! the size of the terminal.

use std::{future::pending, io::Read};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use weft_proto::v1::exec_request::WindowSize;

use super::{
    escape::{Escape, Typed},
    terminal,
};
use crate::error::CliError;

/// Bytes of input in one message.
const CHUNK: usize = 32 * 1024;

/// Something of standard input.
pub enum Event {
    Bytes(Vec<u8>),
    /// There is no more.
    Closed,
}

/// What is to be done when certain keys are typed: no more is read, and somebody is told.
pub struct Leaving {
    pub escape: Escape,
    pub tell: mpsc::Sender<()>,
}

/// Reads standard input in a thread of its own, because a read of a terminal cannot be cancelled.
/// The thread ends with the input, with the session, or with the process.
pub fn spawn_reader<T: Send + 'static>(
    to_daemon: mpsc::Sender<T>,
    mut leaving: Option<Leaving>,
    message: impl Fn(Event) -> T + Send + 'static,
) {
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut chunk = vec![0; CHUNK];
        loop {
            match input.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => {
                    let typed = match &mut leaving {
                        Some(leaving) => leaving.escape.take(&chunk[..length]),
                        None => Typed::Bytes(chunk[..length].to_vec()),
                    };
                    let has_left = matches!(typed, Typed::Left(_));
                    let (Typed::Bytes(bytes) | Typed::Left(bytes)) = typed;
                    if !bytes.is_empty()
                        && to_daemon.blocking_send(message(Event::Bytes(bytes))).is_err()
                    {
                        return;
                    }
                    if let Some(leaving) = leaving.take_if(|_| has_left) {
                        // Nobody may be there any more who wants to know.
                        let _ = leaving.tell.blocking_send(());
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // The session may have ended already.
        let _ = to_daemon.blocking_send(message(Event::Closed));
    });
}

/// What a signal means for the command.
pub enum Signalled {
    /// The terminal has another size.
    Resized(WindowSize),
    /// To be sent on.
    Signal(u32),
}

/// Signals that concern the command: the size of the terminal, or, without one, the user's wish to
/// end it or to tell it something.
pub struct Signals {
    resize: Option<Signal>,
    others: Vec<(Signal, u32)>,
}

impl Signals {
    /// For `exec`: those that end a program.
    pub fn ending(tty: bool) -> Result<Self, CliError> {
        // With a terminal, Ctrl-C is a key and goes to the command as such.
        let interrupt = (!tty).then_some(SignalKind::interrupt());
        Self::listen(tty, interrupt.into_iter().chain([SignalKind::terminate()]))
    }

    /// For the container's own command: all that are usually sent to a program, if `proxied`.
    pub fn all(tty: bool, proxied: bool) -> Result<Self, CliError> {
        let kinds = [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::quit(),
            SignalKind::terminate(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        Self::listen(tty, kinds.into_iter().filter(|_| proxied))
    }

    fn listen(tty: bool, kinds: impl IntoIterator<Item = SignalKind>) -> Result<Self, CliError> {
        let made = (|| {
            let resize = if tty { Some(signal(SignalKind::window_change())?) } else { None };
            let others = kinds
                .into_iter()
                // Signals have small positive numbers.
                .map(|kind| Ok((signal(kind)?, kind.as_raw_value().unsigned_abs())))
                .collect::<std::io::Result<_>>()?;
            Ok(Self { resize, others })
        })();
        made.map_err(|source| CliError::Io { what: "cannot listen for signals".into(), source })
    }

    /// The next one.
    pub async fn next(&mut self) -> Signalled {
        loop {
            tokio::select! {
                () = received(&mut self.resize) => if let Some(size) = terminal::size() {
                    return Signalled::Resized(size);
                },
                number = any(&mut self.others) => return Signalled::Signal(number),
            }
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        // `None` means that no more signals can come.
        Some(signal) => {
            if signal.recv().await.is_none() {
                pending().await
            }
        }
        None => pending().await,
    }
}

async fn any(signals: &mut [(Signal, u32)]) -> u32 {
    std::future::poll_fn(|context| {
        for (signal, number) in signals.iter_mut() {
            if let std::task::Poll::Ready(Some(())) = signal.poll_recv(context) {
                return std::task::Poll::Ready(*number);
            }
        }
        std::task::Poll::Pending
    })
    .await
}
