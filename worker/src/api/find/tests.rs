//! Words, and what they mean.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn one<'a>(id: &'a str, name: &'a str, task: &'a str, life: Life, age: u64) -> Candidate<'a> {
    Candidate {
        id,
        name,
        task,
        life,
        created: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(age)),
    }
}

fn lab() -> Vec<Candidate<'static>> {
    use Life::{Running, Still};
    vec![
        one("aa11", "web.1.aa11", "web.1", Still, 1),
        one("aa22", "web.1.aa22", "web.1", Running, 2),
        one("bb33", "db.1.bb33", "db.1", Still, 3),
        one("bb44", "db.1.bb44", "db.1", Still, 4),
        one("cc55", "twin.1.cc55", "twin.1", Running, 5),
        one("cc66", "twin.1.cc66", "twin.1", Running, 6),
        one("dd", "cc5", "", Still, 7),
        one("dd77", "dd77", "", Still, 8),
    ]
}

#[test]
fn words_are_understood() {
    let all = lab();
    let table = [
        ("web.1", 1, "the one that runs, though another is there"),
        ("db.1", 3, "the newest, as none runs"),
        ("web.1.aa11", 0, "the whole name"),
        ("aa11", 0, "the whole ID"),
        ("aa1", 0, "the beginning of an ID"),
        ("cc5", 6, "a name before the beginning of an ID"),
        ("dd", 6, "a whole ID though another begins so"),
        ("dd7", 7, "the beginning of an ID"),
    ];
    for (text, at, why) in table {
        assert_eq!(find(text, &all), Ok(at), "{text}: {why}");
    }
}

#[test]
fn words_that_mean_nothing_or_too_much_are_refused() {
    let all = lab();
    let code = |text: &str| find(text, &all).unwrap_err().status().code();
    assert_eq!(code(""), Code::InvalidArgument);
    for unknown in ["web", "web.2", "zz", "aa111", "eb.1"] {
        let status = find(unknown, &all).unwrap_err().status();
        assert_eq!(status.code(), Code::NotFound, "{unknown}");
        assert_eq!(status.message(), format!("no such container: {unknown}"));
        let hint = weft_proto::convert::status::hint_of(&status);
        assert_eq!(hint.as_deref(), Some("weft ps -a"));
    }
    for (many, names) in
        [("twin.1", ["twin.1.cc55", "twin.1.cc66"]), ("aa", ["web.1.aa11", "web.1.aa22"])]
    {
        let status = find(many, &all).unwrap_err().status();
        assert_eq!(status.code(), Code::InvalidArgument, "{many}");
        assert!(names.iter().all(|name| status.message().contains(name)), "{status}");
    }
}

#[test]
fn a_long_list_is_cut() {
    let ids: Vec<String> = (10..40).map(|n| format!("a{n}")).collect();
    let all: Vec<_> = ids.iter().map(|id| one(id, id, "", Life::Still, 0)).collect();
    let Err(Missed::Ambiguous { count, shown, .. }) = find("a", &all) else { panic!("one of 30") };
    assert_eq!((count, shown.split(", ").count()), (30, NAMES_SHOWN + 1));
}

proptest! {
    /// What is found always matches the word, and a whole ID always finds its own.
    #[test]
    fn nothing_is_found_that_does_not_match(ids in prop::collection::btree_set("[ab]{1,4}", 1..8), text in "[ab]{1,4}") {
        let ids: Vec<String> = ids.into_iter().collect();
        let all: Vec<_> = ids.iter().map(|id| one(id, id, "", Life::Running, 0)).collect();
        let matching = ids.iter().filter(|id| id.starts_with(&text)).count();
        match find(&text, &all) {
            Ok(at) => prop_assert!(ids[at] == text || (ids[at].starts_with(&text) && matching == 1)),
            Err(Missed::Unknown { .. }) => prop_assert_eq!(matching, 0),
            Err(Missed::Ambiguous { count, .. }) => {
                prop_assert_eq!(count, matching);
                prop_assert!(count > 1 && !ids.contains(&text));
            }
            Err(Missed::Unnamed) => prop_assert!(false, "it is not empty"),
        }
    }
}
