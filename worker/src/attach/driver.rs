//! One driver for each attachment, which takes it from what is written down to a name that is found,
//! and to its end.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet, time::timeout};
use weft_model::{AttachmentId, object::Holder};

use super::{Ask, Intent, Keeper, Phase, hold_id, plumbed};
use crate::{
    desired::{Sorted, key_of},
    plumbing::{Assigned, Source, Standing, asker_of},
};

/// How often it is looked whether the namespaces are still there, and what failed is tried again.
const TICK: Duration = Duration::from_secs(1);
/// What one question to the managers may take before other things must be looked at again.
const ASIDE: Duration = Duration::from_secs(5);

impl Keeper {
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
        let unknown = sorted.foreigners.keys().filter(|id| !self.is_wanted(**id));
        for id in unknown {
            match timeout(ASIDE, self.ground.ask(&Ask::Detach(*id))).await {
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
            if unknown || !self.ground.is_there(&intent.netns, &intent.identity) {
                tracing::info!(attachment = %id.short(), unknown, "ends by itself");
                self.book.advance(id, Phase::Attached, Some(Phase::Leaving));
                continue;
            }
            // Names are published before a look counts: a question that has waited for this daemon
            // must not be answered by one that knows none.
            let published = standing.borrow_and_update().seen >= assignments.revision;
            if !answered && published {
                answered = self.answer(&intent, &Sorted::new(&assignments)).await;
            }
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
    async fn answer(&self, intent: &Intent, sorted: &Sorted<'_>) -> bool {
        let dns = match self.ground.ensure(&hold_id(intent.id), &intent.netns).await {
            Ok(dns) => dns,
            Err(error) => {
                tracing::warn!(attachment = %intent.id.short(), %error, "names are not answered");
                return false;
            }
        };
        let holder = Holder::Foreign(intent.id);
        let plumbed = plumbed(intent, dns.as_ref().map(|dns| dns.port));
        let asker = asker_of(&plumbed, sorted);
        if let Some(dns) = dns
            && let Err(error) = self.context.names.add(&key_of(holder), asker, dns.udp, dns.tcp)
        {
            tracing::warn!(attachment = %intent.id.short(), %error, "names are not answered");
            return false;
        }
        self.context.plumbing.put(holder, plumbed);
        self.context.plumbing.look_again();
        true
    }

    async fn tell_ready(&self, id: AttachmentId) {
        match timeout(ASIDE, self.ground.ask(&Ask::Ready(id))).await {
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
        self.ground.end(&hold_id(id)).await;
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
