//! Which network a word means, where both this node and the cluster may have one: a whole name or ID
//! of either half counts before the beginning of an ID in the other. Pure.

use std::collections::BTreeMap;

use tonic::{Code, Status};
use weft_model::{NetworkId, Rejected, id::SHORT, spec::escape};

/// Most characters of a word that an error repeats.
const WORD_SHOWN: usize = 64;

/// Whether a word is the whole ID or name of a network, not a beginning.
pub(super) fn is_called(id: NetworkId, name: &str, word: &str) -> bool {
    name.eq_ignore_ascii_case(word) || id.to_string().eq_ignore_ascii_case(word)
}

/// Whether a network of this node is meant by the beginning of its ID, after what the managers said
/// of the same word. Without an answer as many digits as lists show are nobody's name by chance.
pub(super) fn leaves_own(status: &Status, word: &str) -> bool {
    match status.code() {
        Code::NotFound => true,
        Code::Unavailable => word.len() >= SHORT,
        _ => false,
    }
}

/// The one of `all`, networks with their names, that a word means to a container which is on those
/// that `is_on` says.
///
/// # Errors
/// When none or several are meant.
pub(crate) fn of_container(
    word: &str,
    all: &BTreeMap<NetworkId, &str>,
    is_on: impl Fn(NetworkId) -> bool,
) -> Result<NetworkId, Rejected> {
    let lower = word.to_ascii_lowercase();
    let whole = |(id, name): (NetworkId, &str)| is_called(id, name, word);
    let begins = |(id, _): (NetworkId, &str)| id.to_string().starts_with(&lower);
    let all: Vec<_> = all.iter().map(|(id, name)| (*id, *name)).collect();
    let mut meant: Vec<_> = all.iter().copied().filter(|one| whole(*one)).collect();
    if meant.is_empty() {
        meant = all.into_iter().filter(|one| begins(*one)).collect();
    }
    let on: Vec<_> = meant.iter().copied().filter(|(id, _)| is_on(*id)).collect();
    match (&on[..], &meant[..]) {
        // The empty word begins every ID and means none.
        _ if word.is_empty() => Err(none(word)),
        ([(one, _)], _) | ([], [(one, _)]) => Ok(*one),
        ([], []) => Err(none(word)),
        ([], several) | (several, _) => Err(ambiguous(word, several)),
    }
}

fn none(word: &str) -> Rejected {
    let name = word.chars().take(WORD_SHOWN).collect();
    Rejected::NotFound { kind: "network".to_owned(), name }
}

/// The refusal of a word that means several networks.
pub(super) fn ambiguous(word: &str, several: &[(NetworkId, &str)]) -> Rejected {
    let shown = several.iter().map(|(id, name)| format!("{name} ({})", id.short()));
    Rejected::Forbidden {
        what: format!("network {} is ambiguous", escape(word, WORD_SHOWN)),
        why: format!("it may be any of {}", shown.collect::<Vec<_>>().join(", ")),
        hint: "give more of the ID, or the name".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(first: u8, last: u8) -> NetworkId {
        let mut bytes = [0; 32];
        (bytes[0], bytes[31]) = (first, last);
        NetworkId::from_bytes(bytes)
    }

    #[test]
    fn a_container_is_on_what_is_called_so_before_what_begins_so() {
        let (shop, a, other) = (id(0xab, 1), id(0x11, 2), id(0xab, 3));
        let all = BTreeMap::from([(shop, "shop"), (a, "a"), (other, "other")]);
        let meant = |word: &str, on: &[NetworkId]| of_container(word, &all, |id| on.contains(&id));
        assert_eq!(meant("a", &[shop, a]), Ok(a));
        assert_eq!(meant("a", &[shop]), Ok(a));
        assert_eq!(meant("ab", &[shop]), Ok(shop));
        assert_eq!(meant(&other.to_string(), &[shop]), Ok(other));
        assert!(matches!(meant("ab", &[shop, other]), Err(Rejected::Forbidden { .. })));
        assert!(matches!(meant("ab", &[]), Err(Rejected::Forbidden { .. })));
        for none in ["", "c"] {
            assert!(matches!(meant(none, &[shop]), Err(Rejected::NotFound { .. })));
        }
    }

    #[test]
    fn of_two_networks_of_one_name_a_container_is_on_its_own() {
        let (local, shared) = (id(1, 1), id(2, 2));
        let all = BTreeMap::from([(local, "shop"), (shared, "shop")]);
        let meant = |on: &[NetworkId]| of_container("Shop", &all, |id| on.contains(&id));
        assert_eq!(meant(&[local]), Ok(local));
        assert_eq!(meant(&[shared]), Ok(shared));
        assert!(matches!(meant(&[local, shared]), Err(Rejected::Forbidden { .. })));
    }

    #[test]
    fn without_the_managers_only_many_digits_are_a_beginning() {
        let silent = Status::unavailable("no manager");
        assert!(!leaves_own(&silent, "ab"));
        assert!(leaves_own(&silent, "ab0123456789"));
        assert!(leaves_own(&Status::not_found("none"), "ab"));
        assert!(!leaves_own(&Status::failed_precondition("not attachable"), "ab0123456789"));
    }
}
