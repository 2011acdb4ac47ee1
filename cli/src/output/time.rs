//! Times as people read them: "About a minute ago" in tables, RFC 3339 with nanoseconds in
//! `inspect`. The clock is an argument.

use jiff::Timestamp;

use crate::wire::WireTimestamp;

const SECOND: i64 = 1;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;
const MONTH: i64 = 30 * DAY;
const YEAR: i64 = 365 * DAY;

/// What Docker prints for "never happened".
pub const ZERO: &str = "0001-01-01T00:00:00Z";

/// The time as RFC 3339 in UTC; [`ZERO`] if it never happened.
pub fn rfc3339(time: Option<&WireTimestamp>) -> String {
    time.and_then(timestamp).map_or_else(|| ZERO.to_owned(), |time| time.to_string())
}

/// The wire's time as a timestamp; `None` outside of the years 1 to 9999.
pub fn timestamp(time: &WireTimestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

/// How long ago, such as "3 minutes ago"; empty if it never happened.
pub fn ago(time: Option<&WireTimestamp>, now: Timestamp) -> String {
    match time.and_then(timestamp) {
        Some(time) => format!("{} ago", human(now.as_second() - time.as_second())),
        None => String::new(),
    }
}

/// A span as Docker words it, for a number of seconds. A negative one (clocks differ between
/// nodes) counts as none.
pub fn human(seconds: i64) -> String {
    let s = seconds.max(0);
    match s {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        s if s < MINUTE => format!("{s} seconds"),
        s if s < 2 * MINUTE => "About a minute".to_owned(),
        s if s < HOUR => format!("{} minutes", s / MINUTE),
        // Docker rounds hours to the nearest one.
        s if (s + HOUR / 2) / HOUR == 1 => "About an hour".to_owned(),
        s if (s + HOUR / 2) / HOUR < 48 => format!("{} hours", (s + HOUR / 2) / HOUR),
        s if s < 2 * WEEK => format!("{} days", s / DAY),
        s if s < 2 * MONTH => format!("{} weeks", s / WEEK),
        s if s < 2 * YEAR => format!("{} months", s / MONTH),
        s => format!("{} years", s / YEAR),
    }
}

/// A span of the wire in Go's notation, such as `1h30m0s`, `24h0m0s` or `10s`.
pub fn go_duration(nanos: i128) -> String {
    const NANO: i128 = 1_000_000_000;
    if nanos % NANO != 0 && nanos < NANO {
        return format!("{}ms", nanos as f64 / 1e6);
    }
    let (seconds, rest) = (nanos / NANO, nanos % NANO);
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction =
        if rest == 0 { String::new() } else { format!(".{rest:09}").trim_end_matches('0').into() };
    match (h, m) {
        (0, 0) => format!("{s}{fraction}s"),
        (0, m) => format!("{m}m{s}{fraction}s"),
        (h, m) => format!("{h}h{m}m{s}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_worded_as_docker_does() {
        let table = [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (2 * 3600, "2 hours"),
            (47 * 3600, "47 hours"),
            (3 * 86400, "3 days"),
            (15 * 86400, "2 weeks"),
            (100 * 86400, "3 months"),
            (1000 * 86400, "2 years"),
        ];
        for (seconds, words) in table {
            assert_eq!(human(seconds), words, "{seconds}");
        }
    }

    #[test]
    fn times_are_rfc3339() {
        let time = WireTimestamp { seconds: 1_700_000_000, nanos: 5_000_000 };
        assert_eq!(rfc3339(Some(&time)), "2023-11-14T22:13:20.005Z");
        assert_eq!(rfc3339(None), ZERO);
        let now = Timestamp::from_second(1_700_000_090).unwrap();
        assert_eq!(ago(Some(&time), now), "About a minute ago");
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(go_duration(10_000_000_000), "10s");
        assert_eq!(go_duration(90 * 60 * 1_000_000_000), "1h30m0s");
        assert_eq!(go_duration(1_500_000_000), "1.5s");
        assert_eq!(go_duration(250_000_000), "250ms");
    }
}
