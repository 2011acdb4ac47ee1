//! Names for containers that were given none.

/// Words that two of make a name; no word begins another.
const FIRST: [&str; 40] = [
    "amber", "bold", "brave", "bright", "calm", "clever", "crisp", "deft", "eager", "early",
    "fair", "fleet", "gentle", "glad", "golden", "grand", "happy", "hardy", "honest", "keen",
    "kind", "light", "lively", "lucid", "merry", "mild", "neat", "noble", "patient", "plain",
    "proud", "quick", "quiet", "rapid", "sharp", "silent", "steady", "swift", "warm", "wise",
];
const SECOND: [&str; 40] = [
    "bobbin", "braid", "cable", "canvas", "cord", "cotton", "denim", "fabric", "felt", "fibre",
    "fringe", "gauze", "harness", "heddle", "hemp", "jute", "knot", "lace", "linen", "loom",
    "mesh", "muslin", "needle", "nettle", "plait", "reed", "ribbon", "rope", "satin", "seam",
    "shuttle", "silk", "spindle", "stitch", "tassel", "thread", "treadle", "twill", "velvet",
    "yarn",
];

/// A name of two words that `is_taken` does not know; with a number when chance fails.
pub(super) fn free(is_taken: impl Fn(&str) -> bool) -> String {
    /// Tries before a number is put behind.
    const TRIES: usize = 8;
    let draw = || {
        let word = |words: &[&'static str]| words[rand::random_range(0..words.len())];
        format!("{}_{}", word(&FIRST), word(&SECOND))
    };
    let mut drawn = std::iter::repeat_with(draw);
    if let Some(name) = drawn.by_ref().take(TRIES).find(|name| !is_taken(name)) {
        return name;
    }
    let numbered = drawn.map(|name| format!("{name}{}", rand::random::<u16>()));
    numbered.into_iter().find(|name| !is_taken(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_new_also_when_all_pairs_are_taken() {
        let name = free(|name| !name.ends_with(|c: char| c.is_ascii_digit()));
        assert!(name.contains('_') && name.ends_with(|c: char| c.is_ascii_digit()), "{name}");
        assert!(free(|_| false).split('_').count() == 2);
    }
}
