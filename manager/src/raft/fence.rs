//! Who may speak in the cluster: the pure rule.
//!
//! Raft is only safe when a store never forgets. A store that was wiped, restored from an older
//! image, or copied, answers in good faith and can still elect a leader without the committed
//! log. So every message carries who the sender is *as a store*, and whoever remembers something
//! better refuses it before the Raft library sees it.
//!
//! Three signs, from strong to helpful:
//! - the **incarnation**, drawn once when a store is made and written in the replicated
//!   membership: a wiped store has another one;
//! - the **generation**, one more at every start, with a random nonce: a restored or copied store
//!   starts with a number that is already taken;
//! - the **mark** ([`Mark`]), which only grows: a store restored within one run shows less than
//!   it has shown before.
//!
//! The last two are remembered by the peers, on disk, and passed on with every message; a
//! cluster whose peers all forgot cannot notice.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use super::mark::Mark;

/// The random name of one store, drawn when it is made.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Text that is not what [`Incarnation`] prints.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no storage incarnation; it has {INCARNATION_DIGITS} hex digits")]
pub struct NotAnIncarnation {
    pub text: String,
}

const INCARNATION_DIGITS: usize = 16;

impl FromStr for Incarnation {
    type Err = NotAnIncarnation;

    fn from_str(text: &str) -> Result<Self, NotAnIncarnation> {
        let wrong = || NotAnIncarnation { text: text.to_owned() };
        let digits = text.bytes().all(|digit| digit.is_ascii_hexdigit());
        if text.len() != INCARNATION_DIGITS || !digits {
            return Err(wrong());
        }
        u64::from_str_radix(text, 16).map(Incarnation).map_err(|_| wrong())
    }
}

/// One start of one store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    pub incarnation: Incarnation,
    /// Starts of this store so far.
    pub generation: u64,
    /// Random, so that two starts with one number are told apart.
    pub nonce: u64,
}

/// What is known of a store: its newest start and the best mark it has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    pub boot: Boot,
    pub mark: Mark,
}

/// Why a message was refused before the Raft library saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error("the message is for cluster {got}, this manager belongs to {own}")]
    WrongCluster { own: String, got: String },
    #[error("the message is for manager {got}, this is manager {own}")]
    WrongTarget { own: u64, got: u64 },
    #[error("the message says it is from manager {claimed}, the connection is manager {proved}'s")]
    WrongSender { claimed: u64, proved: u64 },
    #[error(
        "storage incarnation of manager {number} changed: the cluster knows {expected}, it shows \
         {shown}; its store was wiped or swapped, run `manager replace`"
    )]
    IncarnationChanged { number: u64, expected: Incarnation, shown: Incarnation },
    #[error(
        "manager {number} started from an old store: start {newest} was seen, it shows start \
         {shown}; its store was restored or copied, run `manager replace`"
    )]
    OldStart { number: u64, newest: u64, shown: u64 },
    #[error(
        "two processes run as manager {number} (start {generation}); its store was copied, stop \
         one and run `manager replace`"
    )]
    Copied { number: u64, generation: u64 },
    #[error(
        "manager {number} lost log it had: term {} index {} was seen, it shows term {} index {}; \
         its store was rolled back, run `manager replace`",
        .known.term, .known.index, .shown.term, .shown.index
    )]
    RolledBack { number: u64, known: Mark, shown: Mark },
    #[error("the message cannot be read: {reason}")]
    Unreadable { reason: String },
    #[error("the message holds a command this version does not know: {reason}")]
    UnknownCommand { reason: String },
    #[error("snapshot piece at {got} does not follow {have}")]
    OutOfOrder { have: u64, got: u64 },
    #[error("the snapshot of {size} bytes is over the limit of {limit}")]
    SnapshotTooBig { size: u64, limit: u64 },
    #[error("the disk of manager {number} is full: {free} bytes left")]
    NoRoom { number: u64, free: u64 },
    #[error("the store has stopped: {reason}")]
    Stopped { reason: String },
}

impl Refusal {
    /// Whether it says that the store of manager `number` must not take part again.
    pub fn condemns(&self, number: u64) -> bool {
        match self {
            Refusal::IncarnationChanged { number: n, .. }
            | Refusal::OldStart { number: n, .. }
            | Refusal::Copied { number: n, .. }
            | Refusal::RolledBack { number: n, .. } => *n == number,
            Refusal::WrongCluster { .. }
            | Refusal::WrongTarget { .. }
            | Refusal::WrongSender { .. }
            | Refusal::Unreadable { .. }
            | Refusal::UnknownCommand { .. }
            | Refusal::OutOfOrder { .. }
            | Refusal::SnapshotTooBig { .. }
            | Refusal::NoRoom { .. }
            | Refusal::Stopped { .. } => false,
        }
    }
}

/// Compares what a store shows with what is known of it.
///
/// # Errors
/// The refusal that names what is wrong; an equal or better showing is let through.
pub fn compare(number: u64, known: &Known, shown: &Known) -> Result<(), Refusal> {
    let (old, new) = (known.boot, shown.boot);
    if old.incarnation != new.incarnation {
        return Err(Refusal::IncarnationChanged {
            number,
            expected: old.incarnation,
            shown: new.incarnation,
        });
    }
    if new.generation < old.generation {
        return Err(Refusal::OldStart { number, newest: old.generation, shown: new.generation });
    }
    if new.generation == old.generation && new.nonce != old.nonce {
        return Err(Refusal::Copied { number, generation: new.generation });
    }
    // Messages of one start overtake each other; only a new start has read the disk again.
    if new.generation > old.generation && shown.mark < known.mark {
        return Err(Refusal::RolledBack { number, known: known.mark, shown: shown.mark });
    }
    Ok(())
}

/// What this manager remembers of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    known: BTreeMap<u64, Known>,
}

/// Managers remembered at most; far above any sane number of managers, it bounds what a
/// misbehaving peer can make us keep.
pub const MAX_REMEMBERED: usize = 64;

impl Fence {
    /// What is remembered of manager `number`.
    pub fn known(&self, number: u64) -> Option<Known> {
        self.known.get(&number).copied()
    }

    /// All that is remembered.
    pub fn all(&self) -> &BTreeMap<u64, Known> {
        &self.known
    }

    /// Checks a message of manager `number` that shows `shown`, and remembers it. `expected` is
    /// the incarnation that the membership names, if it names this manager.
    ///
    /// # Errors
    /// The refusal; nothing is remembered then.
    pub fn admit(
        &mut self,
        number: u64,
        shown: Known,
        expected: Option<Incarnation>,
    ) -> Result<(), Refusal> {
        if let Some(expected) = expected.filter(|expected| *expected != shown.boot.incarnation) {
            return Err(Refusal::IncarnationChanged {
                number,
                expected,
                shown: shown.boot.incarnation,
            });
        }
        if let Some(known) = self.current(number, expected) {
            compare(number, &known, &shown)?;
        }
        self.remember(number, shown, expected);
        Ok(())
    }

    /// Takes over what another manager remembers. Only additions that agree with the membership
    /// and are not behind ours count; hearsay never refuses anybody by itself.
    pub fn hear(&mut self, number: u64, told: Known, expected: Option<Incarnation>) {
        if expected != Some(told.boot.incarnation) {
            return;
        }
        let better = match self.current(number, expected) {
            None => true,
            // Within one start the marks grow; a new start begins where the old one ended.
            Some(known) => compare(number, &known, &told).is_ok(),
        };
        if better {
            self.remember(number, told, expected);
        }
    }

    /// What is remembered of the store the membership names now: after `manager replace` the
    /// number has a new incarnation, and what the old store has shown is void.
    fn current(&self, number: u64, expected: Option<Incarnation>) -> Option<Known> {
        let known = self.known(number)?;
        match expected {
            Some(expected) if expected != known.boot.incarnation => None,
            Some(_) | None => Some(known),
        }
    }

    fn remember(&mut self, number: u64, shown: Known, expected: Option<Incarnation>) {
        let mark = self.current(number, expected).map_or(shown.mark, |k| k.mark.max(shown.mark));
        if self.known.len() < MAX_REMEMBERED || self.known.contains_key(&number) {
            self.known.insert(number, Known { boot: shown.boot, mark });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STORE: Incarnation = Incarnation(0xa);

    fn shown(
        incarnation: Incarnation,
        generation: u64,
        nonce: u64,
        term: u64,
        index: u64,
    ) -> Known {
        Known { boot: Boot { incarnation, generation, nonce }, mark: Mark { term, index } }
    }

    fn fence() -> Fence {
        let mut fence = Fence::default();
        assert_eq!(fence.admit(2, shown(STORE, 5, 77, 3, 40), Some(STORE)), Ok(()));
        fence
    }

    #[test]
    fn what_is_let_through_and_what_is_not() {
        use Refusal::{Copied, IncarnationChanged, OldStart, RolledBack};
        let wiped = Incarnation(0xb);
        let mark = |term, index| Mark { term, index };
        let table = [
            ("same start, further", shown(STORE, 5, 77, 3, 41), Ok(())),
            ("same start, an older message", shown(STORE, 5, 77, 3, 39), Ok(())),
            ("next start, same log", shown(STORE, 6, 78, 3, 40), Ok(())),
            ("next start, next term", shown(STORE, 6, 78, 4, 0), Ok(())),
            (
                "wiped",
                shown(wiped, 1, 1, 0, 0),
                Err(IncarnationChanged { number: 2, expected: STORE, shown: wiped }),
            ),
            (
                "an image from before a start",
                shown(STORE, 4, 9, 3, 40),
                Err(OldStart { number: 2, newest: 5, shown: 4 }),
            ),
            ("a copy", shown(STORE, 5, 9, 3, 40), Err(Copied { number: 2, generation: 5 })),
            (
                "an image from within the start",
                shown(STORE, 6, 9, 3, 39),
                Err(RolledBack { number: 2, known: mark(3, 40), shown: mark(3, 39) }),
            ),
            (
                "a lost vote",
                shown(STORE, 6, 9, 2, 99),
                Err(RolledBack { number: 2, known: mark(3, 40), shown: mark(2, 99) }),
            ),
        ];
        for (name, shown, verdict) in table {
            let mut fence = fence();
            assert_eq!(fence.admit(2, shown, Some(STORE)), verdict, "{name}");
            if verdict.is_err() {
                assert_eq!(fence, self::fence(), "{name}: a refused message leaves no trace");
            }
        }
    }

    #[test]
    fn a_replaced_manager_starts_afresh() {
        let new = Incarnation(0xc);
        let mut fence = fence();
        assert_eq!(fence.admit(2, shown(new, 1, 1, 0, 0), Some(new)), Ok(()));
        assert!(fence.admit(2, shown(STORE, 9, 1, 9, 9), Some(new)).is_err());
    }

    #[test]
    fn hearsay_adds_but_never_takes_away() {
        let mut fence = fence();
        fence.hear(2, shown(STORE, 4, 1, 1, 1), Some(STORE));
        assert_eq!(fence, self::fence(), "older hearsay");
        fence.hear(2, shown(Incarnation(9), 9, 1, 9, 9), Some(STORE));
        assert_eq!(fence, self::fence(), "hearsay of a store the membership does not know");
        fence.hear(2, shown(STORE, 5, 77, 3, 50), Some(STORE));
        assert_eq!(fence.known(2).map(|k| k.mark.index), Some(50));
    }

    #[test]
    fn memory_is_bounded() {
        let mut fence = Fence::default();
        for number in 0..1000 {
            let _ = fence.admit(number, shown(STORE, 1, 1, 1, 1), None);
        }
        assert_eq!(fence.all().len(), MAX_REMEMBERED);
    }

    proptest! {
        #[test]
        fn an_incarnation_is_read_as_it_is_printed(bits: u64) {
            let incarnation = Incarnation(bits);
            prop_assert_eq!(incarnation.to_string().parse(), Ok(incarnation));
        }

        #[test]
        fn other_text_is_no_incarnation(text in "[+0-9a-g]{0,18}") {
            if let Ok(incarnation) = text.parse::<Incarnation>() {
                prop_assert_eq!(incarnation.to_string(), text);
            }
        }

        // A store that keeps its promises is never refused, whatever is lost or overtaken.
        #[test]
        fn an_honest_store_is_never_refused(
            steps in prop::collection::vec((0_u8..4, 1_u64..5), 1..40),
            heard: u64,
        ) {
            let mut own = shown(STORE, 1, 1, 1, 0);
            let mut fence = Fence::default();
            for (n, (what, by)) in steps.iter().enumerate() {
                match what {
                    0 => own.mark.index += by,
                    1 => own.mark = Mark { term: own.mark.term + by, index: 0 },
                    2 => {
                        own.boot.generation += by;
                        own.boot.nonce += 1;
                    }
                    _ => {}
                }
                // Some messages never arrive.
                if heard >> (n % 64) & 1 == 1 {
                    prop_assert_eq!(fence.admit(2, own, Some(STORE)), Ok(()));
                }
            }
        }
    }
}
