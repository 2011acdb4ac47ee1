//! Encrypted networks are closed: whatever is done to the hosts, not a byte of what containers say to
//! each other is on the wire in the clear, and nothing that was not said by a member is taken.
#![forbid(unsafe_code)]

mod capture;
mod forge;

use std::{collections::BTreeMap, fs, net::Ipv4Addr, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use weft_tests::{Host, Lab, eventually, soak, stays};

use capture::Capture;
use forge::Forged;

/// How long a cluster may take to mend what was done to it, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it is looked at what must not happen.
const WATCH: Duration = Duration::from_secs(3);
/// Rounds of all that is done, in an ordinary run and in a long one.
const ROUNDS: (usize, usize) = (1, 20);
/// Where the tasks hear each other.
const PORT: u16 = 81;
/// UDP port of VXLAN.
const VXLAN: u16 = 4789;
/// First UDP port of WireGuard, and how many are tried with rubbish.
const WIREGUARD: u16 = 51_820;
const PORTS: u16 = 4;
/// Packets of each kind of forgery.
const FORGED: usize = 50;

/// Sixteen bytes that are nowhere else.
fn pattern() -> Vec<u8> {
    rand::random::<[u8; 16]>().to_vec()
}

/// A service with a task on each node, whose tasks send the pattern to each other.
fn sing(lab: &Lab, name: &str, network: &str, pattern: &[u8]) {
    let hex: String = pattern.iter().map(|byte| format!("{byte:02x}")).collect();
    let command = ["canary", &hex, name, &PORT.to_string()];
    lab.service(name, &["--mode", "global", "--network", network], &command);
}

fn encrypted(lab: &Lab, name: &str, subnet: &str) {
    let create =
        ["network", "create", "-d", "overlay", "--subnet", subnet, "-o", "encrypted", name];
    lab.host(1).weft(&create).ok();
}

/// What a task has heard: `udp ADDRESS`, `tcp ADDRESS`, `again`, `foreign`.
fn heard(host: &Host, service: &str) -> Result<BTreeMap<String, u64>, String> {
    let containers = host.containers(service);
    let [container] = &containers[..] else {
        return Err(format!("{} containers on {}", containers.len(), host.name()));
    };
    let text = container.sh("cat /tmp/heard").text()?;
    let line = |line: &str| {
        let (what, count) = line.rsplit_once(' ')?;
        Some((what.to_owned(), count.parse().ok()?))
    };
    Ok(text.lines().filter_map(line).collect())
}

fn count(heard: &BTreeMap<String, u64>, what: &str) -> u64 {
    heard.get(what).copied().unwrap_or_default()
}

/// Waits until the task of each of these hosts hears those of all the others anew, in UDP and TCP.
#[track_caller]
fn all_hear_each_other(hosts: &[&Host], service: &str, after: &str) {
    let before: Vec<_> =
        hosts.iter().map(|host| heard(host, service).unwrap_or_default()).collect();
    eventually(&format!("all hear each other after {after}"), PATIENCE, || {
        for (host, before) in hosts.iter().zip(&before) {
            let now = heard(host, service)?;
            for kind in ["udp ", "tcp "] {
                let anew = |what: &&String| {
                    what.starts_with(kind) && count(&now, what) != count(before, what)
                };
                let sources = now.keys().filter(anew).count();
                if sources + 1 < hosts.len() {
                    return Err(format!("{} hears {kind}of {sources}: {now:?}", host.name()));
                }
            }
        }
        Ok(())
    });
}

/// The process of the engine in user space on a host.
fn engine(host: &Host) -> Result<Pid, String> {
    let run_dir = host.run_dir().display().to_string();
    let is_engine = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).collect();
        words.get(1) == Some(&&b"wire"[..]) && words.contains(&run_dir.as_bytes())
    };
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let found = pids.find(is_engine).ok_or_else(|| format!("{} has no engine", host.name()))?;
    Ok(Pid::from_raw(found))
}

#[track_caller]
fn signal_engine(host: &Host, signal: Signal) {
    let pid = eventually("an engine runs", PATIENCE, || engine(host));
    kill(pid, signal).expect("it can be signalled");
}

/// `Tunnel` of `weft node inspect`.
fn tunnel(lab: &Lab, node: &str) -> Result<Value, String> {
    let said = lab.host(1).weft(&["node", "inspect", node]);
    let nodes: Value = serde_json::from_str(&said.text()?).map_err(|error| error.to_string())?;
    Ok(nodes[0]["Tunnel"].clone())
}

/// All packets that the engine of a node has dropped, of peers and of others.
fn drops(lab: &Lab, node: &str) -> Result<u64, String> {
    let shown = tunnel(lab, node)?;
    let links = shown["Links"].as_array().ok_or_else(|| format!("no links: {shown}"))?;
    let all = links.iter().map(|link| &link["Drops"]).chain([&shown["Drops"]]);
    Ok(all
        .filter_map(Value::as_object)
        .flat_map(|map| map.values())
        .filter_map(Value::as_u64)
        .sum())
}

fn vni(lab: &Lab, network: &str) -> u32 {
    let format = "{{index .Options \"com.docker.network.driver.overlay.vxlanid_list\"}}";
    let said = lab.host(1).weft(&["network", "inspect", "-f", format, network]).ok();
    said.parse().expect("a number")
}

/// A deed, and what stands for it in messages.
type Deed<'a> = (&'a str, Box<dyn Fn() + 'a>);

/// What is done to the hosts of a cluster of three with the network `closed`.
fn deeds(lab: &Lab) -> Vec<Deed<'_>> {
    let device = format!("wx{:06x}", vni(lab, "closed"));
    vec![
        ("the rotation of a key", Box::new(|| rotate(lab, "n2"))),
        ("the death of an engine", Box::new(|| signal_engine(lab.host(2), Signal::SIGKILL))),
        ("an engine that stands still", Box::new(|| stand_still(lab))),
        ("the death of a daemon", Box::new(|| lab.host(2).restart())),
        (
            "the death of all daemons and engines",
            Box::new(|| {
                lab.hosts().for_each(Host::kill9);
                lab.hosts().for_each(|host| signal_engine(host, Signal::SIGKILL));
                lab.hosts().for_each(Host::start);
            }),
        ),
        (
            "a flush of all rules",
            Box::new(|| lab.hosts().for_each(|host| drop(host.sh("nft flush ruleset").ok()))),
        ),
        (
            "a device deleted by hand",
            Box::new(move || drop(lab.host(2).sh(&format!("ip link del {device}")).ok())),
        ),
        ("networks that come and go", Box::new(|| come_and_go(lab))),
        (
            "a host without power",
            Box::new(|| {
                lab.host(3).lose_power();
                lab.host(3).start();
            }),
        ),
        (
            "all hosts without power",
            Box::new(|| {
                lab.hosts().for_each(Host::lose_power);
                lab.hosts().for_each(Host::start);
            }),
        ),
    ]
}

#[track_caller]
fn rotate(lab: &Lab, node: &str) {
    let generation = || tunnel(lab, node).map(|shown| shown["Generation"].as_u64());
    let before = generation().expect("it is shown");
    lab.host(1).weft(&["node", "update", "--rotate-key", node]).ok();
    eventually("another key is used, and nothing is going on", PATIENCE, || {
        let shown = tunnel(lab, node)?;
        if shown["Generation"].as_u64() > before && shown["Rotation"] == "idle" {
            Ok(())
        } else {
            Err(shown.to_string())
        }
    });
}

fn stand_still(lab: &Lab) {
    signal_engine(lab.host(1), Signal::SIGSTOP);
    // How long it stands still is the point, so it is a time and no condition.
    std::thread::sleep(WATCH);
    // A daemon that has lost patience with it has started another one.
    if let Ok(pid) = engine(lab.host(1)) {
        let _ = kill(pid, Signal::SIGCONT);
    }
}

/// An encrypted and a plain network beside the one that is listened to.
fn come_and_go(lab: &Lab) {
    encrypted(lab, "other", "10.22.0.0/24");
    lab.network("plain", "10.23.0.0/24");
    for network in ["other", "plain"] {
        let flags = ["--mode", "global", "--network", network];
        lab.service(&format!("on-{network}"), &flags, &["sleep", "1000000"]);
    }
    for network in ["other", "plain"] {
        lab.host(1).weft(&["service", "rm", &format!("on-{network}")]).ok();
        eventually("nobody is on it", PATIENCE, || {
            lab.host(1).weft(&["network", "rm", network]).text().map(drop)
        });
    }
}

#[test]
fn not_a_byte_is_in_the_clear_whatever_is_done() {
    let lab = Lab::cluster("closed", 1, 2);
    let pattern = pattern();
    let capture = Capture::start(lab.outside_pid(), pattern.clone());
    let hosts: Vec<&Host> = lab.hosts().collect();
    encrypted(&lab, "closed", "10.21.0.0/24");
    // From the first packet on, before any handshake.
    sing(&lab, "birds", "closed", &pattern);
    all_hear_each_other(&hosts, "birds", "the start");
    capture.saw_none("from the start");
    let rounds = if soak() { ROUNDS.1 } else { ROUNDS.0 };
    for round in 0..rounds {
        for (name, deed) in deeds(&lab) {
            deed();
            all_hear_each_other(&hosts, "birds", name);
            capture.saw_none(&format!("{name}, round {round}"));
            eprintln!("{name}: {} frames", capture.seen().frames);
        }
    }
    // A node that is no member any more goes on sending for all it can, and nobody sends to it.
    lab.host(3).freeze(true);
    lab.host(1).weft(&["node", "rm", "--force", "n3"]).ok();
    all_hear_each_other(&hosts[..2], "birds", "the removal of a node");
    stays("nothing is in the clear", WATCH, || {
        capture.saw_none("the removal of a node");
        Ok(())
    });
    lab.host(3).freeze(false);
    // It comes back as another one, whose key the others do not know before its containers speak.
    eventually("the node joins anew", PATIENCE, || {
        // It may have noticed by itself that it is no member.
        let _ = lab.host(3).weft(&["cluster", "leave", "--force"]);
        let join = ["cluster", "join", "--token", &lab.token("worker"), "10.99.0.1:2377"];
        lab.host(3).weft(&join).text()
    });
    all_hear_each_other(&hosts, "birds", "a node that joins anew");
    capture.saw_none("a node that joins anew");
    let encrypted = capture.seen();
    assert!(!encrypted.sealed.is_empty(), "nothing was encrypted either: {}", encrypted.frames);
    drop(capture);

    // The same look at a plain network sees all of it.
    let capture = Capture::start(lab.outside_pid(), pattern.clone());
    lab.network("open", "10.20.0.0/24");
    sing(&lab, "parrots", "open", &pattern);
    eventually("the capture sees TCP, UDP and ICMP", PATIENCE, || {
        let seen = capture.seen();
        let kinds = [1, 6, 17].map(|protocol| seen.protocols.get(&protocol).copied().unwrap_or(0));
        if kinds.iter().all(|count| *count > 0) { Ok(()) } else { Err(format!("{kinds:?}")) }
    });
}

/// Members of a network: the address of the task on each host, in their order.
fn addresses(lab: &Lab, service: &str, network: &str) -> Vec<Ipv4Addr> {
    let address = |host: &Host| host.container(service).address(network).expect("an address");
    lab.hosts().map(|host| address(host).parse().expect("an IPv4 address")).collect()
}

/// Sends the forgery from a process's namespace to the VXLAN port of all hosts, several times.
fn forge(lab: &Lab, from: u32, network: &str, addresses: &[Ipv4Addr]) {
    let vni = vni(lab, network);
    let mut packets = Vec::new();
    for (n, host) in lab.hosts().enumerate() {
        let other = addresses[(n + 1) % addresses.len()];
        let forged = Forged { vni, from: other, to: addresses[n], port: PORT };
        let packet = forged.packet(b"forged");
        packets.extend(std::iter::repeat_n(((host.ip(), VXLAN), packet), FORGED));
    }
    forge::send(from, packets);
}

/// What was heard that nobody has said, on all hosts.
fn foreign(lab: &Lab, service: &str, what: &str) -> Result<u64, String> {
    lab.hosts().map(|host| heard(host, service).map(|heard| count(&heard, what))).sum()
}

#[test]
fn what_no_member_has_said_is_not_taken() {
    let lab = Lab::cluster("forged-closed", 1, 1);
    let hosts: Vec<&Host> = lab.hosts().collect();
    let (open, closed) = (pattern(), pattern());
    let capture = Capture::start(lab.outside_pid(), closed.clone());
    lab.network("open", "10.20.0.0/24");
    encrypted(&lab, "closed", "10.21.0.0/24");
    sing(&lab, "parrots", "open", &open);
    sing(&lab, "birds", "closed", &closed);
    for service in ["parrots", "birds"] {
        all_hear_each_other(&hosts, service, "the start");
    }
    let (parrots, birds) = (addresses(&lab, "parrots", "open"), addresses(&lab, "birds", "closed"));
    let (member, stranger) = (lab.host(2).holder(), lab.outside_pid());

    // On a plain network a member's address is all that is asked for: the forgery is a good one.
    forge(&lab, member, "open", &parrots);
    eventually("a forged frame arrives on a plain network", PATIENCE, || {
        let heard = foreign(&lab, "parrots", "foreign")?;
        if heard > 0 { Ok(()) } else { Err("none".to_owned()) }
    });
    let unheard = |when: &str| {
        for from in [member, stranger] {
            forge(&lab, from, "closed", &birds);
        }
        stays("no forged frame is heard", WATCH, || {
            let heard = foreign(&lab, "birds", "foreign")?;
            if heard == 0 { Ok(()) } else { Err(format!("{when}: {heard} were")) }
        });
    };
    unheard("with rules");
    for host in &hosts {
        host.sh("nft flush ruleset").ok();
    }
    unheard("right after a flush");

    let counted = |when: &str, packets: usize, what: Vec<(u16, Vec<u8>)>| {
        let before: u64 = ["n1", "n2"].map(|node| drops(&lab, node).expect("links")).iter().sum();
        let to = |host: &&Host| host.ip();
        let all = hosts.iter().map(to).flat_map(|ip| {
            what.iter().map(move |(port, packet)| ((ip.clone(), *port), packet.clone()))
        });
        forge::send(stranger, all.collect());
        eventually(&format!("{when} is counted"), PATIENCE, || {
            let now: u64 =
                ["n1", "n2"].map(|node| drops(&lab, node)).into_iter().sum::<Result<_, _>>()?;
            let most = before + u64::try_from(packets).expect("few");
            if now >= most { Ok(()) } else { Err(format!("{before}, now {now}, not {most}")) }
        });
        for what in ["foreign", "again"] {
            assert_eq!(foreign(&lab, "birds", what), Ok(0), "{when}: {what}");
        }
        all_hear_each_other(&hosts, "birds", when);
    };
    let rubbish = (0..PORTS).flat_map(|port| {
        (0..FORGED).map(move |_| (WIREGUARD + port, rand::random::<[u8; 64]>().to_vec()))
    });
    // Each host listens on some of the ports at least.
    counted("rubbish", FORGED, rubbish.collect());
    let sealed: Vec<_> = capture.seen().sealed.into_iter().take(FORGED).collect();
    assert_eq!(sealed.len(), FORGED, "there is data of WireGuard");
    counted("data sent again", FORGED, sealed);
    capture.saw_none("all that was forged");
}
