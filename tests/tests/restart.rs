//! A daemon that dies and comes back changes nothing, adopts what is there, and repairs what was
//! deleted by hand.
#![forbid(unsafe_code)]

use std::{
    io::{BufRead as _, BufReader},
    time::Duration,
};

use weft_tests::{Lab, eventually, stays};

/// What was deleted by hand is back within about a second.
const REPAIR: Duration = Duration::from_millis(2500);

#[test]
fn kill_9_and_a_start_change_nothing() {
    let lab = Lab::cluster("kill9", 1, 1);
    lab.network("shop", "10.20.0.0/24");
    lab.serve("web", &["--network", "shop", "--replicas", "2"]);
    let clients = lab.clients("shop");
    let (near, far) = (&clients[0], &clients[1]);
    let target = lab.host(2).container("web").address("shop").expect("address");
    near.eventually("it answers", 10, |c| c.tcp(&target, 80));
    let mut flow = near.spawn(&["peer", "flow", &target, "80"]);
    let mut lines =
        BufReader::new(flow.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.next().is_some());
    // `exec` goes through the daemon, so the flow that must live on is started without it.
    let pid = near.pid().expect("pid");
    let peer = lab.peer();
    let mut own = lab
        .host(1)
        .command(&["nsenter", "-t", &pid.to_string(), "-n", &peer, "flow", &target, "80"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("nsenter");
    let mut seen = BufReader::new(own.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(seen.next().is_some());

    for n in [2, 1, 2, 1] {
        let host = lab.host(n);
        let before = host.snapshot();
        let pids: Vec<u64> = host.containers("web").iter().map(|c| c.pid().expect("pid")).collect();
        host.kill9();
        assert_eq!(before.changes(&host.snapshot()), Vec::<String>::new(), "n{n} died");
        // Names wait and are answered when the daemon is back.
        host.start();
        host.eventually("the containers are known again", 10, |host| {
            let again: Result<Vec<u64>, String> =
                host.containers("web").iter().map(|c| c.pid()).collect();
            let again = again?;
            if again == pids { Ok(()) } else { Err(format!("{again:?}, it was {pids:?}")) }
        });
        stays("nothing changes", Duration::from_secs(2), || {
            let changes = before.changes(&host.snapshot());
            if changes.is_empty() { Ok(()) } else { Err(format!("{changes:#?}")) }
        });
    }
    assert_eq!(own.try_wait().expect("our child"), None, "the flow was cut");
    assert!(seen.next().is_some(), "the flow goes on");
    lab.nodes_ready(2);
    for c in [near, far] {
        c.eventually("names work", 5, |c| c.lookup("tasks.web"));
        c.tcp("web", 80).expect("the service answers");
    }
    // A change of the cluster reaches the restarted daemons.
    lab.host(1).weft(&["service", "scale", "web=4"]).ok();
    far.eventually("new tasks have names", 5, |c| {
        let found = c.lookup("tasks.web")?;
        if found.len() == 4 { Ok(()) } else { Err(format!("{found:?}")) }
    });
    for child in [&mut flow, &mut own] {
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[test]
fn queries_wait_while_the_daemon_is_down_and_tasks_that_ended_meanwhile_are_noticed() {
    let lab = Lab::cluster("down", 1, 1);
    lab.network("shop", "10.20.0.0/24");
    lab.serve("web", &["--network", "shop", "--replicas", "2"]);
    lab.clients("shop");
    let host = lab.host(2);
    let client = host.container("clients-shop");
    let (pid, web) = (client.pid().expect("pid"), host.container("web"));
    let victim = web.pid().expect("pid");
    client.lookup("web").expect("names work");
    host.kill9();
    let query = "busybox nslookup -type=a web 127.0.0.11";
    let asking = host
        .command(&["nsenter", "-t", &pid.to_string(), "-n", "sh", "-c", query])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("nsenter");
    host.sh(&format!("kill -9 {victim}")).ok();
    host.start();
    let answer = asking.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&answer.stdout);
    assert!(answer.status.success() && text.contains("Name:"), "{text}");
    eventually("the dead task is replaced", Duration::from_secs(20), || {
        let list =
            lab.host(1).weft(&["service", "ls", "--format", "{{.Name}} {{.Replicas}}"]).text()?;
        let now = host.containers("web").first().map(|c| c.id().to_owned());
        let new = now.as_deref().is_some_and(|id| id != web.id());
        let elsewhere = lab.host(1).containers("web").len() == 2;
        if list.contains("web 2/2") && (new || elsewhere) { Ok(()) } else { Err(list) }
    });
}

#[test]
fn what_is_deleted_by_hand_is_back_within_a_second_and_what_is_not_ours_stays() {
    let lab = Lab::cluster("repair", 1, 1);
    lab.network("shop", "10.20.0.0/24");
    lab.serve("web", &["--network", "shop", "--mode", "global"]);
    let host = lab.host(1);
    let client = host.container("web");
    let far = lab.host(2).container("web").address("shop").expect("address");
    client.pings(&far);
    // Not ours: a bridge, a route, a table and a rule of somebody else.
    host.sh("ip link add br-theirs type bridge && ip route add 192.0.2.0/24 via 10.99.0.254 \
         && nft add table inet theirs && ip rule add from 198.51.100.0/24 lookup 77")
        .ok();
    // Of the overlay: the node's own bridge is another.
    let name = |kind: &str, prefix: &str| {
        let list = host.sh(&format!("ip -o link show type {kind}")).ok();
        let line =
            list.lines().find(|line| line.contains(prefix)).expect("a link of ours").to_owned();
        line.split(": ").nth(1).expect("a name").split('@').next().expect("a name").to_owned()
    };
    let (bridge, vxlan) = (name("bridge", ": wb"), name("vxlan", ": wx"));
    let mut last = host.snapshot();
    host.eventually("at rest", 5, |host| {
        let now = host.snapshot();
        let changes = std::mem::replace(&mut last, now).changes(&last);
        if changes.is_empty() { Ok(()) } else { Err(format!("{changes:?}")) }
    });
    let before = host.snapshot();
    let damages = [
        "nft delete table inet weft || nft flush ruleset".to_owned(),
        format!(
            "bridge fdb show dev {vxlan} | grep -m1 'dst 10.99.0.2' | while read -r mac rest; do bridge fdb del $mac dev {vxlan} dst 10.99.0.2; done"
        ),
        format!("ip neigh flush nud permanent dev {bridge}"),
        format!("ip addr flush dev {bridge}"),
        format!("ip link set {vxlan} nomaster"),
        format!("ip link del {vxlan}"),
        format!("ip link set {bridge} down"),
        format!("ip link del {bridge}"),
    ];
    let repairs = || -> u64 {
        let info = host.weft(&["info"]).ok();
        let line =
            info.lines().find_map(|line| line.trim().strip_prefix("Repairs: ").map(str::to_owned));
        line.expect("info counts repairs").parse().expect("a number")
    };
    let mut counted = repairs();
    for damage in &damages {
        host.sh(damage).ok();
        let start = std::time::Instant::now();
        eventually(&format!("repaired after `{damage}`"), REPAIR, || {
            if client.ping(&far).is_ok() && without_index(&before.changes(&host.snapshot())) {
                Ok(())
            } else {
                Err(format!("{:#?}", before.changes(&host.snapshot())))
            }
        });
        eprintln!("{damage}: repaired in {:?}", start.elapsed());
        // A fault that did not happen proves nothing.
        let now = repairs();
        assert!(now > counted, "nothing was repaired after `{damage}`");
        counted = now;
    }
    let theirs = host.sh("ip link show br-theirs && ip route show 192.0.2.0/24 && ip rule").ok();
    assert!(theirs.contains("via 10.99.0.254") && theirs.contains("lookup 77"), "{theirs}");
}

/// Whether all differences are of what a link gets anew when it is made again: its number, and the
/// MAC of a VXLAN device, which nobody looks at. The MACs that are ours begin with 02:42.
fn without_index(changes: &[String]) -> bool {
    let is_new = |word: &&str| {
        let number = word.strip_suffix(':').is_some_and(|n| n.chars().all(|c| c.is_ascii_digit()));
        let mac = word.len() == 17 && word.matches(':').count() == 5 && !word.starts_with("02:42");
        !number && !mac
    };
    let strip = |line: &str| line.split_whitespace().filter(is_new).collect::<Vec<_>>().join(" ");
    let side = |sign: &str| {
        let mut lines: Vec<String> = changes
            .iter()
            .filter_map(|line| {
                let (part, rest) = line.split_once(": ")?;
                rest.strip_prefix(sign).map(|rest| format!("{part}{}", strip(rest)))
            })
            .collect();
        lines.sort();
        lines
    };
    side("- ") == side("+ ")
}

#[test]
fn a_second_daemon_is_refused_and_one_that_stops_leaves_everything() {
    let lab = Lab::cluster("second", 1, 0);
    let host = lab.host(1);
    lab.network("shop", "10.20.0.0/24");
    lab.serve("web", &["--network", "shop"]);
    let other = (host.state_dir().with_file_name("s2"), host.run_dir().with_file_name("r2"));
    let mut second = host.spawn_daemon(&other.0, &other.1, &[]);
    let status = eventually("it gives up", Duration::from_secs(10), || match second.try_wait() {
        Ok(Some(status)) => Ok(status),
        other => Err(format!("{other:?}")),
    });
    assert!(!status.success());
    let log = std::fs::read_to_string(host.log()).expect("the log");
    assert!(log.contains("another weft daemon"), "it says why");
    host.weft(&["info"]).ok();
    let (before, web) = (host.snapshot(), host.container("web"));
    let pid = web.pid().expect("pid");
    host.stop();
    assert_eq!(before.changes(&host.snapshot()), Vec::<String>::new());
    host.sh(&format!("kill -0 {pid}")).ok();
    host.weft(&["info"]).refused(125, &["cannot reach the daemon"]);
    host.start();
    host.eventually("it is adopted", 10, |host| {
        let again = host.containers("web");
        let again = again.first().ok_or("none")?.pid()?;
        if again == pid { Ok(()) } else { Err(format!("{again}, it was {pid}")) }
    });
    assert_eq!(before.changes(&host.snapshot()), Vec::<String>::new());
}

/// Between two kills of the sweep. An attach takes some 300 ms, so a dozen moments of it are met.
const SWEEP_STEP: Duration = Duration::from_millis(70);
const SWEEP_STEPS: u32 = 14;

#[test]
fn killed_at_any_moment_of_an_attach_it_is_wholly_there_in_the_end() {
    let lab = Lab::cluster("attach-kill", 1, 1);
    lab.network("shop", "10.20.0.0/24");
    lab.serve("near", &["--network", "shop", "--constraint", "node.hostname==n1"]);
    let near = lab.host(1).container("near");
    let image = lab.image();
    let far = lab.host(2);
    for step in 0..SWEEP_STEPS {
        let create = [
            "service",
            "create",
            "--detach",
            "--name",
            "far",
            "--stop-grace-period",
            "200ms",
            "--network",
            "shop",
            "--constraint",
            "node.hostname==n2",
            &image,
            "peer",
            "serve",
            "80",
        ];
        lab.host(1).weft(&create).ok();
        // The moment is the point of the test, so it is a time and no condition.
        std::thread::sleep(SWEEP_STEP * step);
        far.restart();
        near.eventually(&format!("killed after {:?}", SWEEP_STEP * step), 30, |near| {
            let task = match far.containers("far").as_slice() {
                [only] => only.clone(),
                other => return Err(format!("{} containers", other.len())),
            };
            let address = task.address("shop")?;
            near.tcp("far", 80)?;
            near.tcp(&address, 80)?;
            task.tcp("near", 80)?;
            let links = far.sh("ip -o link show type veth | grep -c ' wv'").text()?;
            if links == "1" { Ok(()) } else { Err(format!("{links} links")) }
        });
        lab.host(1).weft(&["service", "rm", "far"]).ok();
        // And again while it is taken apart.
        std::thread::sleep(SWEEP_STEP * step / 4);
        far.restart();
        far.eventually(&format!("gone, killed after {:?}", SWEEP_STEP * step / 4), 30, |far| {
            let left = far.sh("ip -o link | grep -E ': w[bxv]' || true").ok();
            let containers = far.weft(&["ps", "-aq"]).text()?;
            let dirs = far.sh(&format!("ls -A {}/containers", far.state_dir().display())).text()?;
            let cgroups = far.container_cgroups();
            if left.is_empty() && containers.is_empty() && dirs.is_empty() && cgroups.is_empty() {
                Ok(())
            } else {
                Err(format!("{left}{containers}{dirs}{cgroups:?}"))
            }
        });
    }
}
