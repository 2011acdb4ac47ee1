//! `weft doctor` on clusters that are well, and on ones that were broken by hand: each fault is named, on the
//! node that has it.
#![forbid(unsafe_code)]

use std::{process::Child, time::Duration};

use serde_json::Value;
use weft_tests::{Host, Lab, eventually};

/// How long a busy machine may take until a fault shows.
const PATIENCE: Duration = Duration::from_secs(40);
/// A path on one of three nodes needs this packet when networks are made as usual, bytes.
const WHOLE: &str = "packets of 1500 bytes do not reach node n2 (10.99.0.2)";

/// What `weft doctor --format json` says that is a fault, a line for each, and its exit code.
fn faults(host: &Host) -> (Vec<String>, i32) {
    let said = host.weft(&["doctor", "--format", "json"]);
    let faults = said.stdout.lines().filter_map(|line| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{said}"));
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        (text("Severity") != "ok").then(|| {
            assert!(!text("Why").is_empty() && !text("Fix").is_empty(), "{line}");
            format!("{} {}: {}", text("Severity"), text("Check"), text("Text"))
        })
    });
    let faults: Vec<String> = faults.collect();
    assert!(said.stdout.lines().count() > faults.len(), "something is always right: {said}");
    (faults, said.code)
}

/// What is to be typed against the fault that this check finds.
#[track_caller]
fn fix_of(host: &Host, check: &str) -> String {
    let format = "{{.Severity}}|{{.Check}}|{{.Fix}}";
    let said = host.weft(&["doctor", "--format", format]).stdout;
    let start = format!("problem|{check}|");
    let fix = said.lines().find_map(|line| line.strip_prefix(&start));
    fix.unwrap_or_else(|| panic!("{check}: {said}")).to_owned()
}

/// Waits until the doctor names this fault.
#[track_caller]
fn names(host: &Host, fault: &str) {
    eventually(&format!("{} names: {fault}", host.name()), PATIENCE, || {
        let (faults, code) = faults(host);
        let found = faults.iter().any(|line| line.contains(fault));
        let problem = faults.iter().any(|line| line.starts_with("problem "));
        assert_eq!(code, i32::from(problem), "{faults:?}");
        if found { Ok(()) } else { Err(format!("{faults:#?}")) }
    });
}

/// Waits until the doctor has nothing to say.
#[track_caller]
fn is_well(host: &Host) {
    eventually(&format!("{} is well", host.name()), PATIENCE, || match faults(host) {
        (faults, 0) if faults.is_empty() => Ok(()),
        (faults, code) => Err(format!("{code}: {faults:#?}")),
    });
}

/// Three managers with name servers, an encrypted network, and a task on each.
fn lab(name: &str) -> Lab {
    let lab = Lab::cluster(name, 3, 0);
    lab.hosts().for_each(|host| host.resolvers("nameserver 10.99.0.254\n"));
    let create = ["network", "create", "-d", "overlay", "-o", "encrypted", "--subnet"];
    lab.host(1).weft(&[&create[..], &["10.20.0.0/24", "shop"]].concat()).ok();
    lab
}

/// Ends with the test.
struct Squatter(Child);

impl Drop for Squatter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_healthy_cluster_has_no_fault_and_each_that_is_made_is_named_and_mended() {
    let lab = lab("doctor");
    let clients = lab.clients("shop");
    let addresses: Vec<String> =
        clients.iter().map(|client| client.address("shop").expect("it has one")).collect();
    for client in &clients {
        addresses.iter().for_each(|address| client.pings(address));
    }
    lab.hosts().for_each(is_well);
    let text = lab.host(1).weft(&["doctor"]);
    assert!(text.stdout.contains("ok       quorum: 3 of 3 managers"), "{text}");
    assert!(!text.stdout.contains('\u{1b}'), "colours are for terminals: {text}");

    // Another tool's firewall drops what is forwarded. The fix that is printed is typed as it is.
    let other = "nft 'add table inet other; add chain inet other forward { type filter hook forward \
                 priority 0; policy drop; }'";
    lab.host(1).sh(other).ok();
    names(
        lab.host(1),
        "problem firewall: another firewall drops forwarded packets: chain inet other forward",
    );
    is_well(lab.host(2));
    lab.host(1).sh(&fix_of(lab.host(1), "firewall")).ok();
    is_well(lab.host(1));
    lab.host(1).sh("nft delete table inet other").ok();

    // The way between two nodes is narrower than their devices.
    lab.outside("ip link set v2 mtu 1400").ok();
    lab.host(2).sh("ip link set eth0 mtu 1400").ok();
    names(lab.host(1), WHOLE);
    lab.outside("ip link set v2 mtu 1500").ok();
    lab.host(2).sh("ip link set eth0 mtu 1500").ok();
    lab.hosts().for_each(is_well);

    // The UDP ports of WireGuard do not pass between two nodes: no handshake, though both share a network.
    let block = "nft 'add table netdev wall; add chain netdev wall in { type filter hook ingress device \
                 eth0 priority 0; }; add rule netdev wall in ip saddr 10.99.0.3 udp dport 51820-51999 drop'";
    lab.host(2).sh(block).ok();
    lab.host(2).restart();
    lab.host(2)
        .sh(&format!("kill -9 $(pgrep -f '[w]ire --run-dir {}$')", lab.host(2).run_dir().display()))
        .ok();
    eventually("the link is used in vain", PATIENCE, || {
        let _ = clients[1].ping(&addresses[2]);
        let (faults, _) = faults(lab.host(2));
        let link = faults.iter().any(|line| line.contains("links: ") && line.contains("node n3"));
        if link { Ok(()) } else { Err(format!("{faults:#?}")) }
    });
    lab.host(2).sh("nft delete table netdev wall").ok();

    // One manager of three is stopped, which the others name; and its own doctor says what is wrong there.
    lab.host(3).stop();
    names(lab.host(1), "warning quorum: one more failure of a manager");
    names(lab.host(1), "problem nodes: node n3 is ");
    names(lab.host(2), "problem managers: manager 10.99.0.3:2377 does not answer");
    names(lab.host(3), "problem daemon: no daemon answers on this node");
    // While it is stopped nobody puts back what is changed there. The host is told not to forward.
    lab.host(3).sh("sysctl -qw net.ipv4.ip_forward=0").ok();
    lab.host(3).sh(&fix_of(lab.host(3), "forwarding")).ok();
    let (found, _) = faults(lab.host(3));
    assert!(!found.iter().any(|line| line.contains("forwarding: ")), "{found:?}");
    // Its tables are flushed.
    lab.host(3).sh("nft flush ruleset").ok();
    names(lab.host(3), "problem nftables: table inet weft is not there");
    // And somebody takes the port that it needs.
    let listen =
        "import socket, time\ns = socket.create_server(('0.0.0.0', 2377))\ntime.sleep(600)";
    let squatter = lab.host(3).command(&["python3", "-c", listen]).spawn().expect("python runs");
    let squatter = Squatter(squatter);
    names(lab.host(3), "problem ports: 2377/tcp is held by process ");
    drop(squatter);
    lab.host(3).start();
    lab.nodes_ready(3);

    // A link is cut: at both ends of it.
    lab.cut(3);
    names(lab.host(3), "problem underlay: node n1 (10.99.0.1) cannot be reached");
    names(lab.host(3), "problem quorum: the quorum is lost: 1 of 3 managers answer");
    names(lab.host(3), "problem session: no session with a manager");
    names(lab.host(1), "problem nodes: node n3 is down");
    lab.heal();
}

#[test]
fn a_wrong_clock_and_a_task_that_fails_are_named_where_they_are() {
    let lab = Lab::new("doctor-clock", 2);
    lab.hosts().for_each(|host| host.resolvers("nameserver 10.99.0.254\n"));
    lab.host(1).start();
    lab.host(2).clock("+90s");
    lab.host(2).start();
    lab.host(1).weft(&["cluster", "init", "--advertise-addr", &lab.host(1).ip()]).ok();
    lab.join(2, "worker");
    lab.nodes_ready(2);
    names(
        lab.host(2),
        "problem clock: this node's clock is 90 s ahead of that of manager 10.99.0.1:2377",
    );
    is_well(lab.host(1));

    lab.network("shop", "10.20.0.0/24");
    let image = lab.image();
    let fails =
        ["--network", "shop", "--constraint", "node.hostname==n1", "--restart-condition", "none"];
    let create =
        [&["service", "create", "-d", "--name", "bad"][..], &fails, &[&image, "false"]].concat();
    lab.host(1).weft(&create).ok();
    names(lab.host(1), "problem tasks: bad.1 failed ");
    let (elsewhere, _) = faults(lab.host(2));
    assert!(!elsewhere.iter().any(|line| line.contains("tasks:")), "{elsewhere:?}");
}

#[test]
fn a_host_without_a_daemon_is_looked_at_all_the_same() {
    let lab = Lab::new("doctor-alone", 1);
    let host = lab.host(1);
    let (found, code) = faults(host);
    assert_eq!(code, 1);
    assert!(found.iter().any(|line| line.starts_with("problem daemon: ")), "{found:?}");
    host.resolvers("nameserver 10.99.0.254\n");
    host.start();
    is_well(host);
    host.resolvers("");
    names(host, "warning resolvers: /etc/resolv.conf of this host has no name server");
    host.sh(&format!("chmod 755 {}", host.state_dir().display())).ok();
    names(host, "problem directories: state directory");
}
