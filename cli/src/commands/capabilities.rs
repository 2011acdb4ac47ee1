//! What `service update --cap-add` and `--cap-drop` make of the lists that a service has. Pure.

/// Adds to one list and takes the same from the other; what is both added and dropped is added, and
/// `RESET` empties the list, as in Docker.
pub fn change(
    (added, dropped): (&mut Vec<String>, &mut Vec<String>),
    add: &[String],
    drop: &[String],
) {
    for (list, words) in [(&mut *added, add), (&mut *dropped, drop)] {
        if words.iter().any(|word| is(word, RESET)) {
            list.clear();
        }
    }
    let named = |words: &[String]| -> Vec<String> {
        words.iter().filter(|word| !is(word, RESET)).cloned().collect()
    };
    for name in named(drop).iter().filter(|name| !add.iter().any(|other| is(other, name))) {
        added.retain(|known| !is(known, name));
        put(dropped, name);
    }
    for name in &named(add) {
        dropped.retain(|known| !is(known, name));
        put(added, name);
    }
}

/// The word that stands for no capability.
const RESET: &str = "RESET";

/// The same capability, with or without `CAP_`, in any letters.
fn is(a: &str, b: &str) -> bool {
    let bare = |name: &str| {
        let upper = name.to_ascii_uppercase();
        upper.strip_prefix("CAP_").map(str::to_owned).unwrap_or(upper)
    };
    bare(a) == bare(b)
}

fn put(list: &mut Vec<String>, name: &str) {
    if !list.iter().any(|known| is(known, name)) {
        list.push(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_undoes_dropping_and_dropping_adding() {
        let cases: &[(&[&str], &[&str], &[&str], &[&str])] = &[
            (&["NET_RAW"], &[], &["CHOWN", "NET_RAW"], &["KILL"]),
            (&[], &["chown"], &[], &["KILL", "chown"]),
            (&["CAP_KILL"], &[], &["CHOWN", "CAP_KILL"], &[]),
            (&["KILL"], &["KILL"], &["CHOWN", "KILL"], &[]),
            (&["RESET"], &["RESET"], &[], &[]),
            (&["reset", "NET_RAW"], &[], &["NET_RAW"], &["KILL"]),
        ];
        for (add, drop, added_then, dropped_then) in cases {
            let own = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
            let (mut added, mut dropped) = (own(&["CHOWN"]), own(&["KILL"]));
            change((&mut added, &mut dropped), &own(add), &own(drop));
            assert_eq!((added, dropped), (own(added_then), own(dropped_then)), "{add:?} {drop:?}");
        }
    }
}
