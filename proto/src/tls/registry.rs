//! The open connections, so that those of a removed or demoted node can be cut at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;

use super::connection::ConnectionInfo;

/// All connections of one listener that have finished their handshake. Clones share the table.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: BTreeMap<u64, (ConnectionInfo, Arc<Switch>)>,
}

/// Tells one connection that it is over.
#[derive(Debug, Default)]
struct Switch {
    cut: AtomicBool,
    waker: AtomicWaker,
}

/// The place of one connection in the table, left when dropped.
#[derive(Debug)]
pub(super) struct Registration {
    number: u64,
    switch: Arc<Switch>,
    registry: Registry,
}

impl Registry {
    /// Cuts every connection that `which` picks, and returns how many those are. Requests on them
    /// fail at once.
    pub fn cut(&self, which: impl Fn(&ConnectionInfo) -> bool) -> usize {
        let table = self.lock();
        let picked = table.open.values().filter(|(info, _)| which(info));
        picked
            .map(|(_, switch)| {
                switch.cut.store(true, Ordering::Release);
                switch.waker.wake();
            })
            .count()
    }

    /// Cuts every connection of this node, in whatever role it came.
    pub fn cut_node(&self, node_id: &str) -> usize {
        self.cut(|info| info.peer.as_ref().is_some_and(|peer| peer.node_id == node_id))
    }

    /// Everybody who is connected now.
    pub fn open(&self) -> Vec<ConnectionInfo> {
        self.lock().open.values().map(|(info, _)| info.clone()).collect()
    }

    pub(super) fn register(&self, info: ConnectionInfo) -> Registration {
        let switch = Arc::new(Switch::default());
        let mut table = self.lock();
        let number = table.next;
        table.next += 1;
        table.open.insert(number, (info, switch.clone()));
        Registration { number, switch, registry: self.clone() }
    }

    /// No statement leaves the table half changed, so a poisoned lock is no harm.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    /// Ready once the connection has been cut.
    pub(super) fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<()> {
        // The waker is left first: a cut between the two lines is then seen by the load, a later
        // one wakes.
        self.switch.waker.register(cx.waker());
        if self.switch.cut.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(super) fn is_cut(&self) -> bool {
        self.switch.cut.load(Ordering::Acquire)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.lock().open.remove(&self.number);
    }
}
