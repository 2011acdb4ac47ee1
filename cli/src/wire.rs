//! The two well-known types of the wire, named in this one place.

use std::time::Duration;

/// A point in time on the wire.
pub type WireTimestamp = weft_proto::well_known::Timestamp;
/// A span on the wire.
pub type WireDuration = weft_proto::well_known::Duration;

/// A span for a request. Spans beyond what the wire can hold (about 10,000 years) are cut there.
pub fn duration(span: Duration) -> WireDuration {
    const MOST_SECONDS: u64 = 315_576_000_000;
    WireDuration {
        seconds: span.as_secs().min(MOST_SECONDS) as i64,
        nanos: span.subsec_nanos() as i32,
    }
}

/// The nanoseconds of a span; none counts as zero.
pub fn nanos(span: Option<&WireDuration>) -> i128 {
    span.map_or(0, |span| i128::from(span.seconds) * 1_000_000_000 + i128::from(span.nanos))
}

/// The instant a jiff timestamp stands for.
pub fn timestamp(time: jiff::Timestamp) -> WireTimestamp {
    WireTimestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}
