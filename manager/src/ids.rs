//! Where new identifiers come from.
//!
//! Whoever makes an object is handed a source, so that a test or a simulation that starts from one
//! seed names everything the same way twice.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// A source of bytes that no two objects share.
pub trait IdSource: Send {
    /// 32 bytes that were never given before.
    fn bytes(&mut self) -> [u8; 32];
}

/// Bytes drawn from a cryptographic generator with a fixed beginning.
#[derive(Debug)]
pub struct SeededIds(StdRng);

impl SeededIds {
    /// The same seed gives the same sequence.
    pub fn new(seed: [u8; 32]) -> Self {
        Self(StdRng::from_seed(seed))
    }

    /// A sequence that starts from the system's randomness.
    pub fn random() -> Self {
        Self::new(rand::random())
    }
}

impl IdSource for SeededIds {
    fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_the_sequence_and_nothing_repeats() {
        let (mut one, mut same, mut other) =
            (SeededIds::new([1; 32]), SeededIds::new([1; 32]), SeededIds::new([2; 32]));
        let first: Vec<_> = (0..100).map(|_| one.bytes()).collect();
        assert_eq!(first, (0..100).map(|_| same.bytes()).collect::<Vec<_>>());
        assert_ne!(first[0], other.bytes());
        let distinct: std::collections::BTreeSet<_> = first.iter().collect();
        assert_eq!(distinct.len(), first.len());
    }
}
