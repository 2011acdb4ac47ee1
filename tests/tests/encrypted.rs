//! Encrypted networks: what holds of plain ones holds of them, and nothing that dies on a node, and no
//! change of a key, cuts a flow.
#![forbid(unsafe_code)]

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use weft_tests::{Container, Host, Lab, eventually, stays};
use weft_wire::{Client, Config, Identity};

/// How long what was killed may take to be back.
const BACK: Duration = Duration::from_secs(1);
/// How long the others may know the key of a node that was removed.
const FORGET: Duration = Duration::from_secs(5);
/// How long a busy machine may take for everything else.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a flow must live on, once what was killed is back.
const GOES_ON: u64 = 25;

/// A cluster of `count` hosts with an encrypted network and a server on each.
fn lab(name: &str, count: usize) -> Lab {
    let lab = Lab::cluster(name, 1, count - 1);
    network_and_servers(&lab, count);
    lab
}

fn network_and_servers(lab: &Lab, count: usize) {
    let create = ["network", "create", "-d", "overlay", "-o", "encrypted", "--attachable"];
    lab.host(1).weft(&[&create[..], &["--subnet", "10.20.0.0/24", "shop"]].concat()).ok();
    for n in 1..=count {
        let place = format!("node.hostname==n{n}");
        lab.serve(&format!("on{n}"), &["--network", "shop", "--constraint", &place]);
    }
}

fn on(lab: &Lab, n: usize) -> Container<'_> {
    lab.host(n).container(&format!("on{n}"))
}

/// Every server reaches every other by name, by ping, TCP and UDP.
fn all_reach_all(lab: &Lab, count: usize) {
    for from in 1..=count {
        for to in (1..=count).filter(|to| *to != from) {
            let (from, name) = (on(lab, from), format!("on{to}"));
            from.pings(&name);
            from.eventually("tcp", 10, |c| c.tcp(&name, 80));
            from.eventually("udp", 10, |c| c.udp(&name, 80));
        }
    }
}

/// The process of the engine, and that there is but one.
fn engine(host: &Host) -> Result<u32, String> {
    let script = format!("pgrep -f '[w]ire --run-dir {}$'", host.run_dir().display());
    let found = host.sh(&script).text()?;
    found.parse().map_err(|error| format!("{error}: {found:?}"))
}

/// What the engine of a host does.
fn config(host: &Host) -> Result<Config, String> {
    let asked = Client::connect(&host.run_dir()).and_then(|mut client| client.get());
    asked.map_err(|error| error.to_string())
}

fn kill_engine(host: &Host) -> u32 {
    let pid = engine(host).expect("it runs");
    host.sh(&format!("kill -9 {pid}")).ok();
    pid
}

/// A network namespace of somebody else.
struct Guest(Child);

impl Guest {
    fn new(host: &Host) -> Self {
        let mut child = host
            .command(&["unshare", "--net", "sh", "-c", "echo ready && exec sleep infinity"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (util-linux) runs");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("it speaks");
        assert_eq!(line.trim(), "ready");
        Self(child)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A TCP connection that was made without the daemon, so that it depends on nothing but the network.
struct Flow {
    child: Child,
    lines: Box<dyn Iterator<Item = String>>,
}

impl Flow {
    fn start(lab: &Lab, host: &Host, from: &Container<'_>, target: &str) -> Self {
        let (pid, peer) = (from.pid().expect("pid").to_string(), lab.peer());
        let mut child = host
            .command(&["nsenter", "-t", &pid, "-n", &peer, "flow", target, "80"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("nsenter (util-linux) runs");
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut lines = Box::new(out.lines().map_while(Result::ok));
        assert!(lines.next().is_some(), "the flow does not begin");
        Self { child, lines }
    }

    /// It has so many round trips more, after those that were on their way already.
    fn goes_on(&mut self, what: &str) {
        let last: u64 = self.next(what);
        while self.next(what) < last + GOES_ON {}
    }

    fn next(&mut self, what: &str) -> u64 {
        let line = self.lines.next().unwrap_or_else(|| panic!("the flow was cut: {what}"));
        line.parse().expect("a number")
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn three_hosts_and_a_namespace_of_others_reach_each_other_by_name() {
    let lab = lab("enc-three", 3);
    all_reach_all(&lab, 3);
    let (one, three) = (on(&lab, 1), on(&lab, 3));
    // Packets of the full size pass, whole and in both directions.
    for (server, client, name) in [(&one, &three, "on1"), (&three, &one, "on3")] {
        let make = "dd if=/dev/urandom of=/www/file bs=1M count=8 2>/dev/null; \
                    httpd -p 8080 -h /www; md5sum </www/file";
        let sum = server.sh(make).ok();
        let got = client.sh(&format!("wget -qO- http://{name}:8080/file | md5sum"));
        assert_eq!(got.ok(), sum);
    }
    // A namespace of somebody else on host 2.
    let (host, guest) = (lab.host(2), Guest::new(lab.host(2)));
    let netns = format!("/proc/{}/ns/net", guest.0.id());
    host.weft(&["attach", "--netns", &netns, "--network", "shop", "--name", "guest"]).ok();
    three.pings("guest");
    let enter = format!("--net={netns}");
    let far = three.address("shop").expect("address");
    eventually("it pings", PATIENCE, || {
        host.run(&["nsenter", &enter, "ping", "-c1", "-W1", &far]).text()
    });
    // Nothing is there that could send in the clear.
    for host in lab.hosts() {
        assert_eq!(host.sh("ip -o link show type vxlan").ok(), "", "{}", host.name());
        assert!(engine(host).is_ok());
    }
}

#[test]
fn a_daemon_and_an_engine_may_die_and_flows_go_on() {
    let lab = lab("enc-kill", 2);
    all_reach_all(&lab, 2);
    let target = on(&lab, 2).address("shop").expect("address");
    let near = on(&lab, 1);
    let mut flow = Flow::start(&lab, lab.host(1), &near, &target);
    for n in [1, 2] {
        let host = lab.host(n);
        let (before, was) = (host.snapshot(), engine(host).expect("it runs"));
        host.kill9();
        assert_eq!(before.changes(&host.snapshot()), Vec::<String>::new(), "n{n} died");
        flow.goes_on("without a daemon");
        host.start();
        stays("nothing changes", Duration::from_secs(2), || {
            let (changes, now) = (before.changes(&host.snapshot()), engine(host)?);
            let same = changes.is_empty() && now == was;
            if same { Ok(()) } else { Err(format!("{changes:#?}, engine {was} is {now}")) }
        });
        flow.goes_on("with a new daemon");
        // The engine alone.
        let killed = Instant::now();
        let was = kill_engine(host);
        eventually("another engine does what the last one did", BACK, || {
            let now = engine(host)?;
            let config = config(host)?;
            let does = now != was && config.nodes.len() == 1 && config.networks.len() == 1;
            if does { Ok(()) } else { Err(format!("{now}: {config:?}")) }
        });
        eprintln!("the engine of n{n} was back in {:?}", killed.elapsed());
        flow.goes_on("with a new engine");
        // Both.
        host.kill9();
        kill_engine(host);
        host.start();
        eventually("the engine is back with the daemon", PATIENCE, || engine(host));
        flow.goes_on("with a new daemon and a new engine");
        assert_eq!(before.changes(&host.snapshot()), Vec::<String>::new(), "n{n}");
    }
    all_reach_all(&lab, 2);
}

#[test]
fn after_a_restart_of_the_machine_its_tasks_are_reached_again() {
    let lab = lab("enc-power", 2);
    all_reach_all(&lab, 2);
    let keys =
        |host: &Host| host.sh(&format!("sha256sum {}/wireguard/*", host.state_dir().display()));
    for n in [2, 1] {
        let (host, known) = (lab.host(n), keys(lab.host(n)).ok());
        host.lose_power();
        host.start();
        lab.nodes_ready(2);
        eventually("all tasks run again", PATIENCE, || {
            let count = (1..=2).map(|n| lab.host(n).containers(&format!("on{n}")).len());
            if count.sum::<usize>() == 2 { Ok(()) } else { Err("not yet".to_owned()) }
        });
        all_reach_all(&lab, 2);
        assert_eq!(keys(host).ok(), known, "the key is the same");
    }
}

#[test]
fn with_the_last_encrypted_network_the_engine_goes_and_nothing_is_left() {
    let lab = Lab::cluster("enc-remove", 1, 1);
    let before: Vec<_> = lab.hosts().map(Host::snapshot).collect();
    for round in 0..2 {
        let network = ["network", "create", "-d", "overlay", "-o", "encrypted", "shop"];
        lab.host(1).weft(&network).ok();
        lab.serve("web", &["--network", "shop", "--mode", "global"]);
        let (web, far) = (lab.host(1).container("web"), lab.host(2).container("web"));
        web.pings(&far.address("shop").expect("address"));
        // The second time it is gone before what it served is.
        if round == 1 {
            lab.host(2).kill9();
            kill_engine(lab.host(2));
            lab.host(2).start();
        }
        lab.host(1).weft(&["service", "rm", "web"]).ok();
        eventually("the network can go", PATIENCE, || {
            lab.host(1).weft(&["network", "rm", "--force", "shop"]).text()
        });
        for (host, before) in lab.hosts().zip(&before) {
            eventually(&format!("{} is clean", host.name()), PATIENCE, || {
                let changes = before.changes(&host.snapshot());
                // The firewall of a member stays as long as it is one.
                let more: Vec<_> =
                    changes.iter().filter(|line| !line.starts_with("nftables: ")).collect();
                let (engine, groups) = (engine(host), host.container_cgroups());
                let ports = host.sh("ss -H -lun | grep -E ':518[2-5][0-9] ' || true").text()?;
                if more.is_empty() && engine.is_err() && groups.is_empty() && ports.is_empty() {
                    Ok(())
                } else {
                    Err(format!("{more:#?} {engine:?} {groups:?} {ports}"))
                }
            });
        }
    }
    // The keys stay with the membership, and go with it.
    let keys = |host: &Host| host.sh(&format!("ls -A {}/wireguard", host.state_dir().display()));
    assert_eq!(keys(lab.host(2)).ok(), "1");
    lab.host(2).weft(&["cluster", "leave"]).ok();
    keys(lab.host(2)).text().expect_err("keys of a cluster that it has left");
}

#[test]
fn a_removed_node_is_forgotten_and_its_leave_ends_its_engine() {
    let lab = lab("enc-node-rm", 3);
    all_reach_all(&lab, 3);
    let knows =
        |host: &Host| config(host).map(|config| config.nodes.into_keys().collect::<Vec<_>>());
    assert_eq!(knows(lab.host(1)).expect("its engine"), [2, 3]);
    // A node that is gone without a word.
    lab.host(3).kill9();
    eventually("it is noticed", PATIENCE, || {
        let list = lab.host(1).weft(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]);
        let list = list.text()?;
        if list.contains("n3 Down") { Ok(()) } else { Err(list) }
    });
    lab.host(1).weft(&["node", "rm", "--force", "n3"]).ok();
    for (host, left) in [(lab.host(1), 2), (lab.host(2), 1)] {
        eventually("its key is forgotten", FORGET, || {
            let known = knows(host)?;
            if known == [left] { Ok(()) } else { Err(format!("{known:?}")) }
        });
    }
    // One that leaves.
    lab.host(2).weft(&["cluster", "leave"]).ok();
    assert!(engine(lab.host(2)).is_err(), "what has left has no engine");
    assert!(lab.host(2).container_cgroups().is_empty());
    lab.host(1).weft(&["node", "rm", "--force", "n2"]).ok();
    eventually("its key is forgotten", FORGET, || {
        let known = knows(lab.host(1)).unwrap_or_default();
        if known.is_empty() { Ok(()) } else { Err(format!("{known:?}")) }
    });
}

/// Packets that are numbered by their order, one each 20 ms, and those that had no answer.
fn datagrams(
    lab: &Lab,
    host: &Host,
    from: &Container<'_>,
    target: &str,
) -> JoinHandle<Vec<String>> {
    const COUNT: &str = "500";
    let (pid, peer) = (from.pid().expect("pid").to_string(), lab.peer());
    let mut child = host
        .command(&["nsenter", "-t", &pid, "-n", &peer, "udp", target, "80", COUNT])
        .stdout(Stdio::piped())
        .spawn()
        .expect("nsenter (util-linux) runs");
    let out = BufReader::new(child.stdout.take().expect("it is piped"));
    std::thread::spawn(move || {
        let lines: Vec<String> = out.lines().map_while(Result::ok).collect();
        let _ = child.wait();
        assert_eq!(lines.len().to_string(), COUNT);
        lines.into_iter().filter(|line| line.starts_with("none")).collect()
    })
}

/// Waits until a host has another key than it had, and but one, and the other host knows that one only.
#[track_caller]
fn rotated(host: &Host, other: &Host, was: &Identity) {
    eventually("the former key is forgotten everywhere", PATIENCE, || {
        let own = config(host)?.identities;
        let theirs = config(other)?.nodes;
        let files = host.sh(&format!("ls {}/wireguard", host.state_dir().display())).text()?;
        let node = theirs.values().next().ok_or("no node")?;
        let (mine, shown) = (&own[0], &node.identities[0]);
        let done = own.len() == 1
            && node.identities.len() == 1
            && files.lines().count() == 1
            && mine.private_key == shown.public_key
            && mine.private_key != was.private_key
            && mine.address == shown.address
            && mine.address != was.address;
        if done { Ok(()) } else { Err(format!("{own:?} {theirs:?} {files}")) }
    });
}

#[test]
fn a_key_is_rotated_under_load_and_nothing_is_lost() {
    let lab = lab("enc-rotate", 2);
    all_reach_all(&lab, 2);
    let (near, far) = (on(&lab, 1), on(&lab, 2));
    let target = far.address("shop").expect("address");
    let back = near.address("shop").expect("address");
    let mut flow = Flow::start(&lab, lab.host(1), &near, &target);
    for (round, name) in [(1, "n1"), (2, "n2"), (3, "n1")] {
        let lost = [
            datagrams(&lab, lab.host(1), &near, &target),
            datagrams(&lab, lab.host(2), &far, &back),
        ];
        let host = if name == "n1" { lab.host(1) } else { lab.host(2) };
        let other = if name == "n1" { lab.host(2) } else { lab.host(1) };
        let was = config(host).expect("its engine").identities;
        lab.host(1).weft(&["node", "update", "--rotate-key", name]).ok();
        rotated(host, other, &was[0]);
        for lost in lost {
            assert_eq!(lost.join().expect("it ends"), Vec::<String>::new(), "rotation {round}");
        }
        flow.goes_on("with a new key");
    }
}

/// Moments of a rotation, which takes a tenth of a second.
const MOMENTS: [u64; 6] = [0, 15, 30, 50, 70, 100];

#[test]
fn a_rotation_in_which_daemons_die_comes_to_its_end_and_loses_nothing() {
    let lab = lab("enc-rotate-kill", 2);
    all_reach_all(&lab, 2);
    let (near, far) = (on(&lab, 1), on(&lab, 2));
    let target = far.address("shop").expect("address");
    let mut flow = Flow::start(&lab, lab.host(1), &near, &target);
    for (round, moment) in MOMENTS.into_iter().enumerate() {
        let lost = datagrams(&lab, lab.host(1), &near, &target);
        // By turns the worker's key and its daemon, and those of the only manager.
        let (name, host, other) = match round % 2 {
            0 => ("n2", lab.host(2), lab.host(1)),
            _ => ("n1", lab.host(1), lab.host(2)),
        };
        let was = config(host).expect("its engine").identities;
        lab.host(1).weft(&["node", "update", "--rotate-key", name]).ok();
        // The moment is the point of the test, so it is a time and no condition.
        std::thread::sleep(Duration::from_millis(moment));
        host.restart();
        rotated(host, other, &was[0]);
        assert_eq!(lost.join().expect("it ends"), Vec::<String>::new(), "after {moment} ms");
        flow.goes_on("with a new key");
    }
}

/// Seconds after which the router forgets what is silent: hardly more than the 25 s after which a node
/// behind one speaks.
const FORGETS: u64 = 28;
/// Longer than that, from the last packet of WireGuard itself, which may come 10 s after all others.
const SILENCE: Duration = Duration::from_secs(45);
/// Of host 2, behind the router.
const INSIDE: &str = "192.168.77.2";

/// Puts host 2 behind a router that masquerades it and lets nothing in but answers.
fn behind_a_router(lab: &Lab) {
    lab.outside(&format!(
        "set -e
         ip link set v2 nomaster; ip addr add 192.168.77.1/24 dev v2
         sysctl -qw net.ipv4.ip_forward=1
         nft add table ip router
         nft 'add chain ip router out {{ type nat hook postrouting priority 100; }}'
         nft 'add chain ip router through {{ type filter hook forward priority 0; policy drop; }}'
         nft add rule ip router out ip saddr {INSIDE} oifname br0 masquerade
         nft add rule ip router through iifname v2 accept
         nft add rule ip router through ct state established accept
         sysctl -qw net.netfilter.nf_conntrack_udp_timeout={FORGETS}
         sysctl -qw net.netfilter.nf_conntrack_udp_timeout_stream={FORGETS}"
    ))
    .ok();
    let place = format!(
        "ip addr flush dev eth0; ip addr add {INSIDE}/24 dev eth0
         ip route add default via 192.168.77.1"
    );
    lab.host(2).sh(&place).ok();
}

#[test]
fn a_node_behind_an_address_translator_is_reached_after_a_silence() {
    let lab = Lab::new("enc-nat", 2);
    behind_a_router(&lab);
    lab.hosts().for_each(Host::start);
    lab.host(1).weft(&["cluster", "init", "--advertise-addr", &lab.host(1).ip()]).ok();
    lab.join(2, "worker");
    lab.nodes_ready(2);
    network_and_servers(&lab, 2);
    all_reach_all(&lab, 2);
    // The one that is translated speaks, the other does not.
    for (n, wanted) in [(1, None), (2, Some(25))] {
        eventually("who speaks is decided", PATIENCE, || {
            let nodes = config(lab.host(n))?.nodes;
            let says: Vec<_> = nodes.values().map(|node| node.keepalive).collect();
            if says == [wanted] { Ok(()) } else { Err(format!("n{n}: {says:?}")) }
        });
    }
    let (near, far) = (on(&lab, 1), on(&lab, 2).address("shop").expect("address"));
    stays("the router knows the way in", SILENCE, || {
        let known = lab.outside("cat /proc/net/nf_conntrack").text()?;
        let way = |line: &str| line.contains(" udp ") && line.contains(&format!("src={INSIDE} "));
        if known.lines().any(way) { Ok(()) } else { Err(known) }
    });
    // The first packet is from outside, and it gets through.
    near.ping(&far).expect("the first packet");
}

#[test]
fn without_wireguard_in_the_kernel_it_cannot_be_asked_for() {
    let lab = Lab::new("enc-kernel", 1);
    let host = lab.host(1);
    let mut daemon =
        host.spawn_daemon(&host.state_dir(), &host.run_dir(), &["--wireguard", "kernel"]);
    let ended = eventually("it ends, or runs", PATIENCE, || match daemon.try_wait() {
        Ok(Some(status)) => Ok(Some(status)),
        other => {
            host.weft(&["info"]).text().map(|_| None).map_err(|said| format!("{other:?} {said}"))
        }
    });
    let log = std::fs::read_to_string(host.log()).expect("the log");
    match ended {
        Some(status) => {
            assert!(!status.success());
            assert!(log.contains("error: daemon: --wireguard kernel is not possible"), "{log}");
            assert!(log.contains("hint: start it with --wireguard userspace"), "{log}");
        }
        // A kernel that has it.
        None => {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
    host.start_with(&["--wireguard", "userspace"]);
    eventually("it runs without", PATIENCE, || host.weft(&["info"]).text());
}
