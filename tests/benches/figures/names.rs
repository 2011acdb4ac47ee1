//! Queries a second, and how long the slow ones take, of the resolver in a container.

use std::fmt::Write as _;

use weft_tests::{Output, eventually};

use crate::{
    cluster::{Cluster, PATIENCE},
    figure::Bench,
    report::{Goal, Row},
    stats::Sample,
};

const NETWORK: &str = "names";
const SUBNET: &str = "10.33.0.0/24";
const SERVICE: &str = "ask";
const RUNS: usize = 3;
const SECONDS: &str = "3";
/// Clients and queries on their way, of the run that asks as fast as it can.
const CLIENTS: &str = "4";
const WINDOW: &str = "200";
/// Queries a second of the run whose times are looked at one by one: what both can do with ease, so
/// that it is the resolver that is measured and not a queue in front of it.
const PACE: &str = "5000";
/// Names in the file that dnsperf goes through; all are the same, and known.
const LINES: usize = 100;
/// Three times as good, of a time.
const THIRD: f64 = 0.33;

pub fn run(bench: &Bench) {
    let ours = bench.ours("bench-names", 1, 0);
    let peer = bench.peer("bench-names-peer", 1, 0);
    let clusters: Vec<&dyn Cluster> =
        [Some(&*ours), peer.as_deref()].into_iter().flatten().collect();
    for cluster in &clusters {
        prepare(*cluster);
    }
    let mut found: Vec<[Sample; 3]> = vec![Default::default(); 2];
    for _ in 0..RUNS {
        for (cluster, [rate, middle, slow]) in clusters.iter().zip(&mut found) {
            rate.add(fast(*cluster) / 1e3);
            let times = paced(*cluster);
            middle.add(times[times.len() / 2]);
            slow.add(times[times.len() * 99 / 100]);
        }
    }
    let [ours, peer] = &found[..] else { unreachable!("there are two") };
    let row = |what: &str, unit: &str, at: usize, goal| {
        Row::ratio(what, unit, &ours[at], &peer[at], goal)
    };
    bench.page.put(
        "names",
        &[
            row("queries a second", "thousand/s", 0, Goal::AtLeast(3.0)),
            row("middle of the times", "µs", 1, Goal::None),
            row("99th of 100 times", "µs", 2, Goal::AtMost(THIRD)),
        ],
        &[format!(
            "{RUNS} runs, in turns, in a container: `dnsperf -s 127.0.0.11 -c {CLIENTS} -q {WINDOW} -l {SECONDS}` \
             for the first line, and with `-v -Q {PACE}` for the times."
        )],
    );
}

fn prepare(cluster: &dyn Cluster) {
    cluster.network(NETWORK, SUBNET);
    cluster.create(SERVICE, NETWORK, &["--replicas", "1"], &["sleep", "1000000"]);
    cluster.wait_full(SERVICE);
    let mut lines = String::new();
    for _ in 0..LINES {
        let _ = writeln!(lines, "{SERVICE} A");
    }
    let script = format!("cat >/tmp/names <<'EOF'\n{lines}EOF");
    cluster.run_inside(1, SERVICE, &["sh", "-c", &script]);
}

fn dnsperf(cluster: &dyn Cluster, more: &[&str]) -> String {
    let mut argv = vec!["dnsperf", "-s", "127.0.0.11", "-d", "/tmp/names", "-l", SECONDS];
    argv.extend(more);
    eventually("dnsperf has its answers", PATIENCE, || {
        let text = Output::of(&mut cluster.inside(1, SERVICE, &argv), &argv).text()?;
        // A resolver that refuses quickly is not quick.
        if text.contains("NOERROR") { Ok(text) } else { Err(text) }
    })
}

fn fast(cluster: &dyn Cluster) -> f64 {
    let text = dnsperf(cluster, &["-c", CLIENTS, "-q", WINDOW]);
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Queries per second:"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

/// Microseconds that each answer took, sorted.
fn paced(cluster: &dyn Cluster) -> Vec<f64> {
    let text = dnsperf(cluster, &["-v", "-Q", PACE]);
    // "> NOERROR ask A 0.000057"
    let lines = text.lines().filter(|line| line.starts_with("> NOERROR"));
    let seconds = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    let mut times: Vec<f64> = seconds.map(|seconds| seconds * 1e6).collect();
    assert!(!times.is_empty(), "no times in {text}");
    times.sort_by(f64::total_cmp);
    times
}
