//! Times, counted in classes.

use std::time::Duration;

/// Upper ends of the classes that the loop's looks are counted in; one more is above all. A look takes
/// some milliseconds, and seconds when something is stuck.
const ENDS: [Duration; 8] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(10),
    Duration::from_secs(60),
];

/// How long something took, each time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    counts: [u64; ENDS.len() + 1],
    sum: Duration,
}

impl Spread {
    /// Notes one more.
    pub fn note(&mut self, time: Duration) {
        let class = ENDS.iter().position(|end| time <= *end).unwrap_or(ENDS.len());
        self.counts[class] += 1;
        self.sum += time;
    }

    /// As a histogram.
    pub fn histogram(&self) -> Histogram {
        Histogram::new(&ENDS, &self.counts, self.sum)
    }
}

/// Counts by upper end, seconds; the last end is infinity.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Upper end of each class, and how many are in it and in no class before.
    pub buckets: Vec<(f64, u64)>,
    /// Sum of all, seconds.
    pub sum: f64,
}

impl Histogram {
    /// From the ends of all classes but the last, and all counts.
    pub fn new(ends: &[Duration], counts: &[u64], sum: Duration) -> Self {
        let ends = ends.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        Self { buckets: ends.zip(counts.iter().copied()).collect(), sum: sum.as_secs_f64() }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_one_class() {
        let mut spread = Spread::default();
        for time in [Duration::ZERO, ENDS[0], ENDS[1], Duration::from_secs(3600)] {
            spread.note(time);
        }
        let histogram = spread.histogram();
        assert_eq!(histogram.buckets[..2], [(0.001, 2), (0.005, 1)]);
        assert_eq!(histogram.buckets[8], (f64::INFINITY, 1));
        assert_eq!((histogram.count(), histogram.sum), (4, 3600.006));
    }
}
