//! One TCP flow between containers of two hosts.

use std::{cell::RefCell, process::Child};

use weft_tests::eventually;

use crate::{
    byhand::ByHand,
    cluster::{Cluster, PATIENCE},
    figure::Bench,
    report::{Goal, Row},
    stats::Sample,
};

const NETWORK: &str = "flow";
const SUBNET: &str = "10.31.0.0/24";
const SUBNET_PREFIX: &str = "10.31.0.";
const SERVICE: &str = "iperf";
/// Runs of each path; they take turns, so that what else the machine does hits all of them.
const RUNS: usize = 5;
/// Seconds of one run, and those before it that are not counted: the window grows at first.
pub const SECONDS: &str = "3";
pub const OMITTED: &str = "1";

/// Bits a second, once.
type Measure<'a> = Box<dyn Fn() -> f64 + 'a>;

pub fn run(bench: &Bench) {
    let ours = bench.ours("bench-flow", 1, 1);
    let peer = bench.peer("bench-flow-peer", 1, 1);
    let hand = Hand::new();
    let mut paths: Vec<Measure<'_>> = vec![Box::new(|| hand.measure()), prepare(&*ours)];
    paths.extend(peer.as_deref().map(prepare));
    let mut found = vec![Sample::default(); 3];
    for _ in 0..RUNS {
        for (measure, sample) in paths.iter().zip(&mut found) {
            sample.add(measure() / 1e9);
        }
    }
    let [hand, ours, peer] = &found[..] else { unreachable!("there are three") };
    bench.page.put(
        "flow",
        &[
            Row::ratio("against the same path made by hand", "Gbit/s", ours, hand, Goal::AtLeast(0.97)),
            Row::ratio("against Docker Swarm's overlay", "Gbit/s", ours, peer, Goal::AtLeast(1.0)),
        ],
        &[format!(
            "{RUNS} runs of each path, in turns: `iperf3 -c <address in n1> -t {SECONDS} -O {OMITTED}` in n2."
        )],
    );
}

/// Starts the server on n1; what is returned measures from n2.
fn prepare(cluster: &dyn Cluster) -> Measure<'_> {
    cluster.network(NETWORK, SUBNET);
    cluster.create(SERVICE, NETWORK, &["--mode", "global"], &["iperf3", "-s"]);
    cluster.wait_full(SERVICE);
    let target = cluster.address(1, SERVICE, SUBNET_PREFIX);
    Box::new(move || {
        eventually("iperf3 answers", PATIENCE, || {
            let argv = client(&target);
            let said = weft_tests::Output::of(&mut cluster.inside(2, SERVICE, &argv), &argv);
            rate(&said.text()?)
        })
    })
}

/// The path made by hand, with its server.
struct Hand {
    path: ByHand,
    server: RefCell<Child>,
}

impl Hand {
    fn new() -> Self {
        let path = ByHand::new("bench-flow-hand");
        let mut command = path.command(1, &["iperf3", "-s"]);
        let server = command.stdout(std::process::Stdio::null()).spawn().expect("iperf3 runs");
        Self { path, server: RefCell::new(server) }
    }

    fn measure(&self) -> f64 {
        eventually("iperf3 answers", PATIENCE, || {
            let argv = client("10.77.0.1");
            rate(&weft_tests::Output::of(&mut self.path.command(2, &argv), &argv).text()?)
        })
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        let mut server = self.server.borrow_mut();
        let _ = server.kill();
        let _ = server.wait();
    }
}

fn client(target: &str) -> [&str; 8] {
    ["iperf3", "-c", target, "-t", SECONDS, "-O", OMITTED, "-J"]
}

/// Bits a second that were received, of iperf3's own words.
pub fn rate(text: &str) -> Result<f64, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    value["end"]["sum_received"]["bits_per_second"].as_f64().ok_or_else(|| text.to_owned())
}
