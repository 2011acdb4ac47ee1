//! One driver for each attachment, and the calls of administrators.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::RngExt as _;
use tokio::{sync::watch, task::JoinSet, time::timeout};
use weft_model::{AttachmentId, object::Holder};
use weft_proto::v1::AttachForeignRequest;

use super::{
    Ask, AttachError, Book, Intent, Leader, Phase, Wish,
    book::{INTENTS_MAX, Intents},
    hold_id, netns, plumbed,
};
use crate::{
    container::Holders,
    desired::{Sorted, key_of},
    plumbing::{Assigned, Source, Standing},
    tasks::Context,
};

/// How often it is looked whether the namespaces are still there, and what failed is tried again.
const TICK: Duration = Duration::from_secs(1);
/// How long the kernel and the managers may take from the leader's word to a name that is found.
const READY_DEADLINE: Duration = Duration::from_secs(20);
/// How long a caller waits for the end; what is left goes on without him.
const GONE_DEADLINE: Duration = Duration::from_secs(20);
/// What one question to the managers may take before other things must be looked at again.
const ASIDE: Duration = Duration::from_secs(5);

/// Keeps the namespaces of others on their networks.
pub struct Keeper {
    book: Book,
    holders: Holders,
    context: Arc<Context>,
    leader: Leader,
    /// Those whose caller waits: until he has his answer only he says what becomes of them.
    calls: Mutex<BTreeSet<AttachmentId>>,
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
    pub fn new(book: Book, holders: Holders, context: &Arc<Context>, leader: Leader) -> Arc<Self> {
        let (context, calls) = (Arc::clone(context), Mutex::default());
        Arc::new(Self { book, holders, context, leader, calls })
    }

    /// The way to the managers.
    pub fn leader(&self) -> &Leader {
        &self.leader
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

    fn calls(&self) -> std::sync::MutexGuard<'_, BTreeSet<AttachmentId>> {
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
        let identity = netns::inspect(&wish.netns, &wish.ifname)?;
        let id = AttachmentId::from_bytes(rand::rng().random());
        let name = if wish.name.is_empty() { id.short() } else { wish.name.clone() };
        let intent = Intent {
            id,
            request: wish.request.clone(),
            name,
            netns: wish.netns.clone(),
            identity,
            ifname: wish.ifname.clone(),
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
        self.leader.ask(&Ask::Attach(request)).await.map_err(AttachError::Managers)?;
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

    /// Serves what is in the book, for ever.
    pub async fn run(self: Arc<Self>) {
        let mut drivers = JoinSet::new();
        let mut driven = BTreeSet::new();
        let mut book = self.book.read();
        let mut assigned = self.context.assigned.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let ids: Vec<_> = book.borrow_and_update().keys().copied().collect();
            for id in ids.into_iter().filter(|id| driven.insert(*id)) {
                let keeper = Arc::clone(&self);
                drivers.spawn(async move {
                    keeper.drive(id).await;
                    id
                });
            }
            self.give_back(&mut assigned).await;
            tokio::select! {
                _ = book.changed() => {}
                _ = assigned.changed() => {}
                _ = tick.tick() => {}
                Some(ended) = drivers.join_next() => match ended {
                    Ok(id) => {
                        driven.remove(&id);
                    }
                    Err(error) => tracing::error!(%error, "a driver of an attachment has failed"),
                },
            }
        }
    }

    /// Tells the managers that nothing is here of what they assign and nobody has asked for: an
    /// attachment that has gone, or whose caller had gone before it was made.
    async fn give_back(&self, assigned: &mut watch::Receiver<Assigned>) {
        let (source, assignments) = assigned.borrow_and_update().clone();
        if source != Source::Managers {
            return;
        }
        let sorted = Sorted::new(&assignments);
        // The book is read after the assignments: nothing is assigned before it was written down.
        let unknown = sorted.foreigners.keys().filter(|id| self.book.get(**id).is_none());
        for id in unknown {
            match timeout(ASIDE, self.leader.ask(&Ask::Detach(*id))).await {
                Ok(Ok(())) => tracing::info!(attachment = %id.short(), "given back"),
                Ok(Err(status)) => {
                    tracing::warn!(attachment = %id.short(), reason = status.message(), "not given back");
                }
                Err(_) => tracing::warn!(attachment = %id.short(), "not given back in time"),
            }
        }
    }

    /// Takes one attachment all its way. Ends when nothing of it is left.
    async fn drive(&self, id: AttachmentId) {
        if self.is_known(id).await {
            self.serve(id).await;
        }
        if self.book.get(id).is_some() {
            self.leave(id).await;
        }
    }

    /// Waits until the managers know of it; false if they do not, or it is to go.
    async fn is_known(&self, id: AttachmentId) -> bool {
        let mut assigned = self.context.assigned.clone();
        let mut book = self.book.read();
        let mut tick = tokio::time::interval(TICK);
        loop {
            match book.borrow_and_update().get(&id).map(|intent| intent.phase) {
                Some(Phase::Asking) => {}
                Some(Phase::Attached) => return true,
                Some(Phase::Leaving) | None => return false,
            }
            // Whoever called has gone before the answer is looked for, so it is the newer.
            let called = self.calls().contains(&id);
            let (source, assignments) = assigned.borrow_and_update().clone();
            if Sorted::new(&assignments).foreigners.contains_key(&id) {
                self.book.advance(id, Phase::Asking, Some(Phase::Attached));
            } else if source == Source::Managers && !called {
                self.book.advance(id, Phase::Asking, None);
            }
            tokio::select! {
                _ = assigned.changed() => {}
                _ = book.changed() => {}
                _ = tick.tick() => {}
            }
        }
    }

    /// Keeps the namespace plumbed and its names answered until it is to go.
    async fn serve(&self, id: AttachmentId) {
        let mut assigned = self.context.assigned.clone();
        let mut standing = self.context.plumbing.standing();
        let mut book = self.book.read();
        let mut tick = tokio::time::interval(TICK);
        let mut answered = false;
        loop {
            let intent = book.borrow_and_update().get(&id).cloned();
            let Some(intent) = intent.filter(|intent| intent.phase == Phase::Attached) else {
                return;
            };
            let (source, assignments) = assigned.borrow_and_update().clone();
            let ready = Sorted::new(&assignments).foreigners.get(&id).map(|foreign| foreign.ready);
            let unknown = source == Source::Managers && ready.is_none();
            if unknown || !netns::is_there(&intent.netns, &intent.identity) {
                tracing::info!(attachment = %id.short(), unknown, "ends by itself");
                self.book.advance(id, Phase::Attached, Some(Phase::Leaving));
                continue;
            }
            answered = answered || self.answer(&intent).await;
            let carried = is_carried(&standing.borrow_and_update(), id, assignments.revision);
            if answered && ready == Some(false) && carried {
                self.tell_ready(id).await;
            }
            tokio::select! {
                _ = assigned.changed() => {}
                _ = standing.changed() => {}
                _ = book.changed() => {}
                _ = tick.tick() => {}
            }
        }
    }

    /// Gives the namespace to the loop that plumbs it, and its sockets to the resolver.
    async fn answer(&self, intent: &Intent) -> bool {
        let dns = match self.holders.ensure(&hold_id(intent.id), &intent.netns).await {
            Ok(dns) => dns,
            Err(error) => {
                tracing::warn!(attachment = %intent.id.short(), %error, "names are not answered");
                return false;
            }
        };
        let holder = Holder::Foreign(intent.id);
        let asker = weft_dns::Asker::default();
        if let Err(error) = self.context.names.add(&key_of(holder), asker, dns.udp, dns.tcp) {
            tracing::warn!(attachment = %intent.id.short(), %error, "names are not answered");
            return false;
        }
        self.context.plumbing.put(holder, plumbed(intent, Some(dns.port)));
        self.context.plumbing.look_again();
        true
    }

    async fn tell_ready(&self, id: AttachmentId) {
        match timeout(ASIDE, self.leader.ask(&Ask::Ready(id))).await {
            Ok(Ok(())) => {}
            Ok(Err(status)) => {
                tracing::debug!(attachment = %id.short(), reason = status.message(), "not told");
            }
            Err(_) => tracing::debug!(attachment = %id.short(), "not told in time"),
        }
    }

    /// Takes everything of it out of the kernel, and at last out of the book; the managers are told
    /// when it is not there any more.
    async fn leave(&self, id: AttachmentId) {
        let holder = Holder::Foreign(id);
        // It may never have been served.
        let _ = self.context.names.remove(&key_of(holder));
        self.context.plumbing.take(holder);
        // Without the managers' word the loop removes nothing.
        let mut assigned = self.context.assigned.clone();
        let _ = assigned.wait_for(|(source, _)| *source == Source::Managers).await;
        self.context.plumbing.look_again();
        let mut standing = self.context.plumbing.standing();
        let looks = standing.borrow_and_update().looks;
        // The look that goes on now may have begun before.
        let gone = |now: &Standing| now.looks > looks + 1 && !now.sandboxes.contains(&holder);
        while !gone(&standing.borrow_and_update()) {
            self.context.plumbing.look_again();
            if standing.changed().await.is_err() {
                return;
            }
        }
        self.holders.end(&hold_id(id)).await;
        self.book.advance(id, Phase::Leaving, None);
    }
}

/// Whether the kernel carries the attachment as these assignments, or later ones, have it.
fn is_carried(standing: &Standing, id: AttachmentId, revision: u64) -> bool {
    let holder = Holder::Foreign(id);
    standing.sandboxes.contains(&holder)
        && !standing.troubled.contains_key(&holder)
        && standing.seen >= revision
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
