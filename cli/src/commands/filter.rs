//! `--filter k=v`: several values of one key are alternatives, different keys must all hold.
//! Labels must all be there.

use std::collections::BTreeMap;

use crate::{error::CliError, output::escape::shown};

/// The filters of one command.
#[derive(Debug, Clone, Default)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Takes the filters of the command line; a key that the command does not know is wrong usage.
    pub fn new(given: &[(String, String)], known: &[&str]) -> Result<Self, CliError> {
        let mut filters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in given {
            if !known.contains(&key.as_str()) {
                let why = format!("unknown key {:?}: use {}", shown(key), known.join(", "));
                return Err(CliError::usage("--filter", why));
            }
            filters.entry(key.clone()).or_default().push(value.clone());
        }
        Ok(Self(filters))
    }

    /// True if the key is not filtered by, or one of its values fits.
    pub fn any(&self, key: &str, fits: impl Fn(&str) -> bool) -> bool {
        self.0.get(key).is_none_or(|values| values.iter().any(|value| fits(value)))
    }

    /// True if a value of the key is part of the text.
    pub fn part_of(&self, key: &str, text: &str) -> bool {
        self.any(key, |value| text.contains(value))
    }

    /// True if a value of the key begins the ID.
    pub fn prefix_of(&self, key: &str, id: &str) -> bool {
        self.any(key, |value| id.starts_with(value))
    }

    /// True if a value of the key is the word, whatever the case.
    pub fn word(&self, key: &str, word: &str) -> bool {
        self.any(key, |value| value.eq_ignore_ascii_case(word))
    }

    /// True if all labels asked for under the key are there: `k` or `k=v`.
    pub fn labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        let wanted = self.0.get(key).map_or(&[][..], Vec::as_slice);
        wanted.iter().all(|want| match want.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(want),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(given: &[(&str, &str)]) -> Filters {
        let given: Vec<(String, String)> =
            given.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        Filters::new(&given, &["name", "id", "label"]).unwrap()
    }

    #[test]
    fn values_are_alternatives_and_keys_are_not() {
        let filters = filters(&[("name", "we"), ("name", "db"), ("id", "01")]);
        assert!(filters.part_of("name", "web") && filters.part_of("name", "mydb"));
        assert!(!filters.part_of("name", "cache"));
        assert!(filters.prefix_of("id", "0123") && !filters.prefix_of("id", "1012"));
        assert!(filters.word("mode", "anything"));
    }

    #[test]
    fn labels_must_all_be_there() {
        let labels =
            BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".into(), String::new())]);
        assert!(filters(&[("label", "a=1"), ("label", "b")]).labels("label", &labels));
        assert!(!filters(&[("label", "a=2")]).labels("label", &labels));
        assert!(!filters(&[("label", "a=1"), ("label", "c")]).labels("label", &labels));
    }

    #[test]
    fn an_unknown_key_is_wrong_usage() {
        let error = Filters::new(&[("nam".into(), "x".into())], &["name", "id"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert_eq!(error.to_string(), "--filter: unknown key \"nam\": use name, id");
    }
}
