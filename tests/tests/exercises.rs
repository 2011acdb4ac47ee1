//! The exercises by which people learn the networking of containers on one host, as they are typed:
//! the default network, links, own networks, none and host, macvlan, published ports, a shared
//! namespace, aliases, an own bridge, direct links, and containers that may not talk.
#![forbid(unsafe_code)]

use std::{collections::BTreeSet, time::Duration};

use weft_tests::{Container, Host, Lab, Output};

/// How long what was asked may take to be seen, on a busy machine.
const SOON: u64 = 10;

/// A lab of one host with its daemon; more hosts have none.
fn lab(name: &str, hosts: usize) -> Lab {
    let lab = Lab::new(name, hosts);
    lab.host(1).start();
    lab
}

/// `weft run -d --name NAME FLAGS IMAGE COMMAND`, which must succeed.
#[track_caller]
fn run<'a>(lab: &'a Lab, name: &str, flags: &[&str], command: &[&str]) -> Container<'a> {
    let image = lab.image();
    let mut args = vec!["run", "-d", "--name", name, "--stop-timeout", "1"];
    args.extend(flags);
    args.push(&image);
    args.extend(command);
    lab.host(1).weft(&args).ok();
    lab.host(1).container_named(name)
}

/// A web server that says its name at `/`.
#[track_caller]
fn web<'a>(lab: &'a Lab, name: &str, flags: &[&str]) -> Container<'a> {
    let script = format!("echo {name} >/www/index.html; exec httpd -f -p 80 -h /www");
    run(lab, name, flags, &["sh", "-c", &script])
}

/// A container to ask from.
#[track_caller]
fn client<'a>(lab: &'a Lab, name: &str, flags: &[&str]) -> Container<'a> {
    run(lab, name, flags, &["sleep", "1000000"])
}

fn get(url: &str) -> String {
    // `wget -T` of a static busybox crashes on some machines.
    format!("timeout 3 wget -qO- {url}")
}

/// The same on a machine that has only a shell: `from` is where `host:port` is asked from.
fn fetch(from: &Host, host_port: &str) -> Output {
    let (host, port) = host_port.rsplit_once(':').expect("HOST:PORT");
    let script = format!(
        "exec 3<>/dev/tcp/{host}/{port} && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && \
         timeout 2 cat <&3 | tail -n 1"
    );
    from.run(&["timeout", "3", "bash", "-c", &script])
}

/// Asks by HTTP from a shell somewhere until the answer is right.
#[track_caller]
fn answers(host: &Host, what: &str, wanted: &str, mut ask: impl FnMut() -> Output) {
    host.eventually(what, SOON, |_| {
        let said = ask();
        if said.stdout.trim() == wanted { Ok(()) } else { Err(said.to_string()) }
    });
}

#[test]
fn one_the_default_network() {
    let lab = lab("default-net", 2);
    let host = lab.host(1);
    let first = web(&lab, "web1", &["-p", "8080:80"]);
    let second = web(&lab, "web2", &["--add-host", "up:host-gateway"]);
    let (one, two) =
        (first.address("bridge").expect("address"), second.address("bridge").expect("address"));
    assert_ne!(one, two);
    // By address: from each other, and from the host.
    first.pings(&two);
    second.pings(&one);
    answers(host, "web2 by address", "web2", || first.sh(&get(&format!("http://{two}/"))));
    answers(host, "web1 from the host", "web1", || fetch(host, &format!("{one}:80")));
    // By the published port: on the host's own address, on loopback, from another machine.
    let published = format!("{}:8080", host.ip());
    for place in [published.as_str(), "127.0.0.1:8080"] {
        answers(host, place, "web1", || fetch(host, place));
    }
    answers(host, "from another machine", "web1", || fetch(lab.host(2), &published));
    let url = format!("http://{published}/");
    // From another container by hairpin, and from itself.
    answers(host, "by hairpin", "web1", || second.sh(&get(&url)));
    answers(host, "from itself", "web1", || first.sh(&get(&url)));
    // web2 is published nowhere: the other machine cannot reach it even with a route.
    lab.host(2).sh(&format!("ip route add {two} via {}", host.ip())).ok();
    assert_ne!(fetch(lab.host(2), &format!("{two}:80")).stdout.trim(), "web2");
    // No names on the default network, but those that were given.
    second.pings("up");
    assert_ne!(first.exec(&["ping", "-c1", "-W1", "web2"]).code, 0);
    let shown = &host.weft(&["network", "inspect", "bridge"]).json()[0];
    assert_eq!(shown["Containers"].as_object().map(serde_json::Map::len), Some(2));
    assert!(host.sh("ip link show weft0").ok().contains("weft0"));
    let ports = host.weft(&["port", "web1"]).ok();
    assert!(ports.contains("80/tcp -> 0.0.0.0:8080"), "{ports}");
    host.weft(&["rm", "-f", "web1", "web2"]).ok();
    let left = host.weft(&["ps", "-aq"]).ok();
    assert_eq!(left, "");
    assert_eq!(fetch(host, "127.0.0.1:8080").stdout, "");
}

#[test]
fn two_links_and_an_own_network_with_names() {
    let lab = lab("links", 1);
    let host = lab.host(1);
    let db = client(&lab, "db", &[]);
    let app = client(&lab, "app", &["--link", "db:database"]);
    // One way: name and alias in the hosts file, and nothing on the other side.
    let hosts = app.exec(&["cat", "/etc/hosts"]).ok();
    let address = db.address("bridge").expect("address");
    let line = hosts.lines().find(|line| line.contains("database")).unwrap_or_default();
    assert!(line.starts_with(&address) && line.contains("db"), "{hosts}");
    app.pings("database");
    app.pings("db");
    assert_ne!(db.exec(&["ping", "-c1", "-W1", "app"]).code, 0);
    // The entry follows the target: it gets another address when somebody takes its own meanwhile.
    host.weft(&["rm", "-f", "db"]).ok();
    let refused = host.weft(&["run", "-d", "--link", "db", &lab.image(), "sleep", "1"]);
    refused.refused(125, &["db"]);

    host.weft(&[
        "network",
        "create",
        "--subnet",
        "192.168.54.0/24",
        "--gateway",
        "192.168.54.1",
        "dnsnet",
    ])
    .ok();
    let one = client(&lab, "one", &["--network", "dnsnet"]);
    let two = client(&lab, "two", &["--network", "dnsnet"]);
    one.pings("two");
    two.pings("one");
    assert!(one.address("dnsnet").expect("address").starts_with("192.168.54."));
    let hosts = one.exec(&["cat", "/etc/hosts"]).ok();
    assert!(!hosts.contains("two"), "{hosts}");
    // The gateway is the host, and isolated from the default network.
    one.pings("192.168.54.1");
    let third = client(&lab, "third", &[]);
    let elsewhere = third.address("bridge").expect("address");
    assert_ne!(one.exec(&["ping", "-c1", "-W1", &elsewhere]).code, 0);
    host.weft(&["network", "rm", "dnsnet"]).refused(1, &["dnsnet", "one"]);
}

#[test]
fn a_link_follows_its_target() {
    let lab = lab("link-follows", 1);
    let host = lab.host(1);
    let db = client(&lab, "db", &[]);
    let app = client(&lab, "app", &["--link", "db:database"]);
    app.pings("database");
    host.weft(&["restart", "-t", "0", "db"]).ok();
    let db_address = db.address("bridge").expect("address");
    app.eventually("the entry names where the target is", SOON, |app| {
        let hosts = app.exec(&["cat", "/etc/hosts"]).text()?;
        let line = hosts.lines().find(|line| line.contains("database")).unwrap_or_default();
        if line.starts_with(&db_address) { Ok(()) } else { Err(hosts) }
    });
    app.pings("database");
}

#[test]
fn three_none_and_host() {
    let lab = lab("none-host", 2);
    let host = lab.host(1);
    let alone = client(&lab, "alone", &["--network", "none"]);
    let links = alone.sh("ls /sys/class/net").ok();
    assert_eq!(links, "lo");
    let first = web(&lab, "first", &["--network", "host"]);
    let place = format!("{}:80", host.ip());
    answers(host, "the host's own port", "first", || fetch(lab.host(2), &place));
    assert_eq!(
        first.sh("readlink /proc/self/ns/net").ok(),
        host.sh("readlink /proc/self/ns/net").ok()
    );
    // The second one finds the port taken: the reason is in its output and in its state.
    web(&lab, "second", &["--network", "host"]);
    host.eventually("the second has failed", SOON, |host| {
        let list = host.weft(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"]).text()?;
        let failed = list.lines().any(|line| line.starts_with("second Exited (1)"));
        if failed { Ok(()) } else { Err(list) }
    });
    let logs = host.weft(&["logs", "second"]);
    assert!(logs.stderr.to_lowercase().contains("address already in use"), "{logs}");
}

#[test]
fn three_macvlan() {
    let lab = lab("macvlan", 2);
    let host = lab.host(1);
    host.weft(&[
        "network",
        "create",
        "-d",
        "macvlan",
        "--subnet",
        "10.99.0.0/24",
        "--gateway",
        "10.99.0.254",
        "--ip-range",
        "10.99.0.128/28",
        "-o",
        "parent=eth0",
        "lan",
    ])
    .ok();
    let one = web(&lab, "one", &["--network", "lan"]);
    let two = client(&lab, "two", &["--network", "lan"]);
    let (at_one, at_two) =
        (one.address("lan").expect("address"), two.address("lan").expect("address"));
    let mac = |c: &Container<'_>| c.sh("cat /sys/class/net/eth0/address").ok();
    assert_ne!(mac(&one), mac(&two));
    one.eventually("arping finds the other", SOON, |one| {
        let said = one.exec(&["arping", "-c", "1", "-w", "2", "-I", "eth0", &at_two]);
        if said.stdout.to_lowercase().contains(&mac(&two)) { Ok(()) } else { Err(said.to_string()) }
    });
    two.pings(&at_one);
    // Another machine of the segment reaches them, and they it.
    let other = lab.host(2);
    answers(other, "a neighbour asks it", "one", || fetch(other, &format!("{at_one}:80")));
    one.pings(&lab.host(2).ip());
}

#[test]
fn four_a_published_server_watched_from_the_host() {
    let lab = lab("monitor", 1);
    let host = lab.host(1);
    host.weft(&["network", "create", "front"]).ok();
    web(&lab, "web", &["--network", "front", "-p", "8080:80"]);
    let monitor = client(&lab, "monitor", &["--network", "host"]);
    for name in ["127.0.0.1", "localhost", &host.ip()] {
        let url = format!("http://{name}:8080/");
        answers(host, &url, "web", || monitor.sh(&get(&url)));
    }
}

#[test]
fn five_a_shared_namespace() {
    let lab = lab("shared", 1);
    let host = lab.host(1);
    let owner = web(&lab, "owner", &["-p", "8080:80"]);
    let joiner = client(&lab, "joiner", &["--network", "container:owner"]);
    let inside = "readlink /proc/self/ns/net";
    assert_eq!(owner.sh(inside).ok(), joiner.sh(inside).ok());
    answers(host, "the owner by loopback", "owner", || joiner.sh(&get("http://127.0.0.1/")));
    assert_eq!(owner.exec(&["hostname"]).ok(), joiner.exec(&["hostname"]).ok());
    // The owner stops: the joiner keeps what it has, without the server.
    host.weft(&["stop", "-t", "0", "owner"]).ok();
    assert_ne!(joiner.sh(&get("http://127.0.0.1/")).code, 0);
    joiner.exec(&["true"]).ok();
    // It cannot be joined while it does not run.
    let image = lab.image();
    let late =
        ["run", "-d", "--name", "late", "--network", "container:owner", &image, "sleep", "9"];
    host.weft(&late).refused(125, &["owner", "does not run"]);
    // The owner is back in a new namespace; the joiner follows by a restart of its own.
    host.weft(&["start", "owner"]).ok();
    host.weft(&["restart", "-t", "0", "joiner"]).ok();
    let (owner, joiner) = (host.container_named("owner"), host.container_named("joiner"));
    assert_eq!(owner.sh(inside).ok(), joiner.sh(inside).ok());
    answers(host, "the owner again", "owner", || joiner.sh(&get("http://127.0.0.1/")));
}

#[test]
fn six_one_alias_for_two() {
    let lab = lab("alias", 1);
    let host = lab.host(1);
    host.weft(&["network", "create", "shop"]).ok();
    for name in ["a", "b"] {
        web(&lab, name, &["--network", "shop", "--network-alias", "netalias"]);
    }
    let asker = client(&lab, "asker", &["--network", "shop"]);
    let found = asker.eventually("both have the name", SOON, |asker| {
        let found = asker.lookup("netalias")?;
        if found.len() == 2 { Ok(found) } else { Err(format!("{found:?}")) }
    });
    let addresses =
        ["a", "b"].map(|name| host.container_named(name).address("shop").expect("address"));
    assert_eq!(found.iter().collect::<BTreeSet<_>>(), addresses.iter().collect());
    // Pings alternate: in thirty, chance leaves neither of two out.
    let reached: BTreeSet<String> = (0..30)
        .map(|_| asker.exec(&["ping", "-c1", "-W2", "netalias"]).ok())
        .filter_map(|said| said.split(['(', ')']).nth(1).map(str::to_owned))
        .collect();
    assert_eq!(reached.len(), 2, "{reached:?}");
}

#[test]
fn seven_an_own_bridge_as_the_default() {
    let lab = Lab::new("own-bridge", 1);
    let host = lab.host(1);
    host.sh("ip link add bridge0 type bridge && ip addr add 192.168.5.1/24 dev bridge0 && ip link set bridge0 up")
        .ok();
    host.start_with(&["--bridge", "bridge0"]);
    host.eventually("the daemon answers", 30, |host| host.weft(&["info"]).text());
    let one = web(&lab, "one", &["-p", "8080:80"]);
    let two = client(&lab, "two", &[]);
    assert!(one.address("bridge").expect("address").starts_with("192.168.5."));
    answers(host, "by address", "one", || {
        two.sh(&get(&format!("http://{}/", one.address("bridge").expect("address"))))
    });
    two.pings("192.168.5.1");
    answers(host, "published", "one", || fetch(host, &format!("{}:8080", host.ip())));
    assert_ne!(host.sh("ip link show weft0").code, 0);
    host.weft(&["rm", "-f", "one", "two"]).ok();
    // The admin's bridge is as it was.
    let left = host.sh("ip -o -4 addr show bridge0; ip -o link show master bridge0").ok();
    assert!(left.contains("192.168.5.1/24") && left.lines().count() == 1, "{left}");
}

#[test]
fn nine_a_direct_link() {
    let lab = lab("p2p", 1);
    let host = lab.host(1);
    let one = client(&lab, "one", &["--network", "none"]);
    let two = client(&lab, "two", &["--network", "none"]);
    let said = host.weft(&["p2p", "--subnet", "10.1.1.0/30", "one", "two"]).ok();
    assert!(said.contains("10.1.1.1/30") && said.contains("10.1.1.2/30"), "{said}");
    one.pings("10.1.1.2");
    two.pings("10.1.1.1");
    let hops = one.exec(&["ping", "-c1", "-t1", "10.1.1.2"]);
    assert_eq!(hops.code, 0, "there is nothing between them: {hops}");
    host.weft(&["rm", "-f", "two"]).ok();
    one.eventually("the link goes with either", SOON, |one| {
        let links = one.sh("ls /sys/class/net").text()?;
        if links == "lo" { Ok(()) } else { Err(links) }
    });
}

#[test]
fn a_direct_link_outlives_the_daemon_and_comes_back_with_its_container() {
    let lab = lab("p2p-crash", 1);
    let host = lab.host(1);
    let one = client(&lab, "one", &["--network", "none"]);
    let two = client(&lab, "two", &["--network", "none"]);
    host.weft(&["p2p", "--subnet", "10.1.1.0/30", "one", "two"]).ok();
    two.pings("10.1.1.1");
    let link = "ip -o link show | grep -v ' lo: '";
    let before = one.sh(link).ok();
    host.kill9();
    host.start();
    one.pings("10.1.1.2");
    assert_eq!(one.sh(link).ok(), before, "it was made anew");
    host.weft(&["restart", "two"]).ok();
    one.pings("10.1.1.2");
    two.pings("10.1.1.1");
    host.weft(&["rm", "-f", "one", "two"]).ok();
}

#[test]
fn the_default_bridge_where_the_administrator_wants_it() {
    let lab = Lab::new("bip", 1);
    let host = lab.host(1);
    host.start_with(&["--bip", "10.7.0.1/24", "--fixed-cidr", "10.7.0.128/28"]);
    host.eventually("the daemon answers", 30, |host| host.weft(&["info"]).text());
    let one = web(&lab, "one", &["-p", "8080:80"]);
    let address = one.address("bridge").expect("address");
    let last: u8 = address.rsplit('.').next().and_then(|n| n.parse().ok()).expect("IPv4");
    assert!(address.starts_with("10.7.0.") && (128..144).contains(&last), "{address}");
    assert!(host.sh("ip -o -4 addr show weft0").ok().contains("10.7.0.1/24"));
    one.pings("10.7.0.1");
    answers(host, "published", "one", || fetch(host, &format!("{}:8080", host.ip())));
    // With nobody on it, it goes where the daemon is told the next time.
    host.weft(&["rm", "-f", "one"]).ok();
    host.stop();
    host.start_with(&["--bip", "10.8.0.1/24"]);
    host.eventually("the daemon answers", 30, |host| host.weft(&["info"]).text());
    let two = client(&lab, "two", &[]);
    assert!(two.address("bridge").expect("address").starts_with("10.8.0."));
    host.weft(&["rm", "-f", "two"]).ok();
}

#[test]
fn members_of_a_macvlan_network_that_talk_by_the_switch_only() {
    let lab = lab("vepa", 2);
    let create =
        "network create -d macvlan --subnet 10.98.0.0/24 -o parent=eth0 -o macvlan_mode=vepa";
    let create: Vec<&str> = create.split(' ').chain(["lan"]).collect();
    lab.host(1).weft(&create).ok();
    let one = client(&lab, "one", &["--network", "lan", "--ip", "10.98.0.8"]);
    let two = client(&lab, "two", &["--network", "lan", "--ip", "10.98.0.9"]);
    let pid = one.pid().expect("it runs");
    let link = lab.host(1).sh(&format!("nsenter -t {pid} -n ip -d link show eth0")).ok();
    assert!(link.contains("macvlan mode vepa"), "{link}");
    lab.host(2).sh("ip addr add 10.98.0.1/24 dev eth0").ok();
    for member in ["10.98.0.8", "10.98.0.9"] {
        lab.host(2).sh(&format!("busybox ping -c1 -W2 {member}")).ok();
    }
    // The switch of the lab does not send back what came from the same port.
    assert_ne!(two.exec(&["ping", "-c1", "-W1", "10.98.0.8"]).code, 0);
}

#[test]
fn ten_containers_that_may_not_talk() {
    let lab = Lab::new("icc", 1);
    let host = lab.host(1);
    host.start_with(&["--icc=false"]);
    host.eventually("the daemon answers", 30, |host| host.weft(&["info"]).text());
    let server = web(&lab, "web", &["--expose", "80", "-p", "8080:80"]);
    let stranger = client(&lab, "stranger", &[]);
    let linked = client(&lab, "linked", &["--link", "web"]);
    let address = server.address("bridge").expect("address");
    answers(host, "linked", "web", || linked.sh(&get("http://web/")));
    assert_ne!(stranger.sh(&get(&format!("http://{address}/"))).code, 0);
    assert_ne!(stranger.exec(&["ping", "-c1", "-W1", &address]).code, 0);
    // Only the exposed port, and only to the linked one.
    host.weft(&["exec", "-d", "web", "peer", "serve", "81"]).ok();
    host.eventually("the other port is served", SOON, |_| server.tcp("127.0.0.1", 81));
    assert!(linked.tcp(&address, 81).is_err());
    let back = linked.address("bridge").expect("address");
    host.weft(&["exec", "-d", "linked", "peer", "serve", "82"]).ok();
    host.eventually("the linked one serves", SOON, |_| linked.tcp("127.0.0.1", 82));
    assert!(server.tcp(&back, 82).is_err(), "a link has one direction");
    // The host and what is published are not concerned.
    answers(host, "from the host", "web", || fetch(host, &format!("{address}:80")));
    answers(host, "published", "web", || fetch(host, &format!("{}:8080", host.ip())));
    weft_tests::stays("the stranger stays outside", Duration::from_millis(300), || match stranger
        .tcp(&address, 80)
    {
        Ok(said) => Err(said),
        Err(_) => Ok(()),
    });
}
