//! Ports of the host for containers that ask for any.

use crate::Exhausted;

/// The first port that is given out: those from here on are nobody's by registration (RFC 6335
/// section 6; Docker starts one higher than the range does).
pub const FIRST: u16 = 49_153;
/// The last one.
pub const LAST: u16 = 65_535;

/// The next free port of `first..=last` after `cursor` (the one given most recently), wrapping, so
/// that a port is reused as late as possible. `used` says whether it is taken at any of the addresses
/// where it is wanted.
///
/// # Errors
/// [`Exhausted`] when every port is used.
pub fn choose_port(
    (first, last): (u16, u16),
    cursor: Option<u16>,
    used: impl Fn(u16) -> bool,
) -> Result<u16, Exhausted> {
    let start = match cursor {
        Some(cursor) if (first..last).contains(&cursor) => cursor + 1,
        Some(_) | None => first,
    };
    (start..=last).chain(first..start).find(|port| !used(*port)).ok_or_else(|| {
        let size = u128::from(last) + 1 - u128::from(first.min(last));
        Exhausted { pool: format!("host ports {first}-{last}"), used: size, size }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn goes_on_from_the_cursor_skips_what_is_used_and_wraps() {
        let used = BTreeSet::from([FIRST, LAST]);
        let choose = |cursor| choose_port((FIRST, LAST), cursor, |port| used.contains(&port));
        assert_eq!(choose(None), Ok(FIRST + 1));
        assert_eq!(choose(Some(FIRST + 5)), Ok(FIRST + 6));
        assert_eq!(choose(Some(LAST - 1)), Ok(FIRST + 1));
        assert_eq!(choose(Some(LAST)), Ok(FIRST + 1));
        assert_eq!(choose(Some(80)), Ok(FIRST + 1), "a cursor of another range");
    }

    #[test]
    fn a_full_range_says_so() {
        let mut given = BTreeSet::new();
        while let Ok(port) = choose_port((8000, 8003), None, |port| given.contains(&port)) {
            assert!(given.insert(port));
        }
        assert_eq!(given.len(), 4);
        let error = choose_port((8000, 8003), None, |_| true).unwrap_err();
        assert_eq!(error.to_string(), "host ports 8000-8003 is exhausted: 4 of 4 in use");
        assert_eq!(choose_port((80, 80), Some(80), |_| false), Ok(80));
    }
}
