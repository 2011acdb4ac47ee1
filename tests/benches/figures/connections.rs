//! New TCP connections a second through a published port.

use crate::{
    cluster::Cluster,
    figure::Bench,
    image,
    local::{self, From, PUBLISHED, said, start},
    report::{Goal, Row},
    stats::Sample,
};

const NETWORK: &str = "calls";
const SUBNET: &str = "10.42.0.0/24";
/// Runs of each path, in turns.
const RUNS: usize = 5;
/// Clients of a run, each with one connection at a time.
const CLIENTS: &str = "8";
const SECONDS: &str = "3";

pub fn run(bench: &Bench) {
    let engines = bench.engines("bench-connections");
    for engine in &engines {
        local::bridge(&**engine, NETWORK, SUBNET);
        let published = format!("{PUBLISHED}:80");
        start(
            &**engine,
            "server",
            &["--network", NETWORK, "-p", &published],
            &["peer", "greet", "80"],
        );
        reuse_ports(&**engine);
    }
    let peer = image::built().join("weft-lab-peer").display().to_string();
    let own = engines[0].lab().host(1).ip();
    let paths = [
        ("from another namespace", From::Outside, own.as_str()),
        ("from the host, at its own address", From::Host, own.as_str()),
        ("from the host, at 127.0.0.1", From::Host, "127.0.0.1"),
    ];
    let rows = paths.map(|(what, from, target)| {
        let argv = [peer.as_str(), "dial", target, PUBLISHED, CLIENTS, SECONDS];
        let mut found = [Sample::default(), Sample::default()];
        for _ in 0..RUNS {
            for (engine, sample) in engines.iter().zip(&mut found) {
                let rate = said(&**engine, from, &argv, |text| {
                    text.parse::<f64>().map_err(|error| format!("{error}: {text}"))
                });
                sample.add(rate / 1e3);
            }
        }
        Row::ratio(what, "thousand/s", &found[0], &found[1], Goal::AtLeast(1.0))
    });
    bench.page.put(
        "connections",
        &rows,
        &[format!(
            "{RUNS} runs of {SECONDS} s, in turns: {CLIENTS} clients, each of which connects, reads what the server \
             says at once, resets the connection, and begins anew."
        )],
    );
}

/// A program between client and server closes its own connections in order, and then their ports rest for
/// a minute, until none is left. So everywhere a port may be used again after a second, and there are as
/// many as can be: the same for ours and for the peer.
fn reuse_ports(engine: &dyn Cluster) {
    const SCRIPT: &str = "echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse
         echo 1024 65535 >/proc/sys/net/ipv4/ip_local_port_range";
    engine.lab().host(1).sh(SCRIPT).ok();
    engine.lab().outside(SCRIPT).ok();
    let pid = engine.say(1, &["inspect", "--format", "{{.State.Pid}}", "server"]).ok();
    // The files below /proc/sys/net are those of the network namespace of whoever opens them.
    let argv = ["nsenter", "-t", &pid, "-n", "sh", "-ec", SCRIPT];
    engine.lab().host(1).run(&argv).ok();
}
