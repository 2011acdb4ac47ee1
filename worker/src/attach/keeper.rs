//! The calls of administrators, and what they share with the drivers.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::RngExt as _;
use tokio::{sync::watch, time::timeout};
use weft_model::{AttachmentId, object::Holder};
use weft_proto::{tls::LiveIdentity, v1::AttachForeignRequest};

use super::{
    Ask, AttachError, Book, Ground, Intent, Phase, Wish,
    book::{INTENTS_MAX, Intents},
};
use crate::{desired::Sorted, local::Local, plumbing::Assigned, tasks::Context};

/// How long the kernel and the managers may take from the leader's word to a name that is found.
const READY_DEADLINE: Duration = Duration::from_secs(20);
/// How long a caller waits for the end; what is left goes on without him.
const GONE_DEADLINE: Duration = Duration::from_secs(20);

/// Keeps the namespaces of others on their networks.
pub struct Keeper {
    pub(super) book: Book,
    pub(super) ground: Arc<dyn Ground>,
    pub(super) context: Arc<Context>,
    /// Those whose caller waits: until he has his answer only he says what becomes of them.
    calls: Mutex<BTreeSet<AttachmentId>>,
    /// Others on this node who ask the managers for attachments.
    own: Option<Arc<Local>>,
}

/// A call of an administrator, as long as it lasts.
struct Call<'a> {
    keeper: &'a Keeper,
    id: AttachmentId,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.keeper.calls().remove(&self.id);
    }
}

impl Keeper {
    /// Over what `book` holds from an earlier run.
    pub fn new(
        book: Book,
        ground: Arc<dyn Ground>,
        context: &Arc<Context>,
        own: Option<Arc<Local>>,
    ) -> Arc<Self> {
        let (context, calls) = (Arc::clone(context), Mutex::default());
        Arc::new(Self { book, ground, context, calls, own })
    }

    /// Whether somebody on this node wants an attachment.
    pub(super) fn is_wanted(&self, id: AttachmentId) -> bool {
        self.book.get(id).is_some() || self.own.as_ref().is_some_and(|own| own.holds(id))
    }

    /// The certificate to show the managers; none outside of a cluster.
    pub fn show(&self, identity: Option<LiveIdentity>) {
        self.ground.show(identity);
    }

    /// What is attached here, or is to be.
    pub fn intents(&self) -> Vec<Intent> {
        self.book.read().borrow().values().cloned().collect()
    }

    /// Whether there is anything.
    pub fn holds_any(&self) -> bool {
        !self.book.read().borrow().is_empty()
    }

    /// Waits until there is nothing.
    pub async fn empty(&self) {
        // The book lives as long as this value.
        let _ = self.book.read().wait_for(Intents::is_empty).await;
    }

    /// What this node is told.
    pub fn assigned(&self) -> watch::Receiver<Assigned> {
        self.context.assigned.clone()
    }

    pub(super) fn calls(&self) -> std::sync::MutexGuard<'_, BTreeSet<AttachmentId>> {
        // Each change is one call, so the set is whole also if a holder of the lock panicked.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a namespace on a network; comes back when it is found by name. A retry under the same
    /// name of the write waits for the first call's end.
    ///
    /// # Errors
    /// Why not; nothing is then left of it, or is on its way out.
    pub async fn attach(&self, wish: Wish) -> Result<Intent, AttachError> {
        let (intent, first) = self.note(&wish)?;
        let _call = first.then(|| Call { keeper: self, id: intent.id });
        let up = match first {
            true => self.establish(&intent, &wish).await,
            false => self.is_up(intent.id).await,
        };
        match up {
            Ok(()) => Ok(self.book.get(intent.id).unwrap_or(intent)),
            Err(error) => {
                if first {
                    self.book.advance(intent.id, Phase::Asking, None);
                    self.book.advance(intent.id, Phase::Attached, Some(Phase::Leaving));
                }
                Err(error)
            }
        }
    }

    /// Writes the wish down; tells whether this is the first call with it.
    fn note(&self, wish: &Wish) -> Result<(Intent, bool), AttachError> {
        let again = |intents: &Intents| {
            let same = |intent: &&Intent| intent.request == wish.request;
            intents.values().find(same).filter(|_| !wish.request.is_empty()).cloned()
        };
        let known = again(&self.book.read().borrow());
        if let Some(intent) = known {
            return Ok((intent, false));
        }
        let (identity, way_out) = self.ground.inspect(&wish.netns, &wish.ifname)?;
        let id = AttachmentId::from_bytes(rand::rng().random());
        let name = if wish.name.is_empty() { id.short() } else { wish.name.clone() };
        let intent = Intent {
            id,
            request: wish.request.clone(),
            name,
            netns: wish.netns.clone(),
            identity,
            ifname: wish.ifname.clone(),
            way_out,
            phase: Phase::Asking,
        };
        self.calls().insert(id);
        let noted = self.book.change(|intents| {
            if let Some(intent) = again(intents) {
                return Ok((intent, false));
            }
            let same = |other: &&Intent| other.identity == intent.identity;
            if let Some(other) = intents.values().find(same) {
                let (path, name) = (intent.netns.clone(), other.name.clone());
                return Err(AttachError::Twice { path, name });
            }
            if intents.len() >= INTENTS_MAX {
                return Err(AttachError::Full);
            }
            intents.insert(id, intent.clone());
            Ok((intent, true))
        });
        if !matches!(noted, Ok((_, true))) {
            self.calls().remove(&id);
        }
        noted
    }

    async fn establish(&self, intent: &Intent, wish: &Wish) -> Result<(), AttachError> {
        let request = AttachForeignRequest {
            id: intent.id.to_string(),
            network: wish.network.clone(),
            name: intent.name.clone(),
            aliases: wish.aliases.clone(),
            service: wish.service.clone(),
            addresses: wish.addresses.clone(),
        };
        self.ground.ask(&Ask::Attach(request)).await.map_err(AttachError::Managers)?;
        self.is_up(intent.id).await
    }

    /// Waits until the attachment is found by name.
    async fn is_up(&self, id: AttachmentId) -> Result<(), AttachError> {
        let (mut assigned, mut book) = (self.context.assigned.clone(), self.book.read());
        let up = async {
            loop {
                let intent = book.borrow_and_update().get(&id).cloned();
                if intent.is_none_or(|intent| intent.phase == Phase::Leaving) {
                    return Err(AttachError::Going { name: id.short() });
                }
                let now = assigned.borrow_and_update().1.clone();
                if Sorted::new(&now).foreigners.get(&id).is_some_and(|foreign| foreign.ready) {
                    return Ok(());
                }
                tokio::select! {
                    changed = assigned.changed() => if changed.is_err() { return Ok(()) },
                    _ = book.changed() => {}
                }
            }
        };
        timeout(READY_DEADLINE, up).await.unwrap_or_else(|_| {
            let standing = self.context.plumbing.standing();
            let reason = standing.borrow().troubled.get(&Holder::Foreign(id)).cloned();
            let reason = reason.unwrap_or_else(|| "the managers have not confirmed it".to_owned());
            Err(AttachError::NotReady { reason })
        })
    }

    /// Takes a namespace off its network; comes back when its addresses are free.
    ///
    /// # Errors
    /// When none is meant, or it is not gone in time; it goes all the same.
    pub async fn detach(&self, text: &str) -> Result<Intent, AttachError> {
        let intent = find(&self.book.read().borrow(), text)?;
        self.book.change::<(), AttachError>(|intents| {
            if let Some(intent) = intents.get_mut(&intent.id) {
                intent.phase = Phase::Leaving;
            }
            Ok(())
        })?;
        let (mut book, mut assigned) = (self.book.read(), self.context.assigned.clone());
        let gone = async {
            // Both ends live as long as this value.
            let _ = book.wait_for(|intents| !intents.contains_key(&intent.id)).await;
            let unknown = |now: &Assigned| !Sorted::new(&now.1).foreigners.contains_key(&intent.id);
            let _ = assigned.wait_for(unknown).await;
        };
        match timeout(GONE_DEADLINE, gone).await {
            Ok(()) => Ok(intent),
            Err(_) => {
                let reason = "the managers have not confirmed it; it goes on by itself".to_owned();
                Err(AttachError::NotGone { name: intent.name, reason })
            }
        }
    }
}

/// The one that `text` means: by ID, by name, or by the beginning of an ID.
fn find(intents: &Intents, text: &str) -> Result<Intent, AttachError> {
    let lower = text.to_ascii_lowercase();
    let by_id = intents.values().filter(|intent| intent.id.to_string() == lower);
    let by_name = intents.values().filter(|intent| intent.name.eq_ignore_ascii_case(text));
    let begins = |intent: &&Intent| !lower.is_empty() && intent.id.to_string().starts_with(&lower);
    let by_prefix = intents.values().filter(begins);
    let ways: [Vec<&Intent>; 3] = [by_id.collect(), by_name.collect(), by_prefix.collect()];
    let found = ways.into_iter().find(|found| !found.is_empty()).unwrap_or_default();
    let text = weft_model::spec::escape(text, 64).trim_matches('"').to_owned();
    match found[..] {
        [] => Err(AttachError::Unknown { text }),
        [one] => Ok(one.clone()),
        ref many => {
            let names =
                many.iter().map(|intent| format!("{} ({})", intent.name, intent.id.short()));
            Err(AttachError::Ambiguous { text, names: names.collect() })
        }
    }
}
