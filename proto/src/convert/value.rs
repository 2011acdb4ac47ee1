//! Times, spans, addresses and what every object carries.

use std::{net::IpAddr, str::FromStr, time::Duration};

use ipnet::IpNet;
use weft_model::{
    Time,
    object::{Meta, Stuck},
    spec::Invalid,
};

use crate::v1;

/// Milliseconds in a second, and nanoseconds in a millisecond.
const MILLIS: u64 = 1_000;
const NANOS_PER_MILLI: u64 = 1_000_000;
/// The most seconds a span on the wire may have (protobuf's own limit, about 10,000 years).
const SPAN_SECONDS_MAX: u64 = 315_576_000_000;

/// A point in time for the wire.
pub fn timestamp(time: Time) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(time.0 / MILLIS).unwrap_or(i64::MAX),
        // Below a thousand times a million.
        nanos: (time.0 % MILLIS * NANOS_PER_MILLI) as i32,
    }
}

/// A point in time from the wire, cut to milliseconds; before 1970 counts as 1970.
pub fn time(stamp: &prost_types::Timestamp) -> Time {
    let seconds = u64::try_from(stamp.seconds).unwrap_or(0);
    let millis = u64::try_from(stamp.nanos).unwrap_or(0) / NANOS_PER_MILLI;
    Time(seconds.saturating_mul(MILLIS).saturating_add(millis))
}

/// A span for the wire.
pub fn duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: span.as_secs().min(SPAN_SECONDS_MAX) as i64,
        nanos: span.subsec_nanos() as i32,
    }
}

/// A span from the wire.
///
/// # Errors
/// A negative one is not allowed in `field`.
pub fn span(
    field: &str,
    wire: Option<&prost_types::Duration>,
) -> Result<Option<Duration>, Invalid> {
    let Some(wire) = wire else { return Ok(None) };
    let seconds = u64::try_from(wire.seconds).ok();
    let nanos = u32::try_from(wire.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    match seconds.zip(nanos) {
        Some((seconds, nanos)) => Ok(Some(Duration::new(seconds, nanos))),
        None => {
            let value = format!("{} s {} ns", wire.seconds, wire.nanos);
            Err(Invalid::new(field, value, "must be a span of time that is not negative"))
        }
    }
}

/// Parses text that must be of a kind; `what` says which.
pub(super) fn parse<T: FromStr>(field: &str, text: &str, what: &str) -> Result<T, Invalid> {
    text.parse().map_err(|_| Invalid::new(field, text, format!("must be {what}")))
}

/// An address from the wire.
pub(super) fn address(field: &str, text: &str) -> Result<IpAddr, Invalid> {
    parse(field, text, "an IPv4 or IPv6 address")
}

/// A prefix from the wire. Stricter than the prefix type's own parser, which takes `010.0.0.0/8`:
/// some programs read such a number as octal.
pub(super) fn prefix(field: &str, text: &str) -> Result<IpNet, Invalid> {
    let invalid = || Invalid::new(field, text, "must be a prefix such as 10.1.0.0/24");
    let (address, length) = text.split_once('/').ok_or_else(invalid)?;
    let address: IpAddr = address.parse().map_err(|_| invalid())?;
    let plain = length == "0" || !length.starts_with(['0', '+']);
    let length = length.parse().ok().filter(|_| plain).ok_or_else(invalid)?;
    IpNet::new(address, length).map_err(|_| invalid())
}

/// The same for a field that may be empty.
pub(super) fn optional<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, Invalid>,
) -> Result<Option<T>, Invalid> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// What every object carries.
pub(super) fn meta(meta: &Meta) -> v1::Meta {
    v1::Meta {
        version: meta.version,
        created_at: Some(timestamp(meta.created)),
        updated_at: Some(timestamp(meta.updated)),
    }
}

/// Why something waits. `retry` is when it is looked at again by itself, if that is known.
pub(super) fn stuck(stuck: &Stuck, retry: Option<Time>) -> v1::Stuck {
    v1::Stuck {
        reason: stuck.reason.clone(),
        hint: stuck.hint.clone(),
        since: Some(timestamp(stuck.since)),
        next_retry: retry.map(timestamp),
    }
}

/// An unordered map of the wire as an ordered one, and back.
pub(super) fn map<K, V, M>(from: impl IntoIterator<Item = (K, V)>) -> M
where
    M: FromIterator<(K, V)>,
{
    from.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_negative_span_is_refused_with_its_field() {
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000)] {
            let wire = prost_types::Duration { seconds, nanos };
            assert_eq!(span("--delay", Some(&wire)).unwrap_err().field, "--delay");
        }
        assert_eq!(span("--delay", None), Ok(None));
    }

    proptest! {
        #[test]
        fn times_and_spans_come_back(millis in 0..4_000_000_000_000_u64, nanos in 0..10_u64.pow(15)) {
            prop_assert_eq!(time(&timestamp(Time(millis))), Time(millis));
            let wanted = Duration::from_nanos(nanos);
            prop_assert_eq!(span("x", Some(&duration(wanted))), Ok(Some(wanted)));
        }
    }
}
