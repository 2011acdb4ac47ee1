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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const QUESTION: usize = 4 + 5;

    fn foreign(name: [u8; 3]) -> Foreign {
        let question = [&[3], &name[..], &[0, 0, 1, 0, 1]].concat();
        Foreign { id: 1, flags: 0, question, edns: None, limit: 512 }
    }

    /// An answer with one address and this TTL.
    fn relay(ttl: u8) -> Arc<Relay> {
        let mut message = vec![0, 0, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0];
        message.extend(foreign(*b"abc").question);
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, ttl, 0, 4, 1, 2, 3, 4]);
        Arc::new(Relay::new(&message, QUESTION).unwrap())
    }

    fn numbered(at: usize) -> Key {
        let server = ([192, 0, 2, 1], u16::try_from(at).unwrap());
        Key::new(&[server.into()], &foreign(*b"abc"))
    }

    #[test]
    fn an_answer_is_kept_until_its_time() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        let key = Key::new(&[], &foreign(*b"abc"));
        cache.insert(key.clone(), relay(10), start);
        let at = |cache: &mut Cache, seconds: u64| {
            let (relay, age) = cache.get(&key, start + Duration::from_secs(seconds))?;
            let reply = relay.reply(&foreign(*b"aBC"), age);
            Some(crate::wire::u32_at(&reply, 12 + QUESTION + 6).unwrap())
        };
        assert_eq!(at(&mut cache, 0), Some(10));
        assert_eq!(at(&mut cache, 9), Some(1));
        assert_eq!(at(&mut cache, 10), None);
        assert!(cache.entries.is_empty() && cache.by_use.is_empty());
    }

    #[test]
    fn the_least_recently_used_leaves_first() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for at in 0..CACHE_ENTRIES {
            cache.insert(numbered(at), relay(10), now);
        }
        assert!(cache.get(&numbered(0), now).is_some());
        cache.insert(numbered(CACHE_ENTRIES), relay(10), now);
        cache.insert(numbered(CACHE_ENTRIES), relay(10), now);
        assert!(cache.get(&numbered(0), now).is_some());
        assert!(cache.get(&numbered(1), now).is_none());
        assert!(cache.get(&numbered(2), now).is_some());
        assert_eq!((cache.entries.len(), cache.by_use.len()), (CACHE_ENTRIES, CACHE_ENTRIES));
    }

    #[test]
    fn what_the_answer_depends_on_is_in_the_key() {
        let edns = |dnssec| Some(crate::wire::query::Edns { size: 512, dnssec });
        let plain = foreign(*b"abc");
        let server: SocketAddr = "192.0.2.1:53".parse().unwrap();
        let key = Key::new(&[server], &plain);
        let upper = Foreign { edns: edns(false), id: 9, ..foreign(*b"ABC") };
        assert_eq!(key, Key::new(&[server], &upper));
        let mut other_type = plain.clone();
        // Types 65 and 97 are the letters A and a.
        other_type.question[QUESTION - 4] = 65;
        let mut lower_type = plain.clone();
        lower_type.question[QUESTION - 4] = 97;
        assert_ne!(Key::new(&[server], &other_type), Key::new(&[server], &lower_type));
        assert_ne!(key, Key::new(&[], &plain));
        assert_ne!(key, Key::new(&[server], &Foreign { edns: edns(true), ..plain.clone() }));
        assert_ne!(key, Key::new(&[server], &Foreign { flags: flag::CD, ..plain }));
    }
}
