//! Metrics as values, and as the text of the OpenMetrics format.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

pub use prometheus_client::registry::Unit;

use super::spread::Histogram;

/// What stands before every name.
const PREFIX: &str = "weft";
/// Most series of one metric: a cluster with more networks or nodes than this tells of the first ones, and
/// how many it left out.
pub const SERIES_MAX: usize = 1000;

/// Label names and values.
pub type Labels = Vec<(&'static str, String)>;

/// One metric with all its series.
#[derive(Clone, Debug)]
pub struct Family {
    /// Without prefix, unit and `_total`.
    pub name: &'static str,
    /// What it is, for people.
    pub help: &'static str,
    /// What it is counted in.
    pub unit: Option<Unit>,
    /// Its values.
    pub series: Series,
}

/// The values of a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Series {
    /// Goes up and down.
    Gauge(Vec<(Labels, f64)>),
    /// Only goes up, but for a start of the daemon.
    Counter(Vec<(Labels, u64)>),
    /// Times by class.
    Histogram(Vec<(Labels, Histogram)>),
    /// Words about the program, in the labels.
    Info(Labels),
}

impl Series {
    fn len(&self) -> usize {
        match self {
            Self::Gauge(series) => series.len(),
            Self::Counter(series) => series.len(),
            Self::Histogram(series) => series.len(),
            Self::Info(_) => 1,
        }
    }

    fn truncate(&mut self, length: usize) {
        match self {
            Self::Gauge(series) => series.truncate(length),
            Self::Counter(series) => series.truncate(length),
            Self::Histogram(series) => series.truncate(length),
            Self::Info(_) => {}
        }
    }

    fn kind(&self) -> MetricType {
        match self {
            Self::Gauge(_) => MetricType::Gauge,
            Self::Counter(_) => MetricType::Counter,
            Self::Histogram(_) => MetricType::Histogram,
            Self::Info(_) => MetricType::Info,
        }
    }
}

/// A gauge with one value.
pub fn gauge(name: &'static str, help: &'static str, value: impl Into<Amount>) -> Family {
    gauges(name, help, [(Labels::new(), value.into().0)])
}

/// A gauge with a value for each set of labels.
pub fn gauges(
    name: &'static str,
    help: &'static str,
    series: impl IntoIterator<Item = (Labels, f64)>,
) -> Family {
    Family { name, help, unit: None, series: Series::Gauge(series.into_iter().collect()) }
}

/// A counter with one value.
pub fn counter(name: &'static str, help: &'static str, value: u64) -> Family {
    counters(name, help, [(Labels::new(), value)])
}

/// A counter with a value for each set of labels.
pub fn counters(
    name: &'static str,
    help: &'static str,
    series: impl IntoIterator<Item = (Labels, u64)>,
) -> Family {
    Family { name, help, unit: None, series: Series::Counter(series.into_iter().collect()) }
}

/// A histogram of times, seconds.
pub fn histogram(name: &'static str, help: &'static str, histogram: Histogram) -> Family {
    let series = Series::Histogram(vec![(Labels::new(), histogram)]);
    Family { name, help, unit: Some(Unit::Seconds), series }
}

impl Family {
    /// The same, counted in this.
    #[must_use]
    pub fn in_unit(mut self, unit: Unit) -> Self {
        self.unit = Some(unit);
        self
    }
}

/// The value of a gauge.
#[derive(Clone, Copy, Debug)]
pub struct Amount(f64);

impl From<f64> for Amount {
    fn from(value: f64) -> Self {
        Self(value)
    }
}

impl From<u64> for Amount {
    /// Exact up to 2^53, as all of Prometheus's values are.
    fn from(value: u64) -> Self {
        Self(value as f64)
    }
}

impl From<usize> for Amount {
    fn from(value: usize) -> Self {
        Self(value as f64)
    }
}

impl From<bool> for Amount {
    fn from(value: bool) -> Self {
        Self(f64::from(u8::from(value)))
    }
}

/// The text of all of them, in the OpenMetrics format.
///
/// # Errors
/// Never: nothing that is written to refuses.
pub fn text(mut families: Vec<Family>) -> Result<String, fmt::Error> {
    let over = families.iter().filter(|family| family.series.len() > SERIES_MAX);
    let omitted: Vec<(Labels, f64)> = over
        .map(|family| (family, (family.series.len() - SERIES_MAX) as f64))
        .map(|(family, count)| (vec![("metric", format!("{PREFIX}_{}", family.name))], count))
        .collect();
    families.iter_mut().for_each(|family| family.series.truncate(SERIES_MAX));
    families.push(gauges(
        "series_omitted",
        "Series of a metric beyond the most it may have",
        omitted,
    ));
    families.retain(|family| family.series.len() > 0);
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(All(families)));
    let mut written = String::new();
    text::encode(&mut written, &registry)?;
    Ok(written)
}

#[derive(Debug)]
struct All(Vec<Family>);

impl Collector for All {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.iter().try_for_each(|family| write(family, &mut encoder))
    }
}

fn write(family: &Family, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let Family { name, help, unit, series } = family;
    let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), series.kind())?;
    match series {
        Series::Gauge(series) => each(&mut metric, series, |mut m, value| m.encode_gauge(value)),
        Series::Counter(series) => each(&mut metric, series, |mut m, value| {
            m.encode_counter::<NoLabelSet, u64, u64>(value, None)
        }),
        Series::Histogram(series) => each(&mut metric, series, |mut m, value| {
            m.encode_histogram::<NoLabelSet>(value.sum, value.count(), &value.buckets, None)
        }),
        Series::Info(labels) => metric.encode_info(labels),
    }
}

fn each<T>(
    metric: &mut MetricEncoder<'_>,
    series: &[(Labels, T)],
    mut one: impl FnMut(MetricEncoder<'_>, &T) -> Result<(), fmt::Error>,
) -> Result<(), fmt::Error> {
    series.iter().try_for_each(|(labels, value)| one(metric.encode_family(labels)?, value))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_kind_is_written_as_the_format_wants_it() {
        let labels = |value: &str| vec![("node", value.to_owned())];
        let waits = Histogram::new(&[Duration::from_millis(5)], &[2, 1], Duration::from_secs(3));
        let families = vec![
            Family {
                name: "build",
                help: "The program",
                unit: None,
                series: Series::Info(vec![("version", "1".to_owned())]),
            },
            gauge("up", "Whether", true),
            gauges("room", "Free", [(labels("a\"b"), 7.0)]).in_unit(Unit::Bytes),
            counters("sent", "Sent", [(labels("x"), 3)]).in_unit(Unit::Bytes),
            histogram("wait", "Waits", waits),
            gauges("none", "Nothing", []),
        ];
        let expected = "# HELP weft_build The program\n# TYPE weft_build info\n\
             weft_build_info{version=\"1\"} 1\n\
             # HELP weft_up Whether\n# TYPE weft_up gauge\nweft_up{} 1.0\n\
             # HELP weft_room_bytes Free\n# TYPE weft_room_bytes gauge\n\
             # UNIT weft_room_bytes bytes\nweft_room_bytes{node=\"a\\\"b\"} 7.0\n\
             # HELP weft_sent_bytes Sent\n# TYPE weft_sent_bytes counter\n\
             # UNIT weft_sent_bytes bytes\nweft_sent_bytes_total{node=\"x\"} 3\n\
             # HELP weft_wait_seconds Waits\n# TYPE weft_wait_seconds histogram\n\
             # UNIT weft_wait_seconds seconds\nweft_wait_seconds_sum{} 3.0\n\
             weft_wait_seconds_count{} 3\nweft_wait_seconds_bucket{le=\"0.005\"} 2\n\
             weft_wait_seconds_bucket{le=\"+Inf\"} 3\n# EOF\n";
        assert_eq!(text(families).unwrap(), expected);
    }

    #[test]
    fn a_metric_has_so_many_series_and_says_how_many_are_left_out() {
        let many = (0..SERIES_MAX + 5).map(|n| (vec![("network", n.to_string())], 1.0));
        let written = text(vec![gauges("use", "Use", many)]).unwrap();
        let lines = written.lines().filter(|line| line.starts_with("weft_use{")).count();
        assert_eq!(lines, SERIES_MAX);
        assert!(written.contains("weft_series_omitted{metric=\"weft_use\"} 5.0"), "{written}");
    }
}
