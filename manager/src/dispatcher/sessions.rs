//! The sessions there are: one for each node, the newest.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use weft_model::NodeId;

/// The sessions of this manager. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Sessions(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    table: Mutex<Table>,
    /// Wakes the liveness check when a node that was out of touch is heard.
    heard: Notify,
    /// Wakes whoever waits for nodes to apply something.
    progress: Notify,
}

#[derive(Debug, Default)]
struct Table {
    /// Number of the session opened last.
    last: u64,
    by_node: BTreeMap<NodeId, Entry>,
    /// When nodes whose session has ended were last heard: a daemon that starts again within the
    /// time of grace was never away.
    ended: BTreeMap<NodeId, Instant>,
}

#[derive(Debug)]
struct Entry {
    serial: u64,
    heard: Instant,
    progress: Progress,
    /// Carries the boot of the session that takes this one's place.
    replaced: watch::Sender<Option<String>>,
}

/// How far a node's data plane is.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Revision of the newest assignments sent.
    sent: u64,
    /// Up to here nothing has changed for the node since they were sent.
    level: u64,
    /// Revision that the node has applied.
    applied: u64,
}

impl Progress {
    /// The revision up to which everything is done.
    fn done(self) -> u64 {
        if self.applied >= self.sent { self.applied.max(self.level) } else { self.applied }
    }
}

/// A session that is open; it leaves the table when this is dropped.
#[derive(Debug)]
pub(super) struct Registered {
    sessions: Sessions,
    node: NodeId,
    serial: u64,
    replaced: watch::Receiver<Option<String>>,
}

impl Sessions {
    /// Opens a session of `node`; an older one of that node ends.
    pub(super) fn open(&self, node: NodeId, boot_id: &str, now: Instant) -> Registered {
        let (sender, replaced) = watch::channel(None);
        let mut table = self.table();
        table.last += 1;
        let serial = table.last;
        let entry = Entry { serial, heard: now, progress: Progress::default(), replaced: sender };
        table.ended.remove(&node);
        if let Some(older) = table.by_node.insert(node, entry) {
            older.replaced.send_replace(Some(boot_id.to_owned()));
        }
        drop(table);
        self.0.heard.notify_one();
        Registered { sessions: self.clone(), node, serial, replaced }
    }

    /// When each node that has or had a session was last heard.
    pub fn heard(&self) -> BTreeMap<NodeId, Instant> {
        let table = self.table();
        let open = table.by_node.iter().map(|(node, entry)| (*node, entry.heard));
        let ended = table.ended.iter().map(|(node, heard)| (*node, *heard));
        open.chain(ended).collect()
    }

    /// Ends the session of a node that leaves, so that it does not count as heard any more.
    pub fn close(&self, node: NodeId) {
        let mut table = self.table();
        table.ended.remove(&node);
        if let Some(entry) = table.by_node.remove(&node) {
            entry.replaced.send_replace(Some("none: the node leaves".to_owned()));
        }
    }

    /// The revision up to which a node's data plane has done everything, if it has a session.
    pub fn applied(&self, node: NodeId) -> Option<u64> {
        self.table().by_node.get(&node).map(|entry| entry.progress.done())
    }

    /// The same of every node that has a session.
    pub(crate) fn all_applied(&self) -> BTreeMap<NodeId, u64> {
        let table = self.table();
        table.by_node.iter().map(|(node, entry)| (*node, entry.progress.done())).collect()
    }

    /// Waits until some node's data plane has come further.
    pub(crate) async fn progress(&self) {
        self.0.progress.notified().await;
    }

    /// Waits until a node is heard that may have been out of touch.
    pub(crate) async fn news(&self) {
        self.0.heard.notified().await;
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().expect("no holder panics")
    }
}

impl Registered {
    /// Notes that the node was heard; `was_away` if the state does not say that it is ready.
    pub(super) fn heard(&self, now: Instant, was_away: impl FnOnce() -> bool) {
        self.change(|entry| entry.heard = now);
        if was_away() {
            self.sessions.0.heard.notify_one();
        }
    }

    pub(super) fn sent(&self, revision: u64) {
        self.change(|entry| {
            entry.progress.sent = revision;
            entry.progress.level = revision;
        });
    }

    pub(super) fn level(&self, revision: u64) {
        self.change(|entry| entry.progress.level = revision);
    }

    pub(super) fn applied(&self, revision: u64) {
        self.change(|entry| entry.progress.applied = entry.progress.applied.max(revision));
    }

    /// Waits until a newer session takes this one's place; gives that one's boot.
    pub(super) async fn replaced(&mut self) -> String {
        match self.replaced.wait_for(Option::is_some).await {
            Ok(boot) => boot.clone().unwrap_or_default(),
            // The entry was dropped with its table; the manager ends.
            Err(_) => String::new(),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        let mut table = self.sessions.table();
        let own = table.by_node.get_mut(&self.node).filter(|entry| entry.serial == self.serial);
        let Some(entry) = own else { return };
        let before = entry.progress.done();
        change(entry);
        if entry.progress.done() > before {
            self.sessions.0.progress.notify_one();
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut table = self.sessions.table();
        let own = table.by_node.get(&self.node).filter(|entry| entry.serial == self.serial);
        if let Some(heard) = own.map(|entry| entry.heard) {
            table.by_node.remove(&self.node);
            table.ended.insert(self.node, heard);
        }
    }
}
