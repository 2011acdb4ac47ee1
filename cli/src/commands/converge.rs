//! Waiting until the tasks of a service run, driven by the stream of changes and by nothing else:
//! no polling. `track` decides, `draw` prints, and this file connects them with the clock.

mod draw;
mod track;

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status, Streaming};
use weft_proto::v1;

pub use track::{Goal, Target};

use self::{
    draw::Printer,
    track::{Tracker, Verdict},
};
use super::Context;
use crate::{
    client::Client,
    error::{CliError, what},
};

/// How long nothing may change before it is given up. Placing and starting a task shows a change
/// well within it; a task that nobody can place shows none.
pub const NO_PROGRESS: Duration = Duration::from_secs(30);
/// How long all tasks must run before they count as stable: a command that fails at once has
/// failed by then.
pub const STABLE_FOR: Duration = Duration::from_millis(500);
/// How long no task may appear before a global service without any is looked at again: it may be
/// that no node is eligible.
const SETTLE: Duration = Duration::from_secs(1);
/// Pause before the stream is opened again when it broke.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);

/// Waits until the service has converged, printing the progress; fails with the reason if it
/// cannot.
pub async fn wait(
    client: &Client,
    target: Target,
    quiet: bool,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let what = what("service", target.name());
    let mut waiting = Waiting {
        client,
        revision: 0,
        id: target.id().to_owned(),
        tracker: Tracker::new(target),
        printer: Printer::new(context.terminal.err, quiet),
        changed: Instant::now(),
    };
    let verdict = waiting.run(context).await?;
    match verdict {
        Verdict::Converged => {
            waiting.printer.done(context.err)?;
            Ok(())
        }
        Verdict::Failed { why, hint } => Err(CliError::Refused { what, why, hint: Some(hint) }),
        Verdict::Waiting => {
            let (why, hint) = waiting.tracker.excuse();
            let why =
                format!("not converged, and nothing changed for {:?}: {why}", waiting.patience());
            Err(CliError::Refused { what, why, hint: Some(hint) })
        }
    }
}

struct Waiting<'a> {
    client: &'a Client,
    id: String,
    /// Where the stream of changes is resumed.
    revision: u64,
    tracker: Tracker,
    printer: Printer,
    /// When the picture last changed.
    changed: Instant,
}

impl Waiting<'_> {
    /// How long nothing may change now.
    fn patience(&self) -> Duration {
        NO_PROGRESS + self.tracker.checking()
    }

    /// Follows the stream, and opens it again when it breaks, until there is a verdict. `Waiting`
    /// means that nothing changed for too long.
    async fn run(&mut self, context: &mut Context<'_>) -> Result<Verdict, CliError> {
        loop {
            let end = match self.open().await {
                Ok(stream) => self.follow(stream, context).await?,
                Err(status) => Err(status),
            };
            match end {
                Ok(verdict) => return Ok(verdict),
                Err(status) if status.code() == Code::OutOfRange => {
                    // What happened since is no longer kept: begin with all objects as they are.
                    self.revision = 0;
                    self.tracker.forget();
                }
                Err(status) if may_come_back(&status) => {}
                Err(status) => return Err(self.client.refused("watch", &status)),
            }
            if self.changed.elapsed() >= self.patience() {
                return Ok(Verdict::Waiting);
            }
            tokio::time::sleep(REOPEN_PAUSE).await;
        }
    }

    async fn open(&self) -> Result<Streaming<v1::WatchResponse>, Status> {
        let request = v1::WatchRequest {
            from_revision: self.revision,
            objects: vec!["service".into(), "task".into()],
            service: self.id.clone(),
        };
        Ok(self.client.watch().watch(request).await?.into_inner())
    }

    async fn follow(
        &mut self,
        mut stream: Streaming<v1::WatchResponse>,
        context: &mut Context<'_>,
    ) -> Result<Result<Verdict, Status>, CliError> {
        let mut stable_since: Option<Instant> = None;
        loop {
            let deadline = match stable_since {
                Some(since) => since + STABLE_FOR,
                None if self.tracker.nothing_to_see() => {
                    (Instant::now() + SETTLE).min(self.changed + self.patience())
                }
                None => self.changed + self.patience(),
            };
            match timeout_at(deadline, stream.message()).await {
                Ok(Ok(Some(message))) => {
                    self.revision = self.revision.max(message.revision);
                    self.tracker.apply(message);
                }
                Ok(Ok(None)) => return Ok(Err(Status::unavailable("the stream ended"))),
                Ok(Err(status)) => return Ok(Err(status)),
                Err(_) if stable_since.is_some() => return Ok(Ok(Verdict::Converged)),
                Err(_) if self.changed.elapsed() >= self.patience() => {
                    return Ok(Ok(Verdict::Waiting));
                }
                Err(_) => self.look_again().await,
            }
            let Some(view) = self.tracker.view() else { continue };
            if self.printer.update(&view, context.err)? {
                self.changed = Instant::now();
            }
            match view.verdict {
                Verdict::Waiting => stable_since = None,
                Verdict::Converged => {
                    stable_since.get_or_insert_with(Instant::now);
                }
                failed @ Verdict::Failed { .. } => return Ok(Ok(failed)),
            }
        }
    }

    /// Asks for a global service without tasks once more: after a quiet time none will come.
    async fn look_again(&mut self) {
        let request = v1::GetServiceRequest { service: self.id.clone() };
        if let Ok(answer) = self.client.services().get(request).await
            && let Some(service) = answer.into_inner().service
        {
            self.tracker.settled(service);
        }
    }
}

/// True if the stream may work when it is opened again.
fn may_come_back(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::Internal
            | Code::ResourceExhausted
    )
}
