//! What the engine of encrypted networks costs, and how it meets many nodes at once. It is driven here as
//! the daemon drives it, without a daemon.

mod crowd;
mod node;

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use weft_tests::{Lab, eventually};

use crate::{
    cluster::PATIENCE,
    encrypted::{
        load,
        path::Path,
        wire::{self, Wire},
    },
    figure::Bench,
    memory::megabytes,
    report::Goal,
    stats::Sample,
};

use crowd::{Crowd, ENGINE, inside};
use node::{Node, address, mac, ports, shown};

/// Runs with each number of lanes, in turns.
const RUNS: usize = 3;
const LANES: [u16; 2] = [1, 2];
/// Flows at once, so that every lane has some.
const FLOWS: &str = "8";
/// The nodes of the largest cluster, without the one that has the engine.
const MANY: u16 = 199;
/// How many of them it is whose memory is told.
const SOME: u16 = 99;
/// Rounds of handshakes.
const ROUNDS: usize = 5;
/// What a round may take, in seconds, and how long it is waited for.
const GOAL: f64 = 5.0;
const LIMIT: Duration = Duration::from_secs(30);
/// Time in which nothing is sent.
const IDLE: Duration = Duration::from_secs(10);
/// Bytes of TCP in a packet of 1,390 bytes: 20 are IPv4's, 20 TCP's, 12 its timestamps'.
const SEGMENT: f64 = 1390.0 - 52.0;
/// Any port; nobody listens.
const DISCARD: u16 = 9;

pub fn run(bench: &Bench) {
    let before = load();
    lanes(bench, before);
    crowd(bench);
}

/// Two engines, with one and with two lanes each.
fn lanes(bench: &Bench, before: f64) {
    let lab = wire::lab("bench-engine");
    wire::set(&lab, Wire::Whole);
    let mut nodes = [1, 2].map(|number| Node::new(&lab, number));
    let mut found: [Found; 2] = Default::default();
    let mut path = None;
    for _ in 0..RUNS {
        for (lanes, found) in LANES.into_iter().zip(&mut found) {
            for node in &mut nodes {
                node.restart();
            }
            for (node, other) in nodes.iter().zip([2, 1]) {
                node.set(lanes, &[(other, host(&lab, other), ports(lanes))]);
            }
            let path = path.get_or_insert_with(|| {
                let inside = [nodes[0].inside(), nodes[1].inside()];
                Path::new(&lab, inside, &address(1).to_string()).expect("the engines work")
            });
            found.add(path, &nodes);
        }
    }
    let [one, two] = &found;
    let row = |what: &str, unit: &str, of: fn(&Found) -> &Sample| {
        vec![what.to_owned(), of(one).show(unit), of(two).show(unit)]
    };
    let rows = [
        row("8 TCP flows", "Gbit/s", |found| &found.rate),
        row("processor time of both engines for each packet", "ns", |found| &found.packet),
        row("cores that both engines keep busy", "", |found| &found.cores),
    ];
    let note = format!(
        "{RUNS} runs, in turns; load {before:.1} at the begin. A packet is one of 1,390 bytes, sent and received. \
         Both engines, the containers and iperf3 share the cores of one machine."
    );
    bench.page.put_table("engine-lanes", &["", "one lane", "two lanes"], &rows, &[note]);
}

#[derive(Default)]
struct Found {
    rate: Sample,
    packet: Sample,
    cores: Sample,
}

impl Found {
    fn add(&mut self, path: &Path<'_>, nodes: &[Node<'_>; 2]) {
        let spent = || nodes.iter().map(Node::spent).sum::<Duration>();
        let (before, clock) = (spent(), Instant::now());
        let bytes = path.bytes(FLOWS);
        let (spent, wall) = ((spent() - before).as_secs_f64(), clock.elapsed().as_secs_f64());
        self.rate.add(bytes * 8.0 / wall / 1e9);
        self.packet.add(spent * 1e9 / (bytes / SEGMENT));
        self.cores.add(spent / wall);
    }
}

/// One engine, and all the other nodes of a large cluster.
fn crowd(bench: &Bench) {
    let lab = wire::lab("bench-engine-crowd");
    let mut node = Node::new(&lab, ENGINE);
    let others: Vec<_> = (1..=MANY)
        .map(|at| ENGINE + at)
        .map(|n| (n, host(&lab, 2), vec![crowd::port(n)]))
        .collect();
    let sender = sender(&lab, &node);
    let engine = (host(&lab, ENGINE), ports(1)[0]).into();
    let IpAddr::V4(own) = host(&lab, 2) else { unreachable!("the lab has IPv4") };
    let new = |count| Crowd::new(count, lab.host(2).holder(), own, engine);

    let mut memory: [Sample; 3] = Default::default();
    let mut idle: [Sample; 2] = Default::default();
    for ((count, memory), idle) in [1, SOME].into_iter().zip(&mut memory).zip(&mut idle) {
        let mut crowd = new(count);
        node.restart();
        node.set(1, &others[..count.into()]);
        crowd.call(LIMIT).expect("all nodes have their handshake");
        let before = node.spent();
        crowd.rest(IDLE);
        idle.add((node.spent() - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0);
        memory.add(megabytes(node.pid(), "status", "VmRSS:").expect("the engine runs"));
    }
    let mut crowd = new(MANY);
    let (mut called, mut killed) = (Sample::default(), Sample::default());
    for _ in 0..ROUNDS {
        node.restart();
        node.set(1, &others);
        let answered = crowd.call(LIMIT);
        called.add(answered.unwrap_or_else(|why| panic!("{why}: {}", node.says())).as_secs_f64());
        crowd.expect();
        let clock = Instant::now();
        node.restart();
        node.set(1, &others);
        send(&sender, MANY);
        let reached = crowd.reached(LIMIT);
        let reached = reached.unwrap_or_else(|why| panic!("{why}: {}", node.says()));
        killed.add((reached - clock).as_secs_f64());
    }
    memory[2].add(megabytes(node.pid(), "status", "VmRSS:").expect("the engine runs"));
    let goal = |sample: &Sample| Goal::AtMost(GOAL).show(sample.median());
    let row = |what: &str, sample: &Sample, unit: &str, goal: String| {
        vec![what.to_owned(), sample.show(unit), goal]
    };
    bench.page.put_table(
        "engine",
        &["", "ours", "goal"],
        &[
            row(
                "199 nodes begin a handshake at once, until all have a session",
                &called,
                "s",
                goal(&called),
            ),
            row(
                "engine killed and started, until a packet has come to each of 199 nodes",
                &killed,
                "s",
                goal(&killed),
            ),
            row("memory with 1 other node, RSS", &memory[0], "MB", String::new()),
            row("memory with 99", &memory[1], "MB", String::new()),
            row("memory with 199", &memory[2], "MB", String::new()),
            row(
                "processor time with nothing to do, with 1 other node",
                &idle[0],
                "% of a core",
                String::new(),
            ),
            row("processor time with 99", &idle[1], "% of a core", String::new()),
        ],
        &[format!("{ROUNDS} rounds; nothing was sent for {} s.", IDLE.as_secs())],
    );
}

/// A socket in the container, which knows the hardware addresses of all others.
fn sender(lab: &Lab, node: &Node<'_>) -> UdpSocket {
    let pid = node.inside();
    let entries: String = (1..=MANY)
        .map(|at| ENGINE + at)
        .map(|n| format!("neigh add {} lladdr {} dev eth0\n", address(n), shown(mac(n))))
        .collect();
    let script = format!("nsenter -t {pid} -n ip -batch - <<'EOF'\n{entries}EOF");
    lab.host(ENGINE.into()).sh(&script).ok();
    inside(pid, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).expect("a port is free")
}

/// One packet to each of so many nodes.
fn send(sender: &UdpSocket, count: u16) {
    for number in (1..=count).map(|at| ENGINE + at) {
        eventually("a packet can be sent", PATIENCE, || {
            sender.send_to(b"?", (address(number), DISCARD)).map_err(|error| error.to_string())
        });
    }
}

fn host(lab: &Lab, number: u16) -> IpAddr {
    lab.host(number.into()).ip().parse().expect("it is an address")
}
