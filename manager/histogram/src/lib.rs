//! A histogram of powers of two, for the statistics that the Raft library keeps of itself.
//!
//! The library uses a crate of this name, which builds 27 MB of tables when the first histogram is
//! made, in every manager. Nobody here reads those statistics, so this small one stands in for it,
//! through `[patch.crates-io]`: the same interface as far as the library uses it, and 2 kB for each
//! histogram. To be dropped when the library's own needs no more.
#![forbid(unsafe_code)]

use std::{fmt, marker::PhantomData};

/// Each power of two is divided into so many buckets, so that a percentile is at most an eighth off.
const PARTS: u64 = 4;
/// Bits of [`PARTS`].
const PART_BITS: u32 = PARTS.ilog2();
/// Buckets for all values of 64 bits.
const BUCKETS: usize = (64 * PARTS) as usize;

/// Counts of values, by magnitude. The parameter is what the library would label time slots with; it
/// has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Vec<u64>,
    total: u64,
    slot: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// One without values.
    #[must_use]
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, slot: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value `count` times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let bucket = &mut self.counts[bucket(value)];
        *bucket = bucket.saturating_add(count);
        self.total = self.total.saturating_add(count);
    }

    /// How many values were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The least value that at least this part of the values (0 to 1) do not exceed, as exactly as
    /// the buckets are; 0 without values.
    #[must_use]
    pub fn percentile(&self, part: f64) -> u64 {
        // The counts of one process are far below 2^53, where a float is exact.
        let wanted = (self.total as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        found.map_or(0, lowest)
    }

    /// The percentiles that the library shows.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total,
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.1),
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Values below [`PARTS`] have a bucket each; the others go by their highest bit and the bits after.
fn bucket(value: u64) -> usize {
    if value < PARTS {
        return value as usize;
    }
    let power = value.ilog2();
    let part = (value >> (power - PART_BITS)) & (PARTS - 1);
    (u64::from(power - PART_BITS + 1) * PARTS + part) as usize
}

/// The least value of a bucket.
fn lowest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PARTS {
        return bucket;
    }
    let (group, part) = (bucket / PARTS - 1, bucket % PARTS);
    (PARTS + part) << group
}

/// Some percentiles of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say which")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p1, p50, p99, .. } = self;
        write!(f, "{samples} samples, 1 %: {p1}, 50 %: {p50}, 99 %: {p99}")
    }
}

/// Several histograms, a line each.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart(Vec<(String, PercentileStats)>);

impl AsciiChart {
    /// One without lines.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more line.
    #[must_use]
    pub fn add<T>(mut self, name: impl Into<String>, histogram: Histogram<T>) -> Self {
        self.0.push((name.into(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        let edges = (0..64).flat_map(|power| {
            let value = 1u64 << power;
            [value - 1, value, value + value / 3]
        });
        for value in edges.chain([u64::MAX]) {
            let low = lowest(bucket(value));
            assert!(low <= value && value - low <= value / 4, "{value} {low}");
        }
    }

    #[test]
    fn percentiles_are_found() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile(0.5), 0);
        (1..=100).for_each(|value| histogram.record(value));
        histogram.record_n(1 << 20, 900);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p50, stats.p99_9), (1000, 1 << 20, 1 << 20));
        assert_eq!((stats.p0_1, stats.p1), (1, 10));
    }
}
