//! Containers and networks of one host, in no cluster.
#![forbid(unsafe_code)]

use std::time::Duration;

use weft_tests::{Host, Lab, Output, stays, weft_binary};

/// A host in no cluster, with its daemon running.
fn alone(name: &str) -> Lab {
    let lab = Lab::new(name, 1);
    lab.host(1).start();
    lab
}

/// `weft run -d` of `peer serve 80`, under a name.
fn serve(lab: &Lab, name: &str, flags: &[&str]) {
    let image = lab.image();
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(flags);
    args.extend([image.as_str(), "peer", "serve", "80"]);
    lab.host(1).weft(&args).ok();
}

/// What a command in a new container says.
fn ask(lab: &Lab, flags: &[&str], command: &[&str]) -> Output {
    let image = lab.image();
    let mut args = vec!["run", "--rm"];
    args.extend(flags);
    args.push(&image);
    args.extend(command);
    lab.host(1).weft(&args)
}

fn status(host: &Host, name: &str) -> String {
    let filter = format!("name={name}");
    host.weft(&["ps", "-a", "--filter", &filter, "--format", "{{.Status}}"]).ok()
}

/// The host's devices that are ours, and what is below the runtime's directory.
fn leftovers(host: &Host) -> String {
    let containers = host.state_dir().join("containers");
    host.sh(&format!(
        "ip -o link | grep -oE '(wv|br-)[0-9a-f]+' || true; ls -A {} 2>/dev/null || true",
        containers.display()
    ))
    .ok()
}

#[test]
fn names_ports_and_addresses_of_one_host() {
    let lab = alone("run-names");
    let host = lab.host(1);
    let id = host.weft(&["network", "create", "shop"]).ok();
    let device = format!("br-{}", &id[..12]);
    host.sh(&format!("ip link show {device}")).ok();
    serve(&lab, "web", &["--network", "shop", "--network-alias", "www", "-p", "8080:80"]);

    // By name, alias and address, and not on the default bridge.
    for name in ["web", "www", "WEB.shop"] {
        ask(&lab, &["--network", "shop"], &["peer", "tcp", name, "80"]).ok();
    }
    assert_ne!(ask(&lab, &[], &["nslookup", "web", "127.0.0.11"]).code, 0);
    let resolv = ask(&lab, &[], &["cat", "/etc/resolv.conf"]).ok();
    assert!(!resolv.contains("127.0.0.11"), "{resolv}");

    // From the host's loopback, the host's address, and outside.
    let (own, peer) = (host.ip(), lab.peer());
    for address in ["127.0.0.1", own.as_str()] {
        host.run(&[&peer, "tcp", address, "8080"]).ok();
    }
    lab.outside(&format!("{peer} tcp {own} 8080")).ok();
    let port = host.weft(&["port", "web"]).ok();
    assert!(port.contains("80/tcp -> 0.0.0.0:8080"), "{port}");

    // A port that is taken refuses the start, by a container or by any other program.
    let taken = ask(&lab, &["-p", "8080:80"], &["true"]);
    taken.refused(125, &["port is already allocated", "8080"]);
    let mut other = host.command(&[&peer, "serve", "8081"]).spawn().expect("peer");
    host.eventually("the program listens", 5, |host| {
        host.run(&[&peer, "tcp", "127.0.0.1", "8081"]).text()
    });
    let image = lab.image();
    let busy = host.weft(&["run", "--name", "busy", "-p", "8081:80", &image, "true"]);
    busy.refused(125, &["Bind for 0.0.0.0:8081 failed: port is already allocated"]);
    assert_eq!(status(host, "busy"), "Created");
    other.kill().expect("our child");
    other.wait().expect("our child");
    host.weft(&["start", "busy"]).ok();

    // The address stays over a stop and a start.
    let address = host.weft(&["inspect", "--format", NETWORK_ADDRESS, "web"]).ok();
    host.weft(&["stop", "-t", "0", "web"]).ok();
    assert!(status(host, "web").starts_with("Exited (137)"), "{}", status(host, "web"));
    host.weft(&["start", "web"]).ok();
    assert_eq!(host.weft(&["inspect", "--format", NETWORK_ADDRESS, "web"]).ok(), address);
    host.run(&[&peer, "tcp", "127.0.0.1", "8080"]).ok();

    // Nothing in use goes, and afterwards nothing is left.
    host.weft(&["network", "rm", "shop"]).refused(1, &["in use", "web"]);
    host.weft(&["rm", "web"]).refused(1, &["running"]);
    host.weft(&["rm", "-f", "web", "busy"]).ok();
    host.weft(&["network", "rm", "shop"]).ok();
    assert_eq!(leftovers(host), "");
    host.weft(&["network", "rm", "bridge"]).refused(1, &["pre-defined"]);
}

/// The address on the only network.
const NETWORK_ADDRESS: &str = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";

#[test]
fn ends_restarts_and_exit_codes() {
    let lab = alone("run-ends");
    let host = lab.host(1);
    let image = lab.image();
    assert_eq!(ask(&lab, &[], &["sh", "-c", "echo out; echo err >&2; exit 7"]).code, 7);
    let said = ask(&lab, &[], &["sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("out\n", "err\n"));
    ask(&lab, &[], &["no-such-command"]).refused(127, &["no-such-command"]);
    ask(&lab, &[], &["/etc"]).refused(126, &["/etc"]);
    assert_eq!(host.weft(&["ps", "-aq"]).ok(), "", "--rm leaves nothing");

    let run = |name: &str, restart: &str, script: &str| {
        let args = ["run", "-d", "--name", name, "--restart", restart, &image, "sh", "-c", script];
        host.weft(&args).ok();
    };
    run("thrice", "on-failure:3", "echo run; exit 3");
    assert_eq!(host.weft(&["wait", "thrice"]).ok(), "3");
    assert_eq!(host.weft(&["logs", "thrice"]).ok().lines().count(), 4);
    run("again", "always", "echo run; sleep 0.2");
    host.eventually("it is started again", 10, |host| {
        let runs = host.weft(&["logs", "again"]).text()?.lines().count();
        if runs >= 2 { Ok(()) } else { Err(format!("{runs} runs")) }
    });
    host.weft(&["kill", "again"]).ok();
    stays("a killed one stays down", Duration::from_secs(1), || {
        let now = status(host, "again");
        if now.starts_with("Exited") { Ok(()) } else { Err(now) }
    });

    // Health, and what a container is told.
    let check = ["--health-cmd", "test -e /tmp/well", "--health-interval", "200ms"];
    let mut args = vec!["run", "-d", "--name", "sick", "--health-retries", "2"];
    args.extend(check);
    args.extend([image.as_str(), "sleep", "1000000"]);
    host.weft(&args).ok();
    let health = |host: &Host, wanted: &str| {
        let now = status(host, "sick");
        if now.contains(wanted) { Ok(()) } else { Err(now) }
    };
    host.eventually("it is unhealthy", 10, |host| health(host, "(unhealthy)"));
    host.weft(&["exec", "sick", "touch", "/tmp/well"]).ok();
    host.eventually("it is healthy", 10, |host| health(host, "(healthy)"));
    host.weft(&["system", "prune", "-f"]).ok();
    let names = host.weft(&["ps", "-a", "--format", "{{.Names}}"]).ok();
    assert_eq!(names, "sick");
}

#[test]
fn a_container_joins_and_leaves_networks_while_it_runs() {
    let lab = alone("run-connect");
    let host = lab.host(1);
    for network in ["front", "back"] {
        host.weft(&["network", "create", network]).ok();
    }
    serve(&lab, "db", &["--network", "back"]);
    serve(&lab, "app", &["--network", "front", "-p", "8080:80"]);
    let peer = lab.peer();
    let app = |args: &[&str]| {
        let mut all = vec!["exec", "app"];
        all.extend(args);
        host.weft(&all)
    };
    assert_ne!(app(&["peer", "tcp", "db", "80"]).code, 0);
    host.weft(&["network", "connect", "--alias", "data", "back", "app"]).ok();
    app(&["peer", "tcp", "db", "80"]).ok();
    ask(&lab, &["--network", "back"], &["peer", "tcp", "data", "80"]).ok();
    assert_eq!(app(&["sh", "-c", "ip -o -4 addr | grep -c eth"]).ok(), "2");

    // The published port follows to the network that is left.
    host.weft(&["network", "disconnect", "front", "app"]).ok();
    host.eventually("the port leads to the other network", 5, |host| {
        host.run(&[&peer, "tcp", "127.0.0.1", "8080"]).text()?;
        host.run(&[&peer, "tcp", &host.ip(), "8080"]).text()
    });
    host.weft(&["network", "disconnect", "back", "app"]).ok();
    assert_eq!(app(&["sh", "-c", "ip -o link | grep -c eth; true"]).ok(), "0");

    // The other modes.
    host.weft(&["network", "connect", "front", "app"]).ok();
    let joined = ask(&lab, &["--network", "container:db"], &["peer", "tcp", "127.0.0.1", "80"]);
    joined.ok();
    let image = lab.image();
    let bad = host.weft(&["run", "--network", "container:nobody", &image, "true"]);
    bad.refused(125, &["nobody"]);
    assert_eq!(ask(&lab, &["--network", "none"], &["sh", "-c", "ip -o link | wc -l"]).ok(), "1");
    let own = ask(&lab, &["--network", "host"], &["ip", "-o", "-4", "addr"]).ok();
    assert!(own.contains(&host.ip()), "{own}");

    // A link on the default bridge, which has no names.
    serve(&lab, "old", &[]);
    ask(&lab, &["--link", "old:legacy"], &["peer", "tcp", "legacy", "80"]).ok();
    ask(&lab, &["--link", "db:only", "--network", "back"], &["peer", "tcp", "only", "80"]).ok();
}

#[test]
fn kill_9_of_the_daemon_and_a_machine_that_starts_again() {
    let lab = alone("run-kill9");
    let host = lab.host(1);
    serve(&lab, "web", &["-p", "8080:80", "--restart", "unless-stopped"]);
    serve(&lab, "once", &[]);
    serve(&lab, "off", &["--restart", "unless-stopped"]);
    serve(&lab, "always", &["--restart", "always"]);
    host.weft(&["stop", "-t", "0", "off", "always"]).ok();
    let peer = lab.peer();
    let pid = host.weft(&["inspect", "--format", "{{.State.Pid}}", "web"]).ok();
    host.kill9();
    for address in ["127.0.0.1".to_owned(), host.ip()] {
        host.run(&[&peer, "tcp", &address, "8080"]).ok();
    }
    host.start();
    assert_eq!(host.weft(&["inspect", "--format", "{{.State.Pid}}", "web"]).ok(), pid);
    host.run(&[&peer, "tcp", "127.0.0.1", "8080"]).ok();
    assert!(status(host, "off").starts_with("Exited"));
    host.eventually("what is always wanted is there", 10, |host| {
        let now = status(host, "always");
        if now.starts_with("Up") { Ok(()) } else { Err(now) }
    });

    // All processes gone at once: a power cut.
    let holders = host.weft(&["inspect", "--format", "{{.State.Pid}}", "web", "once", "always"]);
    let pids: Vec<String> = holders.ok().lines().map(ToOwned::to_owned).collect();
    host.kill9();
    for pid in &pids {
        // The holder is the parent of the first process.
        host.sh(&format!("kill -9 $(cut -d' ' -f4 /proc/{pid}/stat)")).ok();
    }
    host.start();
    host.eventually("what is to run runs", 10, |host| {
        for name in ["web", "always"] {
            let now = status(host, name);
            if !now.starts_with("Up") {
                return Err(format!("{name}: {now}"));
            }
        }
        host.run(&[&peer, "tcp", "127.0.0.1", "8080"]).text()
    });
    assert!(status(host, "once").starts_with("Exited (255)"), "{}", status(host, "once"));
    assert!(status(host, "off").starts_with("Exited (137)"), "{}", status(host, "off"));
    host.weft(&["start", "once"]).ok();
    host.weft(&["rm", "-f", "web", "once", "off", "always"]).ok();
    assert_eq!(leftovers(host), "");
}

/// One life of a container, as far as a daemon that may die lets it come.
fn life(host: &Host, image: &str) {
    let steps: [&[&str]; 7] = [
        &["network", "create", "shop"],
        &[
            "create",
            "--name",
            "web",
            "--network",
            "shop",
            "-p",
            "8080:80",
            image,
            "sleep",
            "1000000",
        ],
        &["start", "web"],
        &["restart", "-t", "0", "web"],
        &["stop", "-t", "0", "web"],
        &["rm", "web"],
        &["run", "--rm", "--name", "short", image, "true"],
    ];
    for step in steps {
        if host.has_died() {
            return;
        }
        host.weft(step);
    }
}

#[test]
fn wherever_the_daemon_dies_all_or_nothing_is_there() {
    let lab = Lab::new("run-crash", 1);
    let host = lab.host(1);
    let image = lab.image();
    let list = lab.dir().join("points");
    host.start_listing(&list);
    life(host, &image);
    host.weft(&["network", "rm", "shop"]).ok();
    host.stop();
    let text = std::fs::read_to_string(&list).expect("points were passed");
    let mut points: Vec<&str> = text.lines().filter(|point| point.starts_with("local.")).collect();
    points.sort_unstable();
    points.dedup();
    assert!(points.len() >= 10, "{points:?}");
    for point in points {
        host.start_dying_at(point);
        life(host, &image);
        host.eventually(&format!("it dies at {point}"), 10, |host| {
            if host.has_died() { Ok(()) } else { Err("it lives".to_owned()) }
        });
        host.start();
        // Whatever is there works: it can be started, answers, and can be removed.
        let known = host.weft(&["ps", "-a", "--format", "{{.Names}}"]).ok();
        for name in known.lines() {
            if name == "web" {
                host.weft(&["start", name]).ok();
                host.weft(&["exec", name, "true"]).ok();
            }
            host.weft(&["rm", "-f", name]).ok();
        }
        if host.weft(&["network", "inspect", "shop"]).code == 0 {
            host.weft(&["network", "rm", "shop"]).ok();
        }
        assert_eq!(leftovers(host), "", "after {point}");
        host.stop();
    }
}

#[test]
fn containers_of_two_hosts_meet_on_a_network_of_the_cluster() {
    let lab = Lab::cluster("run-overlay", 1, 1);
    let (one, two) = (lab.host(1), lab.host(2));
    one.weft(&["network", "create", "-d", "overlay", "--attachable", "shop"]).ok();
    one.weft(&["network", "create", "-d", "overlay", "closed"]).ok();
    let image = lab.image();
    let run = |host: &Host, name: &str, network: &[&str]| {
        let mut args = vec!["run", "-d", "--name", name, "--stop-timeout", "1"];
        args.extend(network);
        args.extend([image.as_str(), "sleep", "1000000"]);
        host.weft(&args)
    };
    run(one, "left", &["--network", "shop"]).ok();
    run(two, "right", &["--network", "shop"]).ok();
    let (left, right) = (one.container_named("left"), two.container_named("right"));
    left.pings("right");
    right.pings("left");
    lab.service("web", &["--network", "shop"], &["peer", "serve", "80"]);
    for asker in [&left, &right] {
        asker.eventually("the service answers by its name", 10, |asker| asker.tcp("web", 80));
    }

    // One that is on the default bridge joins, and leaves.
    run(two, "late", &[]).ok();
    two.weft(&["network", "connect", "shop", "late"]).ok();
    two.container_named("late").pings("left");
    two.weft(&["network", "disconnect", "shop", "late"]).ok();
    assert_ne!(two.container_named("late").exec(&["ping", "-c1", "-W1", "left"]).code, 0);

    // What is not attachable is for services alone.
    run(two, "stranger", &["--network", "closed"]).refused(125, &["closed", "attachable"]);
    assert_eq!(two.weft(&["ps", "-aq", "--filter", "name=stranger"]).ok(), "");

    // With the containers their addresses are free, and nobody uses the network.
    one.weft(&["service", "rm", "web"]).ok();
    one.weft(&["rm", "-f", "left"]).ok();
    two.weft(&["rm", "-f", "right", "late"]).ok();
    one.eventually("the network is free", 30, |one| one.weft(&["network", "rm", "shop"]).text());
}

#[test]
fn who_reads_the_output_of_a_container_that_is_gone_still_learns_its_end() {
    let lab = Lab::alone("reader", 1);
    let (host, image, weft) = (lab.host(1), lab.image(), weft_binary().display().to_string());
    // More than all buffers on the way hold, and nobody reads on before `--rm` has removed it.
    let run = format!("{weft} run --rm {image} sh -c 'seq 1 500000; exit 7'");
    let reader =
        format!("read first; while [ -n \"$({weft} ps -aq)\" ]; do :; done; cat >/dev/null");
    let said =
        host.sh(&format!("timeout 60 sh -c \"{run}; echo ended \\$? >&2\" | {{ {reader}; }}"));
    assert!(said.stderr.contains("ended 7"), "{said}");
}
