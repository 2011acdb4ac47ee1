//! This node's end of the encrypted links between nodes.
//!
//! [`choice`] says what carries them, [`keys`] is the disk, [`KeyBook`] makes and forgets keys as the
//! managers ask, [`process`] is the engine where the kernel has none, [`links`] tells how they do,
//! [`place`] sees whether an address translator lies before this node.

pub mod choice;
mod keys;
pub mod links;
mod place;
pub mod process;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use tokio::sync::watch;
use weft_model::{Assignments, TunnelReport, tunnel::PublicKey};
use weft_overlay::wire::Key;

pub use choice::{Choice, NoWireguard, Wish};
pub use keys::KeyError;
pub(crate) use keys::parse as parse_key;
pub use links::Links;
pub use process::Process;

use crate::{
    desired::Sorted,
    plumbing::{Assigned, Source, Standing},
    session::Contact,
};

/// The generation of a node's first key.
const FIRST: u64 = 1;

/// This node's end: what carries the links, the keys there are, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// What carries them.
    pub choice: Choice,
    /// The private halves, by generation.
    pub keys: BTreeMap<u64, Key>,
    /// Whether others see it at an address that is not its own: an address translator forgets it when it
    /// is silent, and then nobody can reach it.
    pub translated: bool,
}

impl End {
    /// What the managers are told.
    pub fn report(&self) -> TunnelReport {
        let public = |(generation, key): (&u64, &Key)| (*generation, PublicKey(key.public().0));
        TunnelReport {
            engine: self.choice.engine,
            reason: self.choice.reason.clone(),
            lanes: self.choice.lanes,
            keys: self.keys.iter().map(public).collect(),
        }
    }
}

/// The node's keys. What it tells is on the disk.
#[derive(Debug)]
pub struct KeyBook {
    files: keys::Files,
    end: watch::Sender<Arc<End>>,
}

impl KeyBook {
    /// Reads the keys of a state directory.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn open(state_dir: &Path, choice: Choice) -> Result<Self, KeyError> {
        let files = keys::Files::new(state_dir);
        let keys = files.load()?;
        let end = End { choice, keys, translated: false };
        Ok(Self { files, end: watch::Sender::new(Arc::new(end)) })
    }

    /// This node's end, and later changes.
    pub fn end(&self) -> watch::Receiver<Arc<End>> {
        self.end.subscribe()
    }

    /// Makes a first key if there is none: the one that these assignments ask for, if they do.
    pub fn begin(&self, kept: &Assignments) {
        if self.end.borrow().keys.is_empty() {
            self.make(&asked(kept).unwrap_or_else(|| vec![FIRST]));
        }
    }

    /// Forgets all keys: the node is in no cluster any more.
    pub fn erase(&self) {
        if let Err(error) = self.files.erase() {
            tracing::error!(error = %with_cause(&error), "WireGuard keys are not removed");
        }
        self.change(|end| end.keys.clear());
    }

    /// Notes where the managers see this node, for ever.
    pub async fn follow_place(self: Arc<Self>, mut contact: watch::Receiver<Contact>) {
        loop {
            let seen_from = contact.borrow_and_update().seen_from;
            // Not known is not another place: a node without managers stays where it was.
            if let Some(translated) = seen_from.and_then(place::is_translated) {
                self.change(|end| end.translated = translated);
            }
            if contact.changed().await.is_err() {
                return;
            }
        }
    }

    /// Does what the managers ask, for ever.
    pub async fn follow(
        self: Arc<Self>,
        mut assigned: watch::Receiver<Assigned>,
        mut standing: watch::Receiver<Standing>,
    ) {
        let mut newest = 0;
        loop {
            let (source, assignments) = assigned.borrow_and_update().clone();
            let applied = standing.borrow_and_update().revision;
            match source {
                Source::Managers => {
                    newest = newest.max(assignments.revision);
                    self.agree(&assignments, newest, applied);
                }
                Source::Kept => newest = newest.max(assignments.revision),
                // The next cluster counts its own revisions.
                Source::Alone => newest = 0,
                Source::None => {}
            }
            let changed = tokio::select! {
                changed = assigned.changed() => changed,
                changed = standing.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Makes the keys that are asked for, and forgets the others once nothing uses them, which is when
    /// the revision that does not ask for them is `applied`. It is the `newest`: an old leader that does
    /// not know yet may tell of an older state, and what that does not ask for may be in use.
    fn agree(&self, assignments: &Assignments, newest: u64, applied: u64) {
        let Some(asked) = asked(assignments) else { return };
        self.make(&asked);
        if assignments.revision >= newest && applied >= assignments.revision {
            self.forget_all_but(&asked);
        }
    }

    fn make(&self, asked: &[u64]) {
        for generation in asked {
            if self.end.borrow().keys.contains_key(generation) {
                continue;
            }
            match self.files.make(*generation) {
                Ok(key) => {
                    tracing::info!(generation, "a WireGuard key is made");
                    self.change(|end| {
                        end.keys.insert(*generation, key);
                    });
                }
                Err(error) => {
                    tracing::error!(generation, error = %with_cause(&error), "no WireGuard key");
                }
            }
        }
    }

    fn forget_all_but(&self, asked: &[u64]) {
        let unasked = |generation: &u64| !asked.contains(generation);
        let old: Vec<u64> = self.end.borrow().keys.keys().copied().filter(unasked).collect();
        for generation in old {
            match self.files.forget(generation) {
                Ok(()) => {
                    tracing::info!(generation, "a WireGuard key is forgotten");
                    self.change(|end| {
                        end.keys.remove(&generation);
                    });
                }
                Err(error) => {
                    tracing::error!(generation, error = %with_cause(&error), "a key is kept");
                }
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut End)) {
        self.end.send_if_modified(|end| {
            let mut next = End::clone(end);
            change(&mut next);
            let changed = next != **end;
            *end = Arc::new(next);
            changed
        });
    }
}

/// The generations that the managers ask for; none before they know a key of this node.
fn asked(assignments: &Assignments) -> Option<Vec<u64>> {
    let tunnel = Sorted::new(assignments).node?.tunnel.as_ref()?;
    Some(tunnel.generations.clone())
}

fn with_cause(error: &KeyError) -> String {
    format!("{error}: {}", error.source)
}

#[cfg(test)]
mod tests {
    use weft_model::{
        NodeId,
        assignments::{Item, Key as On, NodeItem, TunnelItem},
        spec::Role,
    };

    use super::*;

    fn asks(revision: u64, generations: &[u64]) -> Assignments {
        let node = NodeItem {
            id: NodeId::from_bytes([1; 32]),
            role: Role::Worker,
            data_path: "10.0.0.1".parse().unwrap(),
            number: 1,
            tunnel: Some(TunnelItem { generations: generations.to_vec() }),
        };
        Assignments { revision, items: [(On::Node, Item::Node(node))].into() }
    }

    fn has(book: &KeyBook) -> Vec<u64> {
        book.end().borrow().keys.keys().copied().collect()
    }

    #[test]
    fn a_key_is_made_when_asked_for_and_forgotten_when_nothing_uses_it() {
        let state = tempfile::tempdir().unwrap();
        let book = KeyBook::open(state.path(), Choice::in_memory()).unwrap();
        book.begin(&Assignments::default());
        assert_eq!(has(&book), [1]);
        let first = book.end().borrow().report();
        book.begin(&asks(1, &[7]));
        assert_eq!(has(&book), [1], "there is one already");
        book.agree(&asks(4, &[1, 2]), 4, 4);
        assert_eq!(has(&book), [1, 2]);
        book.agree(&asks(9, &[2]), 9, 8);
        assert_eq!(has(&book), [1, 2], "the former one may be in use");
        book.agree(&asks(9, &[2]), 9, 9);
        assert_eq!(has(&book), [2]);
        let again = KeyBook::open(state.path(), Choice::in_memory()).unwrap();
        assert_eq!(*again.end().borrow(), *book.end().borrow());
        assert_ne!(first.keys[&1], again.end().borrow().report().keys[&2]);
        book.erase();
        assert!(has(&book).is_empty());
        book.begin(&asks(9, &[2]));
        assert_eq!(has(&book), [2], "what the managers believe in is made anew");
    }

    #[tokio::test]
    async fn a_node_that_is_seen_elsewhere_is_behind_a_translator_until_it_is_not() {
        let state = tempfile::tempdir().unwrap();
        let book = Arc::new(KeyBook::open(state.path(), Choice::in_memory()).unwrap());
        let seen = |from: Option<&str>| Contact {
            seen_from: from.map(|ip| ip.parse().unwrap()),
            ..Contact::default()
        };
        let (tell, contact) = watch::channel(seen(None));
        let following = tokio::spawn(Arc::clone(&book).follow_place(contact));
        let mut end = book.end();
        // An address for documentation (RFC 5737), which no machine has.
        tell.send_replace(seen(Some("203.0.113.7")));
        end.wait_for(|end| end.translated).await.unwrap();
        tell.send_replace(seen(None));
        tokio::task::yield_now().await;
        assert!(end.borrow().translated, "who is in no session does not know better");
        tell.send_replace(seen(Some("127.0.0.1")));
        end.wait_for(|end| !end.translated).await.unwrap();
        drop(tell);
        following.await.unwrap();
    }

    #[tokio::test]
    async fn an_older_word_of_the_managers_takes_no_key_away() {
        let state = tempfile::tempdir().unwrap();
        let book = Arc::new(KeyBook::open(state.path(), Choice::in_memory()).unwrap());
        book.begin(&Assignments::default());
        let (tell, assigned) = watch::channel((Source::Managers, Arc::new(asks(5, &[1, 2]))));
        let (_applied, standing) =
            watch::channel(Standing { revision: 100, ..Standing::default() });
        let following = tokio::spawn(Arc::clone(&book).follow(assigned, standing));
        let mut end = book.end();
        let second = end.wait_for(|end| end.keys.len() == 2).await.unwrap().keys[&2];
        tell.send_replace((Source::Managers, Arc::new(asks(4, &[1]))));
        // There is one thread: the other task looks now.
        tokio::task::yield_now().await;
        tell.send_replace((Source::Managers, Arc::new(asks(6, &[2, 3]))));
        end.wait_for(|end| end.keys.contains_key(&3)).await.unwrap();
        end.wait_for(|end| !end.keys.contains_key(&1)).await.unwrap();
        assert_eq!((has(&book), end.borrow().keys[&2]), (vec![2, 3], second));
        drop(tell);
        following.await.unwrap();
    }
}
