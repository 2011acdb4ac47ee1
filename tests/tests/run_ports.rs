//! Published ports of a lone host: ranges, chosen ones, protocols, addresses, who else has the port,
//! and what the administrator does to the rules.
#![forbid(unsafe_code)]

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::Duration,
};

use weft_tests::{Host, Lab, Output};

const SOON: u64 = 10;
/// What was flushed is back within about a second.
const REPAIR: Duration = Duration::from_millis(2500);

const SERVE: &[&str] = &["peer", "serve", "80"];

fn tcp(lab: &Lab, from: &Host, address: &str, port: &str) -> Output {
    from.run(&[&lab.peer(), "tcp", address, port])
}

#[track_caller]
fn reaches(lab: &Lab, from: &Host, address: &str, port: &str) -> String {
    from.eventually(&format!("{address} {port} answers"), SOON, |from| {
        tcp(lab, from, address, port).text()
    })
}

#[track_caller]
fn udp_reaches(lab: &Lab, from: &Host, address: &str, port: &str) -> String {
    from.eventually(&format!("{address} {port}/udp answers"), SOON, |from| {
        let said = from.run(&[&lab.peer(), "udp", address, port, "1"]);
        let text = said.text()?;
        if text.starts_with("none") { Err(said.to_string()) } else { Ok(text) }
    })
}

#[test]
fn ranges_chosen_ports_protocols_and_addresses() {
    let lab = Lab::alone("ports-kinds", 2);
    let (host, other) = (lab.host(1), lab.host(2));
    let flags = [
        "-p",
        "7000-7003:80-83",
        "-p",
        "7080:80/udp",
        "-p",
        "127.0.0.1:7100:80",
        "-p",
        "10.99.0.1:7101:80",
        "-p",
        "[fd99::1]:7102:80",
        "-p",
        "90",
        "--expose",
        "91-92",
        "-P",
    ];
    lab.run("web", &flags, SERVE);
    for (address, port) in [
        ("127.0.0.1", "7000"),
        ("10.99.0.1", "7000"),
        ("::1", "7000"),
        ("fd99::1", "7000"),
        ("127.0.0.1", "7100"),
        ("10.99.0.1", "7101"),
        ("fd99::1", "7102"),
    ] {
        assert!(reaches(&lab, host, address, port).starts_with("web "), "{address} {port}");
    }
    for address in ["127.0.0.1", "10.99.0.1", "::1", "fd99::1"] {
        assert!(udp_reaches(&lab, host, address, "7080").starts_with("web "), "{address}");
    }
    // From another machine the client's address stays; what is bound elsewhere is not there.
    assert_eq!(reaches(&lab, other, "10.99.0.1", "7000"), "web 10.99.0.2");
    assert_eq!(udp_reaches(&lab, other, "10.99.0.1", "7080"), "web 10.99.0.2");
    assert!(reaches(&lab, other, "fd99::1", "7000").starts_with("web "));
    for (address, port) in [("10.99.0.1", "7100"), ("fd99::1", "7101"), ("10.99.0.1", "7102")] {
        assert_ne!(tcp(&lab, other, address, port).code, 0, "{address} {port}");
    }
    // Chosen ports are dynamic ones, all different for a protocol.
    let ports = host.weft(&["port", "web"]).ok();
    let chosen: Vec<u16> = ports
        .lines()
        .filter(|line| ["90/", "91/", "92/"].iter().any(|port| line.starts_with(port)))
        .filter(|line| line.contains("0.0.0.0:"))
        .map(|line| line.rsplit(':').next().expect("a port").parse().expect("a number"))
        .collect();
    let mut different = chosen.clone();
    different.sort_unstable();
    different.dedup();
    assert!(different.len() == 3 && different[0] >= 49153, "{ports}");
    let listening = host.sh("ss -Hltn | awk '{print $4}'").ok();
    for place in ["0.0.0.0:7003", "[::]:7003", "127.0.0.1:7100", "10.99.0.1:7101"] {
        assert!(listening.lines().any(|line| line == place), "{place} is not in {listening}");
    }
    let localnet = host.sh("cat /proc/sys/net/ipv4/conf/*/route_localnet | sort -u").ok();
    assert_eq!(localnet, "0");
    host.weft(&["rm", "-f", "web"]).ok();
    assert_eq!(host.sh("ss -Hltn | grep -cE ':(70|71|49)' || true").ok(), "0");
}

#[test]
fn a_port_that_is_taken_is_refused_before_the_start() {
    let lab = Lab::alone("ports-taken", 1);
    let host = lab.host(1);
    lab.run("first", &["-p", "8080:80"], SERVE);
    let before = host.snapshot();
    let touch = format!("{}:/shared", lab.dir().display());
    let command = ["sh", "-c", "touch /shared/started"];
    let take =
        |name: &str, port: &str| lab.try_run(&["--name", name, "-v", &touch, "-p", port], &command);
    take("second", "8080:80").refused(125, &["8080", "already allocated", "first"]);
    take("third", "127.0.0.1:8080:80").refused(125, &["8080", "already allocated"]);
    let mut listener =
        host.command(&[&lab.peer(), "serve", "8081"]).spawn().expect("the listener can be started");
    reaches(&lab, host, "127.0.0.1", "8081");
    for port in ["8081:80", "8081:80/udp"] {
        take("foreign", port).refused(125, &["8081", "already allocated"]);
        host.weft(&["rm", "foreign"]).ok();
    }
    // A range leads around it.
    lab.run("around", &["-p", "8080-8083:80"], SERVE);
    assert!(host.weft(&["port", "around"]).ok().contains(":8082"));
    host.weft(&["rm", "-f", "around", "second", "third"]).ok();
    assert!(!lab.dir().join("started").exists(), "it was started");
    host.eventually("nothing is left of the refused ones", SOON, |host| {
        let changes = before.changes(&host.snapshot());
        if changes.is_empty() { Ok(()) } else { Err(format!("{changes:#?}")) }
    });
    // The other way round: what is reserved is nobody else's.
    assert_ne!(host.run(&[&lab.peer(), "serve", "8080"]).code, 0);
    listener.kill().expect("it runs");
    listener.wait().expect("our child");
    // Once it is free, the same container starts.
    lab.try_run(&["-d", "--name", "late", "-p", "8080:80"], SERVE).refused(125, &["8080"]);
    host.weft(&["stop", "-t", "0", "first"]).ok();
    host.weft(&["start", "late"]).ok();
    host.weft(&["start", "first"]).refused(1, &["8080", "late"]);
}

#[test]
fn a_udp_client_follows_the_container_over_its_restart() {
    let lab = Lab::alone("ports-udp", 2);
    let (host, other) = (lab.host(1), lab.host(2));
    lab.run("dns", &["-p", "7053:80/udp"], SERVE);
    udp_reaches(&lab, other, "10.99.0.1", "7053");
    // Always from one port: the old entry of the connection table fits each packet.
    let mut client = other
        .command(&[&lab.peer(), "udp", "10.99.0.1", "7053", "1000"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the client can be started");
    let out = client.stdout.take().expect("piped");
    let mut lines = BufReader::new(out).lines().map_while(Result::ok);
    assert!(lines.by_ref().take(50).any(|line| line.starts_with("dns ")), "it answers");
    let before = host.container_named("dns").address("bridge").expect("address");
    host.weft(&["restart", "-t", "0", "dns"]).ok();
    assert!(lines.by_ref().take(100).any(|line| line.starts_with("dns ")), "after a restart");
    // Another container takes the port at another address: the old way leads nowhere.
    host.weft(&["rm", "-f", "dns"]).ok();
    lab.run("new", &["-p", "7053:80/udp"], SERVE);
    assert_ne!(host.container_named("new").address("bridge"), Ok(before));
    assert!(lines.take(100).any(|line| line.starts_with("new ")), "the flow leads to the new one");
    client.kill().expect("it runs");
    client.wait().expect("our child");
}

#[test]
fn rules_that_are_flushed_are_back_and_the_admins_own_stay() {
    let lab = Lab::alone("ports-flush", 2);
    let (host, other) = (lab.host(1), lab.host(2));
    lab.run("web", &["-p", "8080:80"], SERVE);
    reaches(&lab, other, "10.99.0.1", "8080");
    let before = host.snapshot();
    host.sh("nft add table inet mine; nft add chain inet mine c").ok();
    host.sh("nft delete table inet mine").ok();
    host.sh("nft flush ruleset").ok();
    weft_tests::eventually("all rules are back", REPAIR, || {
        let changes = before.changes(&host.snapshot());
        if changes.is_empty() { Ok(()) } else { Err(format!("{changes:#?}")) }
    });
    reaches(&lab, other, "10.99.0.1", "8080");
    // The administrator shuts one machine out; that is evaluated first, and stays.
    host.sh("nft add rule inet weft weft-user ip saddr 10.99.0.2 tcp dport 8080 drop").ok();
    let shut = || tcp(&lab, other, "10.99.0.1", "8080").code != 0;
    assert!(shut());
    host.restart();
    lab.run("web2", &["-p", "8081:80"], SERVE);
    reaches(&lab, other, "10.99.0.1", "8081");
    assert!(shut(), "its rules were lost");
    let rules = host.sh("nft list chain inet weft weft-user").ok();
    assert_eq!(rules.matches("10.99.0.2").count(), 1, "{rules}");
    reaches(&lab, host, "127.0.0.1", "8080");
}

#[test]
fn ports_of_sctp_are_translated_as_others_are() {
    let lab = Lab::alone("ports-sctp", 1);
    let host = lab.host(1);
    let web = lab.run("web", &["-p", "9000:91/sctp"], &["sleep", "1000000"]);
    assert!(host.weft(&["port", "web"]).ok().contains("91/sctp -> 0.0.0.0:9000"));
    let led = || host.sh("nft list map inet weft everywhere4").ok();
    let address = web.address("bridge").expect("address");
    assert!(led().contains(&format!("sctp . 9000 : {address} . 91")), "{}", led());
    host.weft(&["rm", "-f", "web"]).ok();
    assert!(!led().contains("sctp . 9000"), "{}", led());
}
