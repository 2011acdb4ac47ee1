//! The shape of the workspace: which crate may know which, and which folder may name which library.
#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Who may depend on whom.
const ARROWS: &[(&str, &[&str])] = &[
    ("weft-ipam", &[]),
    ("weft-model", &["weft-ipam"]),
    ("weft-proto", &["weft-model"]),
    ("weft-wire", &[]),
    ("weft-overlay", &["weft-model", "weft-wire"]),
    ("weft-dns", &[]),
    ("weft-manager", &["weft-proto", "weft-model", "weft-ipam"]),
    (
        "weft-worker",
        &["weft-proto", "weft-model", "weft-ipam", "weft-overlay", "weft-wire", "weft-dns"],
    ),
    ("weft-shim", &[]),
    (
        "weft",
        &[
            "weft-proto",
            "weft-model",
            "weft-ipam",
            "weft-overlay",
            "weft-wire",
            "weft-dns",
            "weft-manager",
            "weft-worker",
        ],
    ),
];
/// Everybody may be known by the tests.
const TESTS: &str = "weft-tests";

/// Words that only the files below one folder may name.
const HOMES: &[(&str, &[&str])] = &[
    ("openraft", &["manager/src/raft/", "manager/src/raft.rs"]),
    ("rtnetlink", &["overlay/src/kernel/"]),
    ("netlink_packet_route", &["overlay/src/kernel/"]),
    ("netlink_packet_netfilter", &["overlay/src/kernel/"]),
    ("netlink_sys", &["overlay/src/kernel/"]),
    // The fuzzer reads foreign bytes as the wire does.
    ("prost", &["proto/", "tests/fuzz/"]),
    ("prost_types", &["proto/"]),
    ("libcontainer", &["worker/src/container/"]),
];

/// Text that only the files below one folder may have: who opens a netlink socket or speaks nftables.
const TEXT_HOMES: &[(&str, &str)] = &[
    ("AF_NETLINK", "overlay/src/kernel/"),
    ("NETLINK_ROUTE", "overlay/src/kernel/"),
    ("NETLINK_NETFILTER", "overlay/src/kernel/"),
    ("AddressFamily::Netlink", "overlay/src/kernel/"),
    ("Command::new(\"nft", "overlay/src/kernel/"),
    ("Command::new(\"ip\"", "overlay/src/kernel/"),
];

/// Folders that do no IO, read no clock, draw no randomness and iterate only ordered maps.
const PURE: &[&str] = &[
    "ipam/src/",
    "model/src/",
    "manager/src/controller/",
    "overlay/src/plan/",
    "dns/src/zone/",
    "dns/src/resolve/",
];
/// What does not belong there, with the reason.
const BANNED: &[(&str, &str)] = &[
    ("Instant::now", "time comes in as an argument"),
    ("SystemTime::now", "time comes in as an argument"),
    ("Timestamp::now", "time comes in as an argument"),
    ("HashMap", "its order is not defined"),
    ("HashSet", "its order is not defined"),
    ("rand::rng", "randomness comes in as an argument"),
    ("thread_rng", "randomness comes in as an argument"),
    ("std::fs", "no IO here"),
    ("std::net::Tcp", "no IO here"),
    ("std::net::Udp", "no IO here"),
    ("tokio::", "no runtime here"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the workspace").into()
}

#[test]
fn crates_know_only_whom_they_may() {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(vec!["--offline".into()])
        .exec()
        .expect("cargo metadata");
    let ours: BTreeSet<String> = metadata.packages.iter().map(|p| p.name.to_string()).collect();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let name = package.name.to_string();
        if name == TESTS {
            continue;
        }
        let may = match allowed.get(name.as_str()) {
            Some(may) => *may,
            None if name.starts_with("weft") => {
                wrong.push(format!("{name} is in no arrow"));
                continue;
            }
            // A changed copy of somebody else's crate knows nothing of ours.
            None => &[],
        };
        for dependency in &package.dependencies {
            let other = dependency.name.as_str();
            // What a crate's own tests use makes no arrow; it is not there when the crate is used.
            if ours.contains(other)
                && dependency.kind != DependencyKind::Development
                && !may.contains(&other)
            {
                wrong.push(format!("{name} -> {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that are not allowed: {wrong:#?}");
    for name in allowed.keys() {
        assert!(ours.contains(*name), "{name} is not in the workspace: correct this test");
    }
}

#[test]
fn libraries_are_named_only_in_their_homes() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    each_source(|file, line, text| {
        for (word, homes) in HOMES {
            if !names(text, word) {
                continue;
            }
            if homes.iter().any(|home| file.starts_with(home)) {
                seen.insert(*word);
            } else {
                wrong.push(format!("{file}:{line}: {word}: {}", text.trim()));
            }
        }
    });
    each_source(|file, line, text| {
        for (word, home) in TEXT_HOMES {
            if !text.contains(word) || file.starts_with("tests/") {
                continue;
            }
            if file.starts_with(home) {
                seen.insert(*word);
            } else {
                wrong.push(format!("{file}:{line}: {word}: {}", text.trim()));
            }
        }
    });
    assert!(wrong.is_empty(), "named outside of their homes: {wrong:#?}");
    // A check that looks for something nobody has would hold for ever.
    for word in ["openraft", "AF_NETLINK", "prost_types"] {
        assert!(seen.contains(word), "{word} is nowhere: correct this test");
    }
}

#[test]
fn pure_code_is_pure() {
    let mut wrong = Vec::new();
    each_source(|file, line, text| {
        if !PURE.iter().any(|dir| file.starts_with(dir)) {
            return;
        }
        for (word, reason) in BANNED {
            if text.contains(word) {
                wrong.push(format!("{file}:{line}: {word}: {reason}: {}", text.trim()));
            }
        }
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_file_says_what_lives_in_it() {
    let mut wrong = Vec::new();
    for file in sources() {
        let text = fs::read_to_string(root().join(&file)).expect("a source file");
        let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
        if !first.is_some_and(|line| line.starts_with("//!")) {
            wrong.push(file);
        }
    }
    assert!(wrong.is_empty(), "files that begin without `//!`: {wrong:#?}");
}

/// Whether a line of code names a crate: as the first part of a path, not within another word.
fn names(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = &text[at + word.len()..];
        let whole = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':');
        let path = after.starts_with("::") || after.starts_with(';') || after.starts_with(" as ");
        let is_crate =
            text.trim_start().starts_with("use ") || text.trim_start().starts_with("pub use ");
        whole && (after.starts_with("::") || (path && is_crate))
    })
}

/// Calls with file, line number and text for each line of code that is no comment and no test.
fn each_source(mut look: impl FnMut(&str, usize, &str)) {
    for file in sources() {
        if file.contains("/tests/") || file.ends_with("/tests.rs") || file.contains("/benches/") {
            continue;
        }
        let text = fs::read_to_string(root().join(&file)).expect("a source file");
        for (at, line) in text.lines().enumerate() {
            // Tests stand at the end of a file and may use what they like.
            if line.trim_start().starts_with("#[cfg(test)]") {
                break;
            }
            if !line.trim_start().starts_with("//") {
                look(&file, at + 1, line);
            }
        }
    }
}

/// Every source file of the crates, by its path from the root.
fn sources() -> Vec<String> {
    let mut found = Vec::new();
    for top in ["ipam", "model", "proto", "manager", "worker", "overlay", "dns", "cli", "tests"] {
        walk(&root().join(top), &mut found);
    }
    found.sort();
    found
}

fn walk(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            walk(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let path = path.strip_prefix(root()).expect("it lies in the workspace");
            found.push(path.to_string_lossy().into_owned());
        }
    }
}
