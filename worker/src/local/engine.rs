//! The one owner of this node's own state: a change is chosen on the newest state, written to the
//! log, synced, and only then seen and acknowledged.
//!
//! Changes that are asked for at the same time are chosen one after the other and share one sync.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::{oneshot, watch};
use weft_model::{
    Command, Rejected, State, Time,
    command::{Applied, Named, Proposal},
};

use super::log::{Log, LogError};

/// Why a change was not made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProposeError {
    /// The state forbids it.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The disk. Nobody knows whether the change will be there after a restart.
    #[error("this node's own state cannot be kept")]
    Log(#[source] Arc<LogError>),
    /// The daemon is ending.
    #[error("the daemon is ending")]
    Ending,
}

/// What a change gave.
#[derive(Clone, Debug)]
pub struct Done {
    /// What it made or changed.
    pub applied: Applied,
    /// The state that has it.
    pub state: Arc<State>,
}

type Answer = Result<Applied, ProposeError>;
type Choice = Box<dyn FnOnce(&State) -> Result<Vec<Command>, Rejected> + Send>;

/// A change that waits to be written.
struct Waiting {
    request: Option<Named>,
    choose: Choice,
    tell: oneshot::Sender<Answer>,
}

/// The engine. Clones share it.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    state: watch::Sender<Arc<State>>,
    waiting: Mutex<Vec<Waiting>>,
    log: Mutex<Log>,
}

impl Engine {
    /// Opens what `directory` keeps; empty at the first time.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn open(directory: &Path) -> Result<Self, LogError> {
        let (log, state) = Log::open(directory)?;
        let state = watch::Sender::new(Arc::new(state));
        let inner = Inner { state, waiting: Mutex::default(), log: Mutex::new(log) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The newest state, all of it on the disk.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.inner.state.borrow())
    }

    /// The newest state and the next ones.
    pub fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.inner.state.subscribe()
    }

    /// Makes a change: `choose` decides on the newest state, and all of its commands are applied, or
    /// none. A named write that was made already is not made again and gets the first result. Once
    /// begun it goes on, though its caller be gone.
    ///
    /// # Errors
    /// The refusal, or when the disk refuses.
    pub async fn propose(
        &self,
        request: Option<Named>,
        choose: impl FnOnce(&State) -> Result<Vec<Command>, Rejected> + Send + 'static,
    ) -> Result<Done, ProposeError> {
        let (tell, told) = oneshot::channel();
        lock(&self.inner.waiting).push(Waiting { request, choose: Box::new(choose), tell });
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || inner.write());
        let answer = told.await.map_err(|_| ProposeError::Ending)?;
        // The state was told before the answer.
        Ok(Done { applied: answer?, state: self.state() })
    }

    /// One decided command.
    ///
    /// # Errors
    /// As for [`Self::propose`].
    pub async fn command(&self, command: Command) -> Result<Done, ProposeError> {
        self.propose(None, |_| Ok(vec![command])).await
    }

    /// The same in a thread that may wait for the disk, before anybody else uses the engine.
    ///
    /// # Errors
    /// As for [`Self::propose`].
    pub fn change_now(
        &self,
        choose: impl FnOnce(&State) -> Result<Vec<Command>, Rejected> + Send + 'static,
    ) -> Result<Applied, ProposeError> {
        let (tell, mut told) = oneshot::channel();
        let waiting = Waiting { request: None, choose: Box::new(choose), tell };
        lock(&self.inner.waiting).push(waiting);
        self.inner.write();
        told.try_recv().map_err(|_| ProposeError::Ending)?
    }
}

impl Inner {
    /// Writes all that waits. Whoever comes while another writes finds his change written, or writes
    /// it himself.
    fn write(&self) {
        let mut log = lock(&self.log);
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        if waiting.is_empty() {
            return;
        }
        let mut state = State::clone(&self.state.borrow());
        let (mut entries, mut answers) = (Vec::new(), Vec::new());
        for Waiting { request, choose, tell } in waiting {
            let answer = decide(&mut state, request, choose);
            let answer = answer.map(|(applied, entry)| {
                entries.extend(entry);
                applied
            });
            answers.push((tell, answer));
        }
        let failed = match entries.is_empty() {
            true => None,
            false => log.append(&entries).err().map(Arc::new),
        };
        if let Some(error) = &failed {
            tracing::error!(%error, "this node's own state cannot be kept");
        } else if !entries.is_empty() {
            self.state.send_replace(Arc::new(state.clone()));
        }
        for (tell, answer) in answers {
            // What was chosen on a state that is not kept may be wrong, too.
            let answer = match &failed {
                Some(error) => Err(ProposeError::Log(Arc::clone(error))),
                None => answer.map_err(ProposeError::Rejected),
            };
            // The caller may have gone.
            let _ = tell.send(answer);
        }
        if failed.is_none()
            && log.has_grown()
            && let Err(error) = log.rewrite(&state)
        {
            tracing::warn!(%error, "the log cannot be rewritten, and grows");
        }
    }
}

/// What the choice gives on `state`, which is changed, and the entry that must be written for it.
fn decide(
    state: &mut State,
    request: Option<Named>,
    choose: Choice,
) -> Result<(Applied, Option<Proposal>), Rejected> {
    if let Some(outcome) = request.as_ref().and_then(|named| state.repeated(named)) {
        return Ok((outcome.into_result()?, None));
    }
    let commands = choose(state)?;
    if commands.is_empty() {
        return Ok((Applied::default(), None));
    }
    let entry = Proposal { request, now: now(), commands };
    let mut next = state.clone();
    let applied = next.apply(next.revision() + 1, &entry).into_result()?;
    *state = next;
    Ok((applied, Some(entry)))
}

/// The clock of this node; the state never lets it go back.
pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A choice that panics loses its own change; the log and the queue are whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
