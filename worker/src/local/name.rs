//! Names for containers that were given none.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use weft_model::State;

/// Words that two of make a name; no word begins another.
const FIRST: [&str; 40] = [
    "amber", "bold", "brave", "bright", "calm", "clever", "crisp", "deft", "eager", "early",
    "fair", "fleet", "gentle", "glad", "golden", "grand", "happy", "hardy", "honest", "keen",
    "kind", "light", "lively", "lucid", "merry", "mild", "neat", "noble", "patient", "plain",
    "proud", "quick", "quiet", "rapid", "sharp", "silent", "steady", "swift", "warm", "wise",
];
const SECOND: [&str; 40] = [
    "bobbin", "braid", "cable", "canvas", "cord", "cotton", "denim", "fabric", "felt", "fibre",
    "fringe", "gauze", "harness", "heddle", "hemp", "jute", "knot", "lace", "linen", "loom",
    "mesh", "muslin", "needle", "nettle", "plait", "reed", "ribbon", "rope", "satin", "seam",
    "shuttle", "silk", "spindle", "stitch", "tassel", "thread", "treadle", "twill", "velvet",
    "yarn",
];

/// Names that were chosen for containers which are being made, so that two made at once differ.
#[derive(Default)]
pub(super) struct Names {
    reserved: Mutex<BTreeSet<String>>,
}

/// A name that is kept for one container until this is dropped.
pub(super) struct Reserved<'a> {
    names: &'a Names,
    name: String,
}

impl Names {
    /// Chooses a name that no container has or is about to get. `state` reads the newest state.
    pub(super) fn reserve(&self, state: impl FnOnce() -> Arc<State>) -> Reserved<'_> {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: who has let go of a name since has it in this state.
        let state = state();
        let taken = |name: &str| {
            reserved.contains(name) || state.containers().any(|other| other.spec.name == name)
        };
        let name = free(taken);
        reserved.insert(name.clone());
        Reserved { names: self, name }
    }
}

impl Reserved<'_> {
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut reserved = self.names.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        reserved.remove(&self.name);
    }
}

/// A name of two words that `is_taken` does not know; with a number when chance fails.
fn free(is_taken: impl Fn(&str) -> bool) -> String {
    /// Tries before a number is put behind.
    const TRIES: usize = 8;
    let draw = || {
        let word = |words: &[&'static str]| words[rand::random_range(0..words.len())];
        format!("{}_{}", word(&FIRST), word(&SECOND))
    };
    let mut drawn = std::iter::repeat_with(draw);
    if let Some(name) = drawn.by_ref().take(TRIES).find(|name| !is_taken(name)) {
        return name;
    }
    let numbered = drawn.map(|name| format!("{name}{}", rand::random::<u16>()));
    numbered.into_iter().find(|name| !is_taken(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_new_also_when_all_pairs_are_taken() {
        let name = free(|name| !name.ends_with(|c: char| c.is_ascii_digit()));
        assert!(name.contains('_') && name.ends_with(|c: char| c.is_ascii_digit()), "{name}");
        assert!(free(|_| false).split('_').count() == 2);
    }

    #[test]
    fn names_of_containers_that_are_made_at_once_differ() {
        let names = Names::default();
        let pairs = FIRST.len() * SECOND.len();
        let held: Vec<_> = (0..pairs).map(|_| names.reserve(Arc::default)).collect();
        let different: BTreeSet<_> = held.iter().map(|reserved| reserved.name()).collect();
        assert_eq!(different.len(), pairs);
        drop(held);
        assert!(names.reserved.lock().expect("nobody panicked").is_empty());
    }
}
