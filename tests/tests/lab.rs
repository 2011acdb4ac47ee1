//! The lab itself: what the other tests rely on.
#![forbid(unsafe_code)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use weft_tests::{Cgroups, Lab, eventually, teardown};

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn hosts_reach_each_other_until_they_are_cut() {
    let lab = Lab::new("lab-cut", 3);
    let ping = |from: usize, to: usize| {
        lab.host(from).sh(&format!("busybox ping -c1 -W1 10.99.0.{to}")).text().map(drop)
    };
    let passes = |from, to| eventually("ping", PATIENCE, || ping(from, to));
    let lost = |from, to| {
        eventually("no ping", PATIENCE, || {
            ping(from, to).map_or(Ok(()), |()| Err("answered".into()))
        });
    };
    passes(1, 2);
    passes(2, 3);
    lab.cut(2);
    lost(1, 2);
    lost(2, 3);
    passes(1, 3);
    assert_ne!(lab.outside("busybox ping -c1 -W1 10.99.0.2").code, 0);
    lab.heal();
    passes(1, 2);
    assert_eq!(lab.outside("busybox ping -c1 -W1 10.99.0.2").code, 0);
    // One way: what is asked arrives, the answer does not.
    lab.cut_one_way(2, 1);
    lost(1, 2);
    passes(2, 3);
    lab.heal();
    passes(1, 2);
}

#[test]
fn each_host_has_its_own_resolver_file_and_links() {
    let lab = Lab::new("lab-own", 2);
    lab.host(1).resolvers("nameserver 10.99.0.254\n");
    assert_eq!(lab.host(1).sh("cat /etc/resolv.conf").ok(), "nameserver 10.99.0.254");
    assert_eq!(lab.host(2).sh("cat /etc/resolv.conf").ok(), "");
    assert_ne!(
        lab.host(1).sh("readlink /proc/self/ns/net").ok(),
        lab.host(2).sh("readlink /proc/self/ns/net").ok()
    );
    let before = lab.host(1).snapshot();
    assert_eq!(before.changes(&lab.host(1).snapshot()), Vec::<String>::new());
    lab.host(1).sh("ip link add d0 type bridge; ip route add 192.0.2.0/24 via 10.99.0.2");
    let changes = before.changes(&lab.host(1).snapshot());
    assert!(changes.iter().any(|c| c.starts_with("links: + ")), "{changes:?}");
    assert!(changes.iter().any(|c| c.starts_with("routes: + 192.0.2.0/24")), "{changes:?}");
}

#[test]
fn a_lab_ends_with_everything_that_was_started_in_it() {
    let lab = Lab::new("lab-end", 1);
    let dir = lab.dir().to_owned();
    // A daemon's child that outlives it, in a session, network and process namespace of its own.
    lab.host(1).sh("setsid unshare -n -p -f sh -c 'sleep 1000 & wait' >/dev/null 2>&1 &");
    let cgroups = cgroups_of(&dir);
    eventually("it runs", PATIENCE, || {
        let found = teardown::processes(&dir, &cgroups);
        if found.len() > 3 { Ok(()) } else { Err(format!("{found:?}")) }
    });
    drop(lab);
    assert_eq!(teardown::processes(&dir, &cgroups), Vec::<i32>::new());
    assert!(!dir.exists());
    assert!(cgroups_of(&dir).dirs().is_empty());
}

/// The child of the next test: makes a lab and waits to be killed.
#[test]
#[ignore = "run by a_lab_ends_when_its_test_is_killed"]
fn child_that_is_killed() {
    let lab = Lab::new("lab-killed", 1);
    println!("dir={}", lab.dir().display());
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_lab_ends_when_its_test_is_killed() {
    use std::io::{BufRead as _, BufReader};
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .args(["--ignored", "--exact", "child_that_is_killed", "--nocapture"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the test runs");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let dir: PathBuf = out
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("dir=").map(|(_, dir)| dir.trim().into()))
        .expect("the child says where its lab is");
    assert!(dir.exists());
    child.kill().expect("kill");
    child.wait().expect("wait");
    eventually("the guardian has cleared up", PATIENCE, || {
        let left = teardown::processes(&dir, &cgroups_of(&dir));
        if left.is_empty() && !dir.exists() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

/// The cgroups with the lab's name, wherever they are.
fn cgroups_of(dir: &Path) -> Cgroups {
    fn search(name: &std::ffi::OsStr, at: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(at).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name() == name {
                    found.push(entry.path());
                } else {
                    search(name, &entry.path(), found);
                }
            }
        }
    }
    let mut found = Vec::new();
    let name = dir.file_name().expect("a lab's directory has a name");
    search(name, Path::new("/sys/fs/cgroup"), &mut found);
    Cgroups::found(found)
}
