//! Overlay networks: addresses, families, the way out, and what must not get through.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use weft_tests::{Lab, eventually};

fn subnets(lab: &Lab, name: &str) -> Vec<String> {
    let shown = &lab.host(1).weft(&["network", "inspect", name]).json()[0];
    let config = shown["IPAM"]["Config"].as_array().expect("IPAM.Config").clone();
    config.iter().map(|one| one["Subnet"].as_str().expect("Subnet").to_owned()).collect()
}

#[test]
fn a_slash_29_carries_four_tasks_and_a_vip_and_then_says_why_not() {
    let lab = Lab::cluster("full", 1, 1);
    lab.network("small", "10.20.0.0/29");
    // Six host addresses: the gateway, the VIP, and four tasks. Nothing is spent on the nodes.
    lab.serve("web", &["--network", "small", "--replicas", "4"]);
    let host = lab.host(1);
    let more = host.weft(&["service", "scale", "--detach", "web=5"]);
    more.ok();
    host.eventually("it says what is full", 10, |host| {
        let list =
            host.weft(&["service", "ps", "web", "--no-trunc", "--format", "{{.Error}}"]).text()?;
        let told = list.lines().any(|l| l.contains("small") && l.contains('4') && l.contains('1'));
        if told { Ok(()) } else { Err(list) }
    });
    host.weft(&["service", "scale", "web=4"]).ok();
    // Another service has no address for its VIP: refused, and nothing half made.
    let image = lab.image();
    let refused = host.weft(&[
        "service",
        "create",
        "--name",
        "late",
        "--network",
        "small",
        &image,
        "sleep",
        "9",
    ]);
    refused.refused(1, &["small"]);
    assert!(refused.stderr.contains("hint: "), "{refused}");
    assert!(!host.weft(&["service", "ls", "--format", "{{.Name}}"]).ok().contains("late"));
    // dnsrr spends none on a VIP: five tasks.
    host.weft(&["service", "rm", "web"]).ok();
    lab.serve("robin", &["--network", "small", "--replicas", "5", "--endpoint-mode", "dnsrr"]);
    let found: BTreeSet<String> = lab
        .hosts()
        .flat_map(|host| host.containers("robin"))
        .map(|task| task.address("small").expect("address"))
        .collect();
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(!found.contains("10.20.0.1"), "the gateway was given away: {found:?}");
}

#[test]
fn subnets_are_cut_without_overlap_and_options_are_kept() {
    let lab = Lab::new("subnets", 2);
    for host in lab.hosts() {
        host.start();
    }
    // A route of a node, and a resolver of another, lie in the pool.
    lab.host(1).sh("ip route add 10.50.0.0/24 via 10.99.0.254");
    lab.host(2).resolvers("nameserver 10.50.2.3\n");
    let init =
        ["cluster", "init", "--advertise-addr", "10.99.0.1", "--default-addr-pool", "10.50.0.0/22"];
    lab.host(1).weft(&init).ok();
    lab.join(2, "worker");
    lab.nodes_ready(2);
    let host = lab.host(1);
    let create = |name: &str| host.weft(&["network", "create", "-d", "overlay", name]);
    let mut found = BTreeSet::new();
    // Of four subnets one is a route's and one a resolver's.
    eventually("facts of the nodes are known", std::time::Duration::from_secs(10), || {
        let said = create("probe").text()?;
        let cut = subnets(&lab, "probe");
        host.weft(&["network", "rm", "probe"]).text()?;
        if cut == ["10.50.0.0/24"] { Err(format!("{said} {cut:?}")) } else { Ok(()) }
    });
    for name in ["a", "b"] {
        create(name).ok();
        found.extend(subnets(&lab, name));
    }
    let want = ["10.50.1.0/24", "10.50.3.0/24"].map(str::to_owned);
    assert_eq!(found, BTreeSet::from(want));
    create("c").refused(1, &["pool"]);
    for taken in ["10.50.1.128/25", "10.50.0.0/16", "10.99.0.0/25"] {
        host.weft(&["network", "create", "-d", "overlay", "--subnet", taken, "d"])
            .refused(1, &["overlap"]);
    }
    let full = [
        "network",
        "create",
        "-d",
        "overlay",
        "--subnet",
        "10.60.0.0/16",
        "--gateway",
        "10.60.0.9",
        "--ip-range",
        "10.60.5.0/24",
        "--aux-address",
        "printer=10.60.5.1",
        "--label",
        "team=red",
        "--attachable",
        "-o",
        "com.docker.network.driver.mtu=1300",
        "full",
    ];
    host.weft(&full).ok();
    let shown = &host.weft(&["network", "inspect", "full"]).json()[0];
    let config = &shown["IPAM"]["Config"][0];
    assert_eq!(config["Gateway"], "10.60.0.9");
    assert_eq!(config["IPRange"], "10.60.5.0/24");
    assert_eq!(shown["Labels"]["team"], "red");
    assert_eq!(shown["Attachable"], true);
    lab.service(
        "one",
        &["--network", "full", "--constraint", "node.hostname==n1"],
        &["sleep", "1000000"],
    );
    let one = host.container("one");
    let address = one.address("full").expect("address");
    assert!(address.starts_with("10.60.5.") && address != "10.60.5.1", "{address}");
    assert_eq!(one.sh("ip route | grep default").ok().split(' ').nth(2), Some("10.60.0.9"));
    assert_eq!(one.sh("cat /sys/class/net/eth0/mtu").ok(), "1300");
    let used = host.weft(&["network", "rm", "full"]);
    used.refused(1, &["one"]);
}

#[test]
fn both_families_and_ipv6_alone() {
    let lab = Lab::cluster("families", 1, 1);
    let host = lab.host(1);
    host.weft(&[
        "network",
        "create",
        "-d",
        "overlay",
        "--ipv6",
        "--subnet",
        "10.20.0.0/24",
        "both",
    ])
    .ok();
    let cut = subnets(&lab, "both");
    assert!(cut.iter().any(|s| s.starts_with("fd")) && cut.len() == 2, "{cut:?}");
    host.weft(&["network", "create", "-d", "overlay", "--ipv6", "--subnet", "fd55:1::/64", "six"])
        .ok();
    assert_eq!(subnets(&lab, "six"), ["fd55:1::/64"]);
    for network in ["both", "six"] {
        lab.serve(&format!("web-{network}"), &["--network", network, "--replicas", "2"]);
        let clients = lab.clients(network);
        for c in &clients {
            let name = format!("web-{network}");
            let tasks = format!("tasks.{name}");
            c.eventually("both tasks by IPv6", 10, |c| {
                let found = c.lookup_type(&tasks, "aaaa")?;
                if found.len() == 2 { Ok(()) } else { Err(format!("{found:?}")) }
            });
            for address in c.lookup_type(&tasks, "aaaa").expect("addresses") {
                c.eventually("ping", 5, |c| c.exec(&["ping", "-6", "-c1", "-W1", &address]).text());
                c.tcp(&address, 80).expect("tcp");
            }
            let vip = c.lookup_type(&name, "aaaa").expect("the VIP");
            assert_eq!(vip.len(), 1);
            let said = c.tcp(&vip[0], 80).expect("tcp by the VIP");
            assert!(said.contains(" fd"), "{said}");
            c.udp(&vip[0], 80).expect("udp by the VIP");
            if network == "six" {
                assert!(c.lookup(&name).is_err(), "an IPv4 address in an IPv6 network");
                assert_eq!(c.sh("ip -4 -o addr show eth0").ok(), "");
                c.ping(&name).expect("ping by name");
            }
        }
    }
}

#[test]
fn the_way_out_is_the_own_host_and_networks_are_apart() {
    let lab = Lab::cluster("egress", 1, 1);
    let host = lab.host(1);
    lab.network("shop", "10.20.0.0/24");
    lab.network("back", "10.21.0.0/24");
    host.weft(&[
        "network",
        "create",
        "-d",
        "overlay",
        "--internal",
        "--subnet",
        "10.22.0.0/24",
        "closed",
    ])
    .ok();
    lab.serve("web", &["--network", "shop", "--mode", "global"]);
    lab.serve("store", &["--network", "back", "--mode", "global"]);
    lab.serve("shut", &["--network", "closed", "--mode", "global"]);
    let _outside = lab.outside_server(8080);
    for host in lab.hosts() {
        let (web, shut) = (host.container("web"), host.container("shut"));
        // Masqueraded: the world sees the host.
        let said = web.eventually("the way out", 10, |c| c.tcp("10.99.0.254", 8080));
        assert!(said.ends_with(&host.ip()), "{said}");
        web.pings("10.99.0.254");
        let gateway = web.sh("ip route | grep default").ok();
        assert_eq!(gateway.split(' ').nth(2), Some("10.20.0.1"));
        shut.eventually("the internal network itself works", 10, |c| c.tcp("shut", 80));
        assert!(shut.tcp("10.99.0.254", 8080).is_err(), "an internal network leads out");
        assert!(shut.ping("10.99.0.254").is_err());
    }
    // The same gateway and MAC on each host, so that it stays where the container goes.
    let mac = |n: usize| {
        let web = lab.host(n).container("web");
        web.ping("10.20.0.1").expect("the gateway answers");
        web.sh("ip neigh show 10.20.0.1").ok().split_whitespace().nth(4).map(str::to_owned)
    };
    assert!(mac(1).is_some());
    assert_eq!(mac(1), mac(2));

    let store = lab.host(1).container("store").address("back").expect("address");
    let far = lab.host(2).container("store").address("back").expect("address");
    let web = lab.host(1).container("web");
    let apart = |when: &str| {
        for target in [&store, &far] {
            assert!(web.ping(target).is_err(), "{when}: another network's container answers");
            assert!(web.tcp(target, 80).is_err(), "{when}");
        }
        // Nor its gateway, which is an address of this host.
        assert!(web.tcp("10.21.0.1", 2377).is_err(), "{when}");
    };
    apart("with rules");
    // Not reachable from the LAN, which would route to us.
    let own = web.address("shop").expect("address");
    lab.outside(
        "ip route replace 10.20.0.0/24 via 10.99.0.1; ip route replace 10.21.0.0/24 via 10.99.0.1",
    )
    .ok();
    let peer = lab.peer();
    assert_ne!(lab.outside(&format!("{peer} tcp {own} 80")).code, 0, "reached from the LAN");
    assert_ne!(lab.outside(&format!("busybox ping -c1 -W1 {own}")).code, 0, "reached from the LAN");
    // A structure holds with no rules at all.
    lab.host(1).sh("nft flush ruleset").ok();
    apart("flushed");
    lab.host(1).eventually("the rules are back", 3, |host| {
        let rules = host.sh("nft list tables").text()?;
        if rules.contains(" weft") { Ok(()) } else { Err(rules) }
    });
    web.eventually("the way out is back", 5, |c| c.tcp("10.99.0.254", 8080));
    assert_ne!(lab.outside(&format!("{peer} tcp {own} 80")).code, 0, "reached from the LAN");
}

#[test]
fn forged_packets_from_strangers_are_not_taken() {
    let lab = Lab::cluster("forged", 1, 1);
    lab.network("shop", "10.20.0.0/24");
    lab.serve("web", &["--network", "shop", "--mode", "global"]);
    let task = lab.host(1).container("web");
    task.pings("web");
    let own = task.address("shop").expect("address");
    // The same VXLAN made by hand on the switch, which is no member.
    let vni = lab
        .host(1)
        .sh("ip -d -o link show type vxlan | sed -n 's/.* vxlan id \\([0-9]*\\).*/\\1/p'")
        .ok();
    let mac = task.sh("cat /sys/class/net/eth0/address").ok();
    lab.outside(&format!(
        "ip link add wx type vxlan id {vni} dstport 4789 local 10.99.0.254 nolearning && \
         ip addr add 10.20.0.200/24 dev wx && ip link set wx up && \
         bridge fdb append {mac} dev wx dst 10.99.0.1 && \
         ip neigh replace {own} lladdr {mac} dev wx nud permanent"
    ))
    .ok();
    // What counts is what arrives: the answer would have no way back in any case.
    let received = |c: &weft_tests::Container<'_>| {
        let text = c.sh("cat /sys/class/net/eth0/statistics/rx_packets").ok();
        text.parse::<u64>().expect("a counter")
    };
    let before = received(&task);
    assert_ne!(lab.outside(&format!("busybox ping -c 20 -i 0.1 -W 1 {own}")).code, 0);
    let after = received(&task);
    assert!(after < before + 20, "{} packets of a stranger arrived", after - before);
    let counter = lab.outside("ip -s link show wx | awk '/TX:/ { getline; print $2 }'").ok();
    assert!(counter.parse::<u64>().expect("a counter") >= 20, "the fault did not happen");
}

#[test]
fn a_name_counts_before_the_beginning_of_an_id_on_the_node_and_in_the_cluster() {
    let lab = Lab::cluster("beginning", 1, 0);
    let host = lab.host(1);
    let own = host.weft(&["network", "create", "shop"]).ok().to_owned();
    // The cluster has a network whose name begins the ID of one of the node.
    let name = &own[..2];
    let create = ["network", "create", "-d", "overlay", "--attachable", name];
    let shared = host.weft(&create).ok().to_owned();
    let id = |word: &str| host.weft(&["network", "inspect", "-f", "{{.Id}}", word]).ok().to_owned();
    assert_eq!(id(name), shared);
    assert_eq!(id(&own[..12]), own);
    assert_eq!(host.weft(&["inspect", "-f", "{{.Scope}}", name]).ok(), "cluster");

    let image = lab.image();
    let run = ["run", "-d", "--name", "c", "--network", name, &image, "sleep", "1000000"];
    host.weft(&run).ok();
    let on = || {
        let names = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
        host.weft(&["inspect", "-f", names, "c"]).ok().trim().to_owned()
    };
    assert_eq!(on(), name);
    host.weft(&["network", "connect", &own[..12], "c"]).ok();
    host.weft(&["network", "disconnect", name, "c"]).ok();
    assert_eq!(on(), "shop");
    host.weft(&["network", "connect", name, "c"]).ok();
    host.weft(&["rm", "-f", "c"]).ok();
    host.eventually("the address is given back", 10, |host| {
        host.weft(&["network", "rm", name]).text().map(drop)
    });
    assert_eq!(id("shop"), own);
}
