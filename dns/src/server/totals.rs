//! What all sandboxes of a server have asked together, and how long upstream servers took. The counts go
//! on when a sandbox goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::wire::Rcode;

/// Upper ends of the classes that waits for upstream servers are counted in; one more is above all.
pub const WAITS: [Duration; 8] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(1000),
    Duration::from_millis(4000),
    Duration::from_millis(12_000),
];
/// Classes of waits.
const CLASSES: usize = WAITS.len() + 1;

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From our own names; a refusal too.
    Own,
    /// From what an upstream server has said a short while ago.
    Kept,
    /// From an upstream server, or from us because none answered.
    Upstream,
}

impl Origin {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Own, Self::Kept, Self::Upstream];
}

/// What an answer says, as far as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Found, or known to have no such record.
    NoError,
    /// There is no such name.
    NxDomain,
    /// Cannot be known now.
    ServFail,
    /// Not allowed, or too many at once.
    Refused,
    /// Anything else.
    Other,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::NoError, Self::NxDomain, Self::ServFail, Self::Refused, Self::Other];

    /// Of a reply in wire form (RFC 1035, section 4.1.1: the low half of the fourth byte).
    fn of(reply: &[u8]) -> Self {
        match reply.get(3).map(|byte| byte & 0x0f) {
            Some(code) if code == Rcode::NoError as u8 => Self::NoError,
            Some(code) if code == Rcode::NxDomain as u8 => Self::NxDomain,
            Some(code) if code == Rcode::ServFail as u8 => Self::ServFail,
            Some(code) if code == Rcode::Refused as u8 => Self::Refused,
            Some(_) | None => Self::Other,
        }
    }
}

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    answers: [[AtomicU64; Outcome::ALL.len()]; Origin::ALL.len()],
    unanswered: AtomicU64,
    waits: [AtomicU64; CLASSES],
    /// Sum of them, nanoseconds.
    waited: AtomicU64,
}

/// The counts at one moment, since the server's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    answers: [[u64; Outcome::ALL.len()]; Origin::ALL.len()],
    /// Messages that were no question, and got no answer.
    pub unanswered: u64,
    /// Waits for upstream servers by class; see [`WAITS`].
    pub waits: [u64; CLASSES],
    /// Sum of the waits.
    pub waited: Duration,
}

impl Totals {
    /// Answers of this origin that said this.
    pub fn answers(&self, origin: Origin, outcome: Outcome) -> u64 {
        self.answers[origin as usize][outcome as usize]
    }
}

impl Counts {
    pub(crate) fn answered(&self, origin: Origin, reply: &[u8]) {
        let counter = &self.answers[origin as usize][Outcome::of(reply) as usize];
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn unanswered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn waited(&self, time: Duration) {
        let class = WAITS.iter().position(|end| time <= *end).unwrap_or(WAITS.len());
        self.waits[class].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.waited.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            answers: self.answers.each_ref().map(|row| row.each_ref().map(read)),
            unanswered: read(&self.unanswered),
            waits: self.waits.each_ref().map(read),
            waited: Duration::from_nanos(read(&self.waited)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_read_where_it_belongs() {
        let counts = Counts::default();
        counts.answered(Origin::Own, &[0, 0, 0x81, 0x80]);
        counts.answered(Origin::Upstream, &[0, 0, 0x81, 0x83]);
        counts.answered(Origin::Kept, &[]);
        counts.unanswered();
        counts.waited(Duration::from_millis(1));
        counts.waited(Duration::from_secs(60));
        let totals = counts.read();
        assert_eq!(totals.answers(Origin::Own, Outcome::NoError), 1);
        assert_eq!(totals.answers(Origin::Upstream, Outcome::NxDomain), 1);
        assert_eq!(totals.answers(Origin::Kept, Outcome::Other), 1);
        let all = Origin::ALL.into_iter().flat_map(|origin| Outcome::ALL.map(|o| (origin, o)));
        assert_eq!(all.map(|(origin, outcome)| totals.answers(origin, outcome)).sum::<u64>(), 3);
        assert_eq!((totals.waits[0], totals.waits[CLASSES - 1], totals.unanswered), (1, 1, 1));
        assert_eq!(totals.waited, Duration::from_millis(60_001));
    }
}
