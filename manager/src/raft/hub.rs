//! What every message in and out needs: who this store is, what it remembers of the others, and
//! whether it may still take part.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::fence::{Boot, Fence, Incarnation, Known, Refusal, compare};
use super::mark::DurableMark;
use super::room::{Room, Space};
use super::types::StoredMembership;
use super::wire::{Body, Request};

/// Shared by the sending and the receiving side of one store.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) cluster: String,
    pub(crate) number: u64,
    pub(crate) boot: Boot,
    pub(crate) room: Room,
    mark: Arc<DurableMark>,
    fence: Mutex<Fence>,
    /// The newest membership in the log, applied or not; kept by a task of the store.
    membership: Mutex<Arc<StoredMembership>>,
    /// Why this store must not take part any more.
    condemned: watch::Sender<Option<Refusal>>,
    /// The last refusal between this manager and each other one, either way.
    refusals: Mutex<BTreeMap<u64, Refusal>>,
    /// The other managers whose disks were short of room when they last answered.
    short: Mutex<BTreeSet<u64>>,
}

impl Hub {
    pub(crate) fn new(
        cluster: String,
        number: u64,
        boot: Boot,
        room: Room,
        mark: Arc<DurableMark>,
        fence: Fence,
    ) -> Self {
        Hub {
            cluster,
            number,
            boot,
            room,
            mark,
            fence: Mutex::new(fence),
            membership: Mutex::default(),
            condemned: watch::Sender::new(None),
            refusals: Mutex::default(),
            short: Mutex::default(),
        }
    }

    /// What this store shows of itself.
    pub(crate) fn shown(&self) -> Known {
        Known { boot: self.boot, mark: self.mark.get() }
    }

    /// Puts the header on a message for manager `to`, whose record names `expected`.
    pub(crate) fn request(&self, to: u64, expected: Incarnation, body: Body) -> Request {
        Request {
            cluster: self.cluster.clone(),
            from: self.number,
            to,
            shown: self.shown(),
            expected,
            remembered: self.remembered(),
            body,
        }
    }

    /// Checks who a message is from and for, before anything of it is used. `proved` is the
    /// manager the connection belongs to.
    pub(crate) fn check_request(&self, proved: u64, request: &Request) -> Result<(), Refusal> {
        if let Some(refusal) = self.condemned.borrow().clone() {
            return Err(refusal);
        }
        if request.cluster != self.cluster {
            let (own, got) = (self.cluster.clone(), request.cluster.clone());
            return Err(Refusal::WrongCluster { own, got });
        }
        if request.from != proved {
            return Err(Refusal::WrongSender { claimed: request.from, proved });
        }
        if request.to != self.number {
            return Err(Refusal::WrongTarget { own: self.number, got: request.to });
        }
        self.admit(request.from, request.shown)?;
        self.check_self(request.expected, request.remembered.get(&self.number))?;
        self.hear(&request.remembered);
        Ok(())
    }

    /// Checks what a manager shows of itself, in a message or an answer, and remembers it.
    pub(crate) fn admit(&self, number: u64, shown: Known) -> Result<(), Refusal> {
        let expected = self.expected(number);
        let verdict = lock(&self.fence).admit(number, shown, expected);
        if let Err(refusal) = &verdict {
            self.note_refusal(number, refusal);
        }
        verdict
    }

    /// A peer answered with a refusal: remember it, and believe it when it is about this store.
    pub(crate) fn refused_by(&self, number: u64, refusal: &Refusal) {
        self.note_refusal(number, refusal);
        // Only a fellow member's word counts.
        if refusal.condemns(self.number) && self.expected(number).is_some() {
            self.condemn(refusal);
        }
    }

    /// Everything worked with this manager just now.
    pub(crate) fn accepted_by(&self, number: u64) {
        lock(&self.refusals).remove(&number);
    }

    /// Manager `number` has said how much room its disk has.
    pub(crate) fn note_space(&self, number: u64, space: Space) {
        let mut short = lock(&self.short);
        match space {
            Space::Enough => drop(short.remove(&number)),
            Space::Low | Space::Out => drop(short.insert(number)),
        }
    }

    /// The managers whose disks are short of room, this one among them.
    pub(crate) fn short_of_room(&self) -> BTreeSet<u64> {
        let mut short = lock(&self.short).clone();
        if self.room.space() != Space::Enough {
            short.insert(self.number);
        }
        short
    }

    pub(crate) fn refusals(&self) -> BTreeMap<u64, Refusal> {
        lock(&self.refusals).clone()
    }

    pub(crate) fn condemned(&self) -> watch::Receiver<Option<Refusal>> {
        self.condemned.subscribe()
    }

    pub(crate) fn remembered(&self) -> BTreeMap<u64, Known> {
        lock(&self.fence).all().clone()
    }

    pub(crate) fn fence(&self) -> Fence {
        lock(&self.fence).clone()
    }

    pub(crate) fn set_membership(&self, membership: Arc<StoredMembership>) {
        *lock(&self.membership) = membership;
    }

    /// Whether this store may stand for election: the membership names it, and not another one that
    /// had its number before, and it is not condemned.
    pub(crate) fn may_stand(&self) -> bool {
        let named = self.expected(self.number) == Some(self.boot.incarnation);
        named && self.condemned.borrow().is_none()
    }

    /// The incarnation the membership names for a manager.
    fn expected(&self, number: u64) -> Option<Incarnation> {
        let membership = lock(&self.membership).clone();
        membership.get_node(&number).map(|record| record.incarnation)
    }

    /// Compares this store with what a peer expects and remembers of it.
    fn check_self(&self, expected: Incarnation, told: Option<&Known>) -> Result<(), Refusal> {
        let own = self.shown();
        let number = self.number;
        let verdict = if expected != own.boot.incarnation {
            let shown = own.boot.incarnation;
            Err(Refusal::IncarnationChanged { number, expected, shown })
        } else {
            // A memory of an earlier store of this number says nothing about this one.
            match told.filter(|told| told.boot.incarnation == own.boot.incarnation) {
                Some(told) => compare(number, told, &own),
                None => Ok(()),
            }
        };
        if let Err(refusal) = &verdict {
            self.condemn(refusal);
        }
        verdict
    }

    fn hear(&self, remembered: &BTreeMap<u64, Known>) {
        let membership = lock(&self.membership).clone();
        let mut fence = lock(&self.fence);
        for (number, told) in remembered.iter().filter(|(number, _)| **number != self.number) {
            let expected = membership.get_node(number).map(|record| record.incarnation);
            fence.hear(*number, *told, expected);
        }
    }

    fn note_refusal(&self, number: u64, refusal: &Refusal) {
        // It comes and goes with every other message; the manager itself tells its operator.
        if matches!(refusal, Refusal::NoRoom { .. }) {
            return;
        }
        let mut refusals = lock(&self.refusals);
        if refusals.get(&number) == Some(refusal) {
            return;
        }
        tracing::warn!(peer = number, refusal = %refusal, "message refused");
        if refusals.len() < super::fence::MAX_REMEMBERED || refusals.contains_key(&number) {
            refusals.insert(number, refusal.clone());
        }
    }

    fn condemn(&self, refusal: &Refusal) {
        // A peer that lags may still expect the store that had this number before; the log that
        // this store has got says who is right.
        let vouched = self.expected(self.number) == Some(self.boot.incarnation);
        if vouched && matches!(refusal, Refusal::IncarnationChanged { .. }) {
            return;
        }
        self.condemned.send_if_modified(|condemned| {
            if condemned.is_some() {
                return false;
            }
            tracing::error!(refusal = %refusal, "this store must not take part any more");
            *condemned = Some(refusal.clone());
            true
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is one assignment or one map operation.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
