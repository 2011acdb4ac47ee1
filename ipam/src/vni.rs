//! VXLAN network identifiers (24 bits, RFC 7348 section 5).

use std::collections::BTreeSet;

use crate::Exhausted;

/// The first identifier we give out. Swarm starts at 4096 and the kernel refuses a second VXLAN
/// device of the same identifier and port on one machine, so we keep well away from its range.
pub const FIRST: u32 = 65_536;
/// The last identifier that fits 24 bits.
pub const LAST: u32 = (1 << 24) - 1;

/// The next free identifier after `last` (the one given most recently), wrapping at the end, so that
/// an identifier is reused as late as possible.
///
/// # Errors
/// [`Exhausted`] when every identifier is used.
pub fn choose_vni(used: &BTreeSet<u32>, last: Option<u32>) -> Result<u32, Exhausted> {
    let start = match last {
        Some(last) if (FIRST..LAST).contains(&last) => last + 1,
        Some(_) | None => FIRST,
    };
    (start..=LAST).chain(FIRST..start).find(|vni| !used.contains(vni)).ok_or_else(|| Exhausted {
        pool: "VNI".to_owned(),
        used: used.len() as u128,
        size: u128::from(LAST - FIRST) + 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_from_the_last_and_wraps() {
        let used = BTreeSet::from([FIRST, FIRST + 1, LAST]);
        assert_eq!(choose_vni(&used, None), Ok(FIRST + 2));
        assert_eq!(choose_vni(&used, Some(FIRST + 5)), Ok(FIRST + 6));
        assert_eq!(choose_vni(&used, Some(LAST - 1)), Ok(FIRST + 2));
        assert_eq!(choose_vni(&used, Some(LAST)), Ok(FIRST + 2));
    }
}
