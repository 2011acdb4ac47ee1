//! Managers whose disks fill up: what they refuse, what goes on, and that they come back.
#![forbid(unsafe_code)]

use std::time::Duration;

use weft_tests::{Host, Lab, Output, eventually};

const PATIENCE: Duration = Duration::from_secs(30);
/// Of each state directory. More than what a manager keeps in reserve, which is 64 MiB.
const SIZE: &str = "192m";

fn state(host: &Host) -> String {
    host.state_dir().display().to_string()
}

/// Fills the disk of a host to the last byte.
fn fill(host: &Host) {
    host.sh(&format!("dd if=/dev/zero of={}/fill bs=64k 2>/dev/null || true; sync", state(host)));
    let left = host.sh(&format!("df --output=avail {} | tail -1", state(host))).ok();
    assert_eq!(left.trim(), "0", "KiB left on {}", host.name());
}

fn make_room(host: &Host) {
    host.sh(&format!("rm {}/fill", state(host))).ok();
}

fn leader(lab: &Lab, from: usize) -> Result<usize, String> {
    let list = lab
        .host(from)
        .weft(&["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"])
        .text()?;
    let line = list.lines().find(|line| line.ends_with("Leader")).ok_or(list.clone())?;
    let name = line.split(' ').next().unwrap_or_default();
    name.trim_start_matches('n').parse().map_err(|_| list)
}

fn create(host: &Host, name: &str) -> Output {
    host.weft(&["network", "create", "-d", "overlay", name])
}

#[test]
fn managers_whose_disks_are_full_refuse_writes_read_on_and_come_back() {
    let lab = Lab::new("disk", 3);
    for host in lab.hosts() {
        let dir = state(host);
        host.sh(&format!("mkdir -p {dir} && mount -t tmpfs -o size={SIZE} weft {dir}")).ok();
        host.start();
    }
    lab.host(1).weft(&["cluster", "init", "--advertise-addr", &lab.host(1).ip()]).ok();
    for n in [2, 3] {
        lab.join(n, "manager");
    }
    lab.nodes_ready(3);
    eventually("three vote", PATIENCE, || {
        let info = lab.host(1).weft(&["info"]).text()?;
        if info.matches(":2377").count() >= 3 { Ok(()) } else { Err(info) }
    });
    create(lab.host(1), "before").ok();

    let first = leader(&lab, 1).expect("a leader");
    fill(lab.host(first));
    let second = eventually("one with room leads", PATIENCE, || {
        let now = leader(&lab, first)?;
        if now == first { Err("still the full one".into()) } else { Ok(now) }
    });
    eventually("writes go on, also by the full one", PATIENCE, || {
        create(lab.host(first), "meanwhile").text()
    });
    let info = lab.host(first).weft(&["info"]).ok();
    assert!(info.contains("disk is nearly full"), "{info}");

    for host in lab.hosts().filter(|host| host.name() != format!("n{first}")) {
        fill(host);
    }
    let refused = eventually("writes are refused", PATIENCE, || {
        let said = create(lab.host(second), "never");
        if said.stderr.contains("disk") { Ok(said) } else { Err(said.to_string()) }
    });
    refused.refused(1, &["disk", "make room"]);
    let list = lab.host(second).weft(&["network", "ls", "--format", "{{.Name}}"]).ok();
    assert!(list.contains("before") && list.contains("meanwhile"), "{list}");

    for host in lab.hosts() {
        make_room(host);
    }
    for host in lab.hosts() {
        let name = format!("after-{}", host.name());
        eventually("writes go on", PATIENCE, || create(host, &name).text());
    }
    lab.nodes_ready(3);
    for host in lab.hosts() {
        let log = std::fs::read_to_string(host.log()).expect("it has logged");
        assert!(!log.contains("Raft has died"), "{} has ended", host.name());
    }
}
