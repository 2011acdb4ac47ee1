//! Encrypted overlays beside plain ones and beside other programs that encrypt in user space, between
//! containers of two hosts that one veth pair joins. All are up at once and take turns.

pub mod path;
mod peers;
pub mod wire;

use weft_tests::Lab;

use crate::{
    cluster::{Cluster, PATIENCE},
    figure::Bench,
    report::{Goal, Row},
    stats::Sample,
};

use path::Path;
use peers::{Peer, Tunnel};
use wire::Wire;

const SERVICE: &str = "idle";
/// Runs of one flow on each way, in turns.
const RUNS: usize = 5;
/// Runs of what has no goal, or little to vary.
const FEW: usize = 3;
/// Flows at once, where it is not one.
const FLOWS: &str = "8";
/// Bytes of UDP packets, and bits a second that are sent of each; 0 is as many as can be.
const SMALL: (&str, &str) = ("64", "0");
const LARGE: (&str, &str) = ("1300", "3G");
/// What the figures are measured against, in their order.
const ALONE: &str = "plain VXLAN";
/// Milliseconds that encrypting may add to a round trip.
const ADDED: f64 = 0.2;

/// What was found on one way.
#[derive(Default)]
struct Found {
    flow: Sample,
    cut: Sample,
    flows: Sample,
    small: Sample,
    large: Sample,
    round_trip: Sample,
}

/// A way by its name, or why there is none.
struct Way<'a> {
    name: &'static str,
    path: Result<Path<'a>, String>,
    found: Found,
}

pub fn run(bench: &Bench) {
    let load = load();
    let ours = bench.ours_in(wire::lab("bench-encrypted"), 1);
    let plain = prepare(&*ours, "plain", "10.71.0.0/24", "10.71.0.", &[]);
    let encrypted = prepare(&*ours, "encrypted", "10.72.0.0/24", "10.72.0.", &["-o", "encrypted"]);
    let plain = plain.expect("a plain overlay works");
    let packets = wire::clear(ours.lab(), || plain.round_trip());
    assert!(packets > 0, "what a plain overlay sends is not seen");
    let encrypted = match encrypted {
        Ok(path) => path,
        Err(said) => {
            eprintln!("error: there is no encrypted overlay: {said}");
            return;
        }
    };
    let packets = wire::clear(ours.lab(), || encrypted.round_trip());
    assert_eq!(packets, 0, "an encrypted overlay sends in the clear");
    let labs = bench.with_peer().then(|| peers::lab("bench-encrypted-peers"));
    let tunnels: Vec<(Peer, Result<Tunnel<'_>, String>)> =
        labs.iter().flat_map(|lab| Peer::ALL.map(|peer| (peer, Tunnel::new(lab, peer)))).collect();
    let mut ways = vec![Way::new("ours, encrypted", Ok(encrypted)), Way::new(ALONE, Ok(plain))];
    for (peer, tunnel) in &tunnels {
        let path = tunnel.as_ref().map_err(Clone::clone).and_then(Tunnel::path);
        ways.push(Way::new(peer.name(), path));
    }
    let all: Vec<&Lab> = [ours.lab()].into_iter().chain(&labs).collect();
    measure(&mut ways, &all);
    report(bench, &ways, load);
}

impl<'a> Way<'a> {
    fn new(name: &'static str, path: Result<Path<'a>, String>) -> Self {
        if let Err(said) = &path {
            eprintln!("{name} is left out: {said}");
        }
        Self { name, path, found: Found::default() }
    }
}

/// A network with a container on each host, and the way between them.
fn prepare<'a>(
    cluster: &'a dyn Cluster,
    name: &str,
    subnet: &str,
    prefix: &str,
    flags: &[&str],
) -> Result<Path<'a>, String> {
    let mut args = vec!["network", "create", "-d", "overlay", "--subnet", subnet];
    args.extend(flags);
    args.push(name);
    cluster.say(1, &args).text()?;
    let service = format!("{SERVICE}-{name}");
    cluster.create(&service, name, &["--mode", "global"], &["sleep", "1000000"]);
    cluster.wait_full(&service);
    let pids = [1, 2].map(|host| pid(cluster, host, &service));
    Path::new(cluster.lab(), pids, &cluster.address(1, &service, prefix))
}

/// First process of the container of a service on a host.
fn pid(cluster: &dyn Cluster, host: usize, service: &str) -> u32 {
    weft_tests::eventually("the container runs", PATIENCE, || {
        let id = cluster.container(host, service)?;
        let text = cluster.say(host, &["inspect", "--format", "{{.State.Pid}}", &id]).text()?;
        // 0 until the container has begun.
        let pid = text.parse().map_err(|error| format!("{error}: {text}"))?;
        if pid == 0 { Err(format!("{id} has no process")) } else { Ok(pid) }
    })
}

fn measure(ways: &mut [Way<'_>], labs: &[&Lab]) {
    let all = |wire| labs.iter().for_each(|lab| wire::set(lab, wire));
    all(Wire::Whole);
    turns(ways, RUNS, |path, found| found.flow.add(path.flow() / 1e9));
    turns(ways, FEW, |path, found| found.flows.add(path.flows(FLOWS) / 1e9));
    turns(ways, FEW, |path, found| found.small.add(path.packets(SMALL.0, SMALL.1) / 1e3));
    turns(ways, FEW, |path, found| found.large.add(path.packets(LARGE.0, LARGE.1) / 1e3));
    turns(ways, FEW, |path, found| found.round_trip.add(path.round_trip().as_secs_f64() * 1e3));
    all(Wire::Cut);
    turns(ways, RUNS, |path, found| found.cut.add(path.flow() / 1e9));
}

/// Does it so many times on each way that there is; they take turns.
fn turns(ways: &mut [Way<'_>], runs: usize, once: impl Fn(&Path<'_>, &mut Found)) {
    for _ in 0..runs {
        for way in &mut *ways {
            if let Ok(path) = &way.path {
                once(path, &mut way.found);
            }
        }
    }
}

fn report(bench: &Bench, ways: &[Way<'_>], load: f64) {
    let none = Found::default();
    let find =
        |name: &str| ways.iter().find(|way| way.name == name).map_or(&none, |way| &way.found);
    let ours = &ways[0].found;
    let [plain, boringtun, go, nebula] = [
        find(ALONE),
        find(Peer::Boringtun.name()),
        find(Peer::WireguardGo.name()),
        find(Peer::Nebula.name()),
    ];
    let rate = |what: &str, ours: &Sample, peer: &Sample, goal: f64| {
        Row::ratio(what, "Gbit/s", ours, peer, Goal::AtLeast(goal))
    };
    let packets = |what: &str, ours: &Sample, peer: &Sample| {
        Row::ratio(what, "thousand/s", ours, peer, Goal::None)
    };
    let added = |found: &Found| found.round_trip.less(&plain.round_trip);
    let mut notes = vec![format!(
        "{RUNS} runs of one flow and {FEW} of all else, in turns; load {load:.1} at the begin and {:.1} at the end.",
        self::load()
    )];
    notes.extend(ways.iter().filter_map(|way| {
        way.path.as_ref().err().map(|said| format!("{} is left out: {said}.", way.name))
    }));
    bench.page.put(
        "encrypted",
        &[
            rate("one TCP flow, against plain VXLAN", &ours.flow, &plain.flow, 0.25),
            rate("against boringtun-cli", &ours.flow, &boringtun.flow, 5.0),
            rate("against wireguard-go", &ours.flow, &go.flow, 4.0),
            rate("against nebula", &ours.flow, &nebula.flow, 3.0),
            rate(
                "one TCP flow on a wire that cuts, against plain VXLAN",
                &ours.cut,
                &plain.cut,
                0.35,
            ),
            Row::bound(
                "added to a round trip of plain VXLAN, beside boringtun-cli",
                "ms",
                &added(ours),
                &added(boringtun),
                Goal::AtMost(ADDED),
            ),
            Row::ratio(
                "8 TCP flows, against plain VXLAN",
                "Gbit/s",
                &ours.flows,
                &plain.flows,
                Goal::None,
            ),
            packets("UDP packets of 64 bytes, against plain VXLAN", &ours.small, &plain.small),
            packets("UDP packets of 1,300 bytes, against plain VXLAN", &ours.large, &plain.large),
        ],
        &notes,
    );
    let head =
        ["", "one flow", "8 flows", "cut, one flow", "64 bytes", "1,300 bytes", "round trip"];
    let rows: Vec<Vec<String>> = ways.iter().map(row).collect();
    bench.page.put_table("encrypted-all", &head, &rows, &[]);
}

/// A way with all that was found on it.
fn row(way: &Way<'_>) -> Vec<String> {
    let found = &way.found;
    vec![
        way.name.to_owned(),
        found.flow.show("Gbit/s"),
        found.flows.show("Gbit/s"),
        found.cut.show("Gbit/s"),
        found.small.show("thousand/s"),
        found.large.show("thousand/s"),
        found.round_trip.show("ms"),
    ]
}

/// Processes that ran or wanted to, over the last minute.
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").expect("/proc is mounted");
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}
