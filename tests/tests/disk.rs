//! Managers whose disks fill up: what they refuse, what goes on, and that they come back.
#![forbid(unsafe_code)]

use std::time::Duration;

use weft_tests::{Host, Lab, Output, eventually};

const PATIENCE: Duration = Duration::from_secs(30);
/// Of each state directory. More than what a manager keeps in reserve, which is 64 MiB.
const SIZE: &str = "192m";
const TMPFS: &str = "mkdir -p DIR && mount -t tmpfs -o size=SIZE weft DIR";
/// No block of it is kept for root, who is who fills it.
const EXT4: &str = "mkdir -p DIR && truncate -s SIZE DIR.img && mkfs.ext4 -q -m 0 DIR.img && mount -o loop DIR.img DIR";

fn state(host: &Host) -> String {
    host.state_dir().display().to_string()
}

/// Fills the disk of a host to the last byte.
fn fill(host: &Host) {
    // What is written late may turn out to need less than was set aside for it.
    for (name, size) in [("fill", "64k"), ("fill.rest", "1k"), ("fill.last", "1k")] {
        let path = format!("{}/{name}", state(host));
        host.sh(&format!("dd if=/dev/zero of={path} bs={size} 2>/dev/null || true; sync"));
    }
    let left = host.sh(&format!("df --output=avail {} | tail -1", state(host))).ok();
    assert_eq!(left.trim(), "0", "KiB left on {}", host.name());
}

/// Gives the hosts disks of their own for their state, and starts them.
fn start_on(lab: &Lab, file_system: &str) {
    for host in lab.hosts() {
        host.sh(&file_system.replace("DIR", &state(host)).replace("SIZE", SIZE)).ok();
        host.start();
    }
    lab.host(1).weft(&["cluster", "init", "--advertise-addr", &lab.host(1).ip()]).ok();
    for n in 2..=lab.hosts().count() {
        lab.join(n, "manager");
    }
    lab.nodes_ready(lab.hosts().count());
}

fn make_room(host: &Host) {
    host.sh(&format!("rm {}/fill*", state(host))).ok();
}

fn create(host: &Host, name: &str) -> Output {
    host.weft(&["network", "create", "-d", "overlay", name])
}

#[test]
fn managers_whose_disks_are_full_refuse_writes_read_on_and_come_back() {
    let lab = Lab::new("disk", 3);
    start_on(&lab, TMPFS);
    eventually("three vote", PATIENCE, || {
        let info = lab.host(1).weft(&["info"]).text()?;
        if info.matches(":2377").count() >= 3 { Ok(()) } else { Err(info) }
    });
    create(lab.host(1), "before").ok();

    let first = lab.leader(1).expect("a leader");
    fill(lab.host(first));
    let second = eventually("one with room leads", PATIENCE, || {
        let now = lab.leader(first)?;
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

/// What a caller sees of daemons that were killed and started on disks without a free byte.
fn start_again_on_full_disks(lab: &Lab) {
    create(lab.host(1), "before").ok();
    lab.host(1).weft(&["run", "-d", "--name", "own", &lab.image(), "sleep", "1000000"]).ok();
    lab.serve("web", &["--network", "before"]);
    let clients = lab.clients("before");
    let processes = |host: &Host| host.weft(&["ps", "-q", "--no-trunc"]).ok();
    let before: Vec<String> = lab.hosts().map(processes).collect();

    // More than once: what is needed for one start must be there for the next one too.
    for round in 1..=3 {
        for host in lab.hosts() {
            if round == 1 {
                fill(host);
            }
            host.kill9();
        }
        for host in lab.hosts() {
            host.start();
        }
        eventually("networks are listed", PATIENCE, || {
            let list = lab.host(1).weft(&["network", "ls", "--format", "{{.Name}}"]).text()?;
            if list.contains("before") { Ok(()) } else { Err(list) }
        });
        lab.nodes_ready(lab.hosts().count());
    }
    let after: Vec<String> = lab.hosts().map(processes).collect();
    assert_eq!(after, before, "containers go on");
    for client in &clients {
        eventually("names and addresses go on", PATIENCE, || client.tcp("web", 80));
    }
    let refused = eventually("writes are refused", PATIENCE, || {
        let said = create(lab.host(1), "never");
        if said.stderr.contains("disk") { Ok(said) } else { Err(said.to_string()) }
    });
    refused.refused(1, &["disk", "make room"]);
    let run = lab.host(1).weft(&["run", "-d", "--name", "never", &lab.image(), "sleep", "1"]);
    run.refused(125, &["state cannot be kept", "cannot write"]);
    lab.host(1).weft(&["inspect", "never"]).refused(1, &["never"]);

    for host in lab.hosts() {
        make_room(host);
    }
    for host in lab.hosts() {
        let name = format!("after-{}", host.name());
        eventually("writes go on", PATIENCE, || create(host, &name).text());
    }
    lab.host(1).weft(&["run", "-d", "--name", "later", &lab.image(), "sleep", "1000000"]).ok();
    let after: Vec<String> = lab.hosts().map(processes).collect();
    for (before, after) in before.iter().zip(&after) {
        assert!(before.lines().all(|id| after.contains(id)), "containers go on: {before} {after}");
    }
}

#[test]
fn a_daemon_starts_on_a_disk_without_a_free_byte_and_its_containers_go_on() {
    let lab = Lab::new("full", 1);
    start_on(&lab, EXT4);
    start_again_on_full_disks(&lab);
}
