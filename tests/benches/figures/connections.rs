//! New TCP connections a second through a published port.

use crate::{
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
