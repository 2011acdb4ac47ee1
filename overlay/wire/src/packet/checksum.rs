//! The Internet checksum (RFC 1071).
//!
//! Words are added as the machine reads them: a ones' complement sum does not depend on the order of
//! bytes (section 2 (B)), so that nothing is swapped. Eight bytes are added as two halves to sums of
//! 64 bits, which cannot overflow on 64 KiB and which every compiler turns into vector instructions.

/// A sum that is not folded yet. Everything but the last part of what it covers has an even length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

/// Bytes that are added in one round: four independent sums hide the latency of an addition.
const ROUND: usize = 32;

impl Sum {
    /// With these bytes added; a last single byte counts as if a zero followed.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        if bytes.len() < ROUND {
            return Self(self.0 + short(bytes));
        }
        let mut lanes = Lanes::default();
        let (rounds, rest) = bytes.as_chunks();
        for round in rounds {
            lanes.add(round);
        }
        Self(self.0 + lanes.total() + short(rest))
    }

    /// With these bytes added while they are copied to `to`, which has the same length.
    #[must_use]
    pub fn copied(self, bytes: &[u8], to: &mut [u8]) -> Self {
        let mut lanes = Lanes::default();
        let (rounds, rest) = bytes.as_chunks();
        let (to_rounds, to_rest) = to.as_chunks_mut();
        for (round, to) in rounds.iter().zip(to_rounds) {
            *to = *round;
            lanes.add(round);
        }
        to_rest.copy_from_slice(rest);
        Self(self.0 + lanes.total() + short(rest))
    }

    /// With another sum added.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// With a number of 16 bits added.
    #[must_use]
    pub fn word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word.to_be()))
    }

    /// With a number of 16 bits taken away (RFC 1624).
    #[must_use]
    pub fn less(self, word: u16) -> Self {
        self.word(!word)
    }

    /// In 16 bits, as it lies in a packet whose checksum is not finished.
    pub fn partial(self) -> [u8; 2] {
        self.folded().to_ne_bytes()
    }

    /// The checksum, as it lies in a packet.
    pub fn finish(self) -> [u8; 2] {
        (!self.folded()).to_ne_bytes()
    }

    /// The checksum of UDP, where zero means that there is none (RFC 768); also right in TCP.
    pub fn finish_not_zero(self) -> [u8; 2] {
        match self.finish() {
            [0, 0] => [0xff, 0xff],
            sum => sum,
        }
    }

    /// Whether what was added includes its right checksum.
    pub fn is_right(self) -> bool {
        self.folded() == u16::MAX
    }

    fn folded(self) -> u16 {
        // 33 bits, 32, 17, 16.
        let sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        let sum = (sum >> 32) + (sum & 0xffff_ffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        ((sum >> 16) + (sum & 0xffff)) as u16
    }
}

#[derive(Default)]
struct Lanes {
    low: [u64; ROUND / 8],
    high: [u64; ROUND / 8],
}

impl Lanes {
    #[inline(always)]
    fn add(&mut self, round: &[u8; ROUND]) {
        let (words, _) = round.as_chunks();
        for ((low, high), word) in self.low.iter_mut().zip(&mut self.high).zip(words) {
            let word = u64::from_ne_bytes(*word);
            *low += word & 0xffff_ffff;
            *high += word >> 32;
        }
    }

    fn total(&self) -> u64 {
        self.low.iter().chain(&self.high).sum()
    }
}

/// The sum of fewer bytes than a round.
#[inline]
fn short(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    sum + u64::from(u32::from_ne_bytes(last))
}
