//! Many lives of containers and networks: nothing is left of them, and the daemon does not grow.
#![forbid(unsafe_code)]

use weft_tests::{Host, Lab, Snapshot, soak, weft_binary};

/// Cycles in an ordinary run and in a long one.
const CYCLES: (usize, usize) = (200, 10_000);
/// Cycles until the daemon has made what it makes once.
const WARM: usize = 100;
/// Cycles at the same time.
const WORKERS: usize = 4;
/// By how much the daemon may grow after that, in kB, whatever the number of cycles: memory that was
/// freed and is kept by the allocator, and the log before it is rewritten.
const GROWTH: u64 = 24 * 1024;

/// Resident memory of a host's daemon, in kB.
fn memory(host: &Host) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid()));
    let status = status.expect("the daemon runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process");
    line.trim_end_matches("kB").trim().parse().expect("a number")
}

/// `count` cycles, several at a time: three short runs for each long life with a network that comes
/// and goes. Ends at the first command that fails.
fn live(lab: &Lab, count: usize) {
    let (weft, image) = (weft_binary().display().to_string(), lab.image());
    let each = count / WORKERS;
    let worker = format!(
        "for i in $(seq {each}); do \
           if [ $((i % 4)) -gt 0 ]; then {weft} run --rm --network shop {image} true; continue; fi; \
           {weft} network create net$w; \
           {weft} run -d --name c$w --network shop -p 80 {image} sleep 1000000; \
           {weft} network connect net$w c$w; {weft} network disconnect net$w c$w; \
           {weft} rm -f c$w; {weft} network rm net$w; \
         done"
    );
    let script = format!(
        "pids=; for w in $(seq {WORKERS}); do (set -e; {worker}) >/dev/null & pids=\"$pids $!\"; done; \
         for pid in $pids; do wait $pid; done"
    );
    lab.host(1).sh(&script).ok();
}

/// The kernel of a host once all that has left is noticed: a bridge loses its carrier a moment later.
fn settled(host: &Host) -> Snapshot {
    host.eventually("no bridge has a carrier", 10, |host| {
        let links = host.sh("ip -o link show type bridge").text()?;
        if links.contains("state UP") { Err(links) } else { Ok(()) }
    });
    host.snapshot()
}

#[test]
fn nothing_is_left_of_many_lives_and_the_daemon_does_not_grow() {
    let lab = Lab::alone("soak", 1);
    let host = lab.host(1);
    host.weft(&["network", "create", "shop"]).ok();
    live(&lab, WARM);
    host.has_nothing_left("the first ones");
    let (before, early) = (settled(host), memory(host));
    let cycles = if soak() { CYCLES.1 } else { CYCLES.0 };
    let fifth = (cycles - WARM) / 5;
    live(&lab, fifth);
    eprintln!("memory of the daemon: {} kB after {}", memory(host), WARM + fifth);
    live(&lab, cycles - WARM - fifth);
    assert_eq!(host.weft(&["ps", "-aq"]).ok(), "");
    host.has_nothing_left("all of them");
    assert_eq!(before.changes(&settled(host)), Vec::<String>::new());
    let late = memory(host);
    eprintln!("memory of the daemon: {early} kB after {WARM} cycles, {late} kB after {cycles}");
    assert!(late < early + GROWTH, "from {early} kB to {late} kB in {cycles} cycles");
}
