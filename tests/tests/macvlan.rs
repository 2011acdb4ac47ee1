//! Networks of the cluster on a device of each node: members have addresses of the segment the hosts
//! are on, and are reached there by everybody.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    process::{Child, Stdio},
};

use weft_tests::{Container, Host, Lab};

/// What stands before the network's name: the lab's own segment, and a part of it for the cluster.
const LAN: [&str; 16] = [
    "network",
    "create",
    "-d",
    "macvlan",
    "--scope",
    "cluster",
    "--attachable",
    "--subnet",
    "10.99.0.0/24",
    "--gateway",
    "10.99.0.254",
    "--ip-range",
    "10.99.0.128/26",
    "-o",
    "parent=eth0",
    "lan",
];

/// Begins `weft run -d` of a container on the network.
fn run(host: &Host, image: &str, name: &str) -> Child {
    let args = ["run", "-d", "--name", name, "--network", "lan", image, "sleep", "1000000"];
    let argv = host.weft_argv(&args);
    let mut command = host.command(&argv.iter().map(String::as_str).collect::<Vec<_>>());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("weft can be started")
}

/// The address of a member, which must be of the part that is the cluster's.
fn given(member: &Container<'_>) -> String {
    let address = member.address("lan").expect("address");
    let parsed: Ipv4Addr = address.parse().expect("an IPv4 address");
    let [a, b, c, d] = parsed.octets();
    assert!([a, b, c] == [10, 99, 0] && (128..192).contains(&d), "{address}");
    address
}

#[test]
fn members_are_on_the_segment_of_the_hosts() {
    let lab = Lab::cluster("segment", 1, 1);
    let (host, image) = (lab.host(1), lab.image());
    let before: Vec<_> = lab.hosts().map(Host::snapshot).collect();
    host.weft(&LAN).ok();
    let shown = &host.weft(&["network", "inspect", "lan"]).json()[0];
    assert_eq!(shown["Driver"], "macvlan");
    assert_eq!(shown["Scope"], "cluster");
    assert_eq!(shown["Options"].as_object().map(serde_json::Map::len), Some(1), "{shown}");

    let each = ["--replicas", "2", "--replicas-max-per-node", "1", "--network", "lan"];
    lab.serve("web", &each);
    let (one, two) = (lab.host(1).container("web"), lab.host(2).container("web"));
    let (first, second) = (given(&one), given(&two));
    assert_ne!(first, second);
    let pid = one.pid().expect("it runs");
    let link = host.sh(&format!("nsenter -t {pid} -n ip -d link show eth0")).ok();
    assert!(link.contains("macvlan mode bridge"), "{link}");
    assert_eq!(one.sh("ip route | grep default").ok().split(' ').nth(2), Some("10.99.0.254"));
    one.pings(&second);
    two.pings(&first);
    // By the names of tasks, and by the service's name at its virtual address.
    for task in ["tasks.web", "web.1", "web.2", "web"] {
        one.pings(task);
        two.pings(task);
    }
    let web = one.lookup("web").expect("a virtual address");
    assert!(!web.contains(&first) && !web.contains(&second), "{web:?}");
    let answered: BTreeSet<String> =
        (0..16).map(|_| one.tcp("web", 80).expect("an answer")).collect();
    assert_eq!(answered.len(), 2, "{answered:?}");
    // Who knows nothing of the cluster reaches them too.
    for address in [&first, &second] {
        lab.outside(&format!("busybox ping -c1 -W2 {address}")).ok();
    }
    let overlay = "ls /sys/class/net | grep -E '^w[bx]'";
    assert_eq!(host.sh(overlay).stdout, "", "nothing of an overlay");

    // Containers of each node, made at once: no address twice.
    let names = |host: &Host| ["a", "b", "c"].map(|letter| format!("{letter}-{}", host.name()));
    let made: Vec<Child> =
        lab.hosts().flat_map(|host| names(host).map(|name| run(host, &image, &name))).collect();
    for child in made {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let mut all = BTreeSet::from([first.clone(), second.clone(), web[0].clone()]);
    for host in lab.hosts() {
        for name in names(host) {
            let address = given(&host.container_named(&name));
            assert!(all.insert(address.clone()), "{address} twice");
        }
    }
    lab.host(2).container_named("a-n2").pings("a-n1");
    one.pings("a-n2");

    host.weft(&["network", "rm", "lan"]).refused(1, &["in use", "web"]);
    for host in lab.hosts() {
        let [a, b, c] = names(host);
        host.weft(&["rm", "-f", &a, &b, &c]).ok();
    }
    host.weft(&["service", "rm", "web"]).ok();
    host.eventually("nobody uses it", 30, |host| host.weft(&["network", "rm", "lan"]).text());
    for (host, before) in lab.hosts().zip(&before) {
        host.eventually("nothing is left", 20, |host| {
            let changes = before.changes(&host.snapshot());
            if changes.is_empty() { Ok(()) } else { Err(format!("{changes:#?}")) }
        });
    }
}

#[test]
fn what_cannot_be_is_said() {
    let lab = Lab::cluster("segment-no", 1, 1);
    let (host, image) = (lab.host(1), lab.image());
    let create = |more: &[&str]| {
        let first: &[&str] = &["network", "create", "--scope", "cluster", "-d"];
        host.weft(&[first, more].concat())
    };
    for driver in ["bridge", "ovs"] {
        create(&[driver, "x"]).refused(1, &["--driver", "overlay, macvlan or ipvlan"]);
    }
    create(&["macvlan", "--subnet", "10.99.0.0/24", "x"]).refused(1, &["parent", "hint: "]);
    create(&["ipvlan", "-o", "parent=eth0", "x"]).refused(1, &["--subnet", "hint: "]);
    assert!(!host.weft(&["network", "ls", "--format", "{{.Name}}"]).ok().contains('x'));

    // One node has the device, the other has not.
    host.sh("ip link add eth7 type veth peer name eth8 && ip link set eth7 up").ok();
    create(&["macvlan", "--subnet", "10.97.0.0/24", "-o", "parent=eth7", "dmz"]).ok();
    host.weft(&[
        "service",
        "create",
        "-d",
        "--name",
        "far",
        "--network",
        "dmz",
        "--constraint",
        "node.hostname==n2",
        &image,
        "sleep",
        "1000000",
    ])
    .ok();
    host.eventually("it says which device", 40, |host| {
        let format = "{{.Node}} {{.Error}}";
        let list = host.weft(&["service", "ps", "far", "--no-trunc", "--format", format]);
        let list = list.text()?;
        let told = |line: &str| line.contains("n2 ") && line.contains("dmz: no device eth7");
        if list.lines().any(told) { Ok(()) } else { Err(list) }
    });
    let near = ["--network", "dmz", "--constraint", "node.hostname==n1"];
    lab.service("near", &near, &["sleep", "1000000"]);
    let address = host.container("near").address("dmz").expect("address");
    assert!(address.starts_with("10.97.0."), "{address}");
}
