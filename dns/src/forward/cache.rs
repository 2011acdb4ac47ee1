//! Answers of upstream servers, kept as long as they say, the least recently used leaving first.
//! Pure; the time comes in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::relay::Relay;
use crate::answer::Foreign;
use crate::limits::{CACHE_ENTRIES, CACHE_MESSAGE};
use crate::wire::flag;

/// What an answer depends on: who was asked what, and with which wishes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    question: Vec<u8>,
    flags: u16,
    dnssec: bool,
    servers: Vec<SocketAddr>,
}

impl Key {
    pub(super) fn new(servers: &[SocketAddr], foreign: &Foreign) -> Self {
        Self {
            question: lowered(&foreign.question),
            flags: foreign.flags & (flag::RD | flag::AD | flag::CD),
            dnssec: foreign.edns.is_some_and(|edns| edns.dnssec),
            servers: servers.to_vec(),
        }
    }
}

/// The question with its name in lower case. Length bytes are below any letter; the last four
/// bytes, type and class, are numbers and stay.
fn lowered(question: &[u8]) -> Vec<u8> {
    let mut question = question.to_vec();
    let name = question.len().saturating_sub(4);
    question[..name].make_ascii_lowercase();
    question
}

#[derive(Debug)]
struct Entry {
    relay: Arc<Relay>,
    stored: Instant,
    until: Instant,
    used: u64,
}

/// The table. `by_use` has the same entries in the order of their last use.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: BTreeMap<Arc<Key>, Entry>,
    by_use: BTreeMap<u64, Arc<Key>>,
    uses: u64,
}

impl Cache {
    /// The answer and its age in seconds.
    pub(super) fn get(&mut self, key: &Key, now: Instant) -> Option<(Arc<Relay>, u32)> {
        let entry = self.entries.get_mut(key)?;
        if entry.until <= now {
            let used = entry.used;
            self.remove(used);
            return None;
        }
        self.uses += 1;
        if let Some(key) = self.by_use.remove(&entry.used) {
            self.by_use.insert(self.uses, key);
        }
        entry.used = self.uses;
        let age = now.saturating_duration_since(entry.stored).as_secs();
        Some((entry.relay.clone(), u32::try_from(age).unwrap_or(u32::MAX)))
    }

    /// Keeps an answer that says it may be kept and is not too large.
    pub(super) fn insert(&mut self, key: Key, relay: Arc<Relay>, now: Instant) {
        let Some(keep) = relay.keep().filter(|_| relay.len() <= CACHE_MESSAGE) else { return };
        if let Some(old) = self.entries.get(&key) {
            let used = old.used;
            self.remove(used);
        }
        if self.entries.len() >= CACHE_ENTRIES
            && let Some((&oldest, _)) = self.by_use.first_key_value()
        {
            self.remove(oldest);
        }
        self.uses += 1;
        let key = Arc::new(key);
        self.by_use.insert(self.uses, key.clone());
        let entry = Entry { relay, stored: now, until: now + keep, used: self.uses };
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, used: u64) {
        if let Some(key) = self.by_use.remove(&used) {
            self.entries.remove(&key);
        }
    }
}
