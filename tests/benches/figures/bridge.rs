//! One TCP flow on one host: between two containers of a bridge, and through a published port.

use crate::{
    cluster::Cluster,
    figure::Bench,
    flow::{OMITTED, SECONDS, rate},
    local::{self, From, PUBLISHED, said, start},
    report::{Goal, Row},
    stats::Sample,
};

const NETWORK: &str = "flow";
const SUBNET: &str = "10.41.0.0/24";
const SERVER: &str = "10.41.0.2";
/// Runs of each path, in turns.
const RUNS: usize = 5;
/// The port of `iperf3 -s`.
const PORT: &str = "5201";
/// As much as the peer.
const GOAL: Goal = Goal::AtLeast(1.0);

/// One path: from where, and to which address and port.
struct Path {
    what: &'static str,
    from: From,
    target: String,
    port: &'static str,
}

pub fn bridge(bench: &Bench) {
    let paths = |_: &dyn Cluster| {
        vec![Path {
            what: "container to container, one bridge",
            from: From::Container,
            target: SERVER.to_owned(),
            port: PORT,
        }]
    };
    measure(bench, "bridge", &["--ip", SERVER], paths);
}

pub fn publish(bench: &Bench) {
    let paths = |engine: &dyn Cluster| {
        let own = engine.lab().host(1).ip();
        let path = |what, from, target: &str| Path {
            what,
            from,
            target: target.to_owned(),
            port: PUBLISHED,
        };
        vec![
            path("from another namespace", From::Outside, &own),
            path("from the host, at its own address", From::Host, &own),
            path("from the host, at 127.0.0.1", From::Host, "127.0.0.1"),
        ]
    };
    measure(bench, "publish", &["-p", &format!("{PUBLISHED}:{PORT}")], paths);
}

fn measure(
    bench: &Bench,
    figure: &str,
    flags: &[&str],
    paths: impl std::ops::Fn(&dyn Cluster) -> Vec<Path>,
) {
    let engines = bench.engines(&format!("bench-{figure}"));
    let flags: Vec<&str> = ["--network", NETWORK].iter().chain(flags).copied().collect();
    for engine in &engines {
        local::bridge(&**engine, NETWORK, SUBNET);
        start(&**engine, "server", &flags, &["iperf3", "-s"]);
        start(&**engine, "client", &["--network", NETWORK], &["sleep", "1000000"]);
    }
    let paths: Vec<Vec<Path>> = engines.iter().map(|engine| paths(&**engine)).collect();
    let mut rows = Vec::new();
    for at in 0..paths[0].len() {
        let mut found = [Sample::default(), Sample::default()];
        for _ in 0..RUNS {
            for ((engine, paths), sample) in engines.iter().zip(&paths).zip(&mut found) {
                sample.add(flow(&**engine, &paths[at]) / 1e9);
            }
        }
        rows.push(Row::ratio(paths[0][at].what, "Gbit/s", &found[0], &found[1], GOAL));
    }
    let note = format!("{RUNS} runs, in turns: `iperf3 -t {SECONDS} -O {OMITTED}`.");
    bench.page.put(figure, &rows, &[note]);
}

fn flow(engine: &dyn Cluster, path: &Path) -> f64 {
    let argv = ["iperf3", "-c", &path.target, "-p", path.port, "-t", SECONDS, "-O", OMITTED, "-J"];
    said(engine, path.from, &argv, rate)
}
