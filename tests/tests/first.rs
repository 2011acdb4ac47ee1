//! The hardest promise first: daemons in namespaces, a network, a task on each, `ping <service>` across.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use weft_tests::Lab;

#[test]
fn two_daemons_one_network_a_service_on_each_and_ping_by_name() {
    let lab = Lab::cluster("first-two", 1, 1);
    lab.network("shop", "10.20.0.0/24");
    lab.serve("left", &["--network", "shop", "--constraint", "node.hostname==n1"]);
    lab.serve("right", &["--network", "shop", "--constraint", "node.hostname==n2"]);
    let (left, right) = (lab.host(1).container("left"), lab.host(2).container("right"));
    left.pings("right");
    right.pings("left");
    // By the task's own address too, and by TCP and UDP, in both directions.
    left.pings("tasks.right");
    right.pings("left.1");
    for (from, to, back) in [(&left, "right", &left), (&right, "left", &right)] {
        let own = back.address("shop").expect("address");
        let said = from.eventually("tcp", 5, |c| c.tcp(to, 80));
        assert!(said.ends_with(&own), "{said} was asked from {own}");
        let said = from.eventually("udp", 5, |c| c.udp(to, 80));
        assert!(said.ends_with(&own), "{said} was asked from {own}");
    }
    // Packets of the full size pass, whole and in both directions.
    for (server, client, name) in [(&right, &left, "right"), (&left, &right, "left")] {
        let make = "dd if=/dev/urandom of=/www/file bs=1M count=8 2>/dev/null; \
                    httpd -p 8080 -h /www; md5sum </www/file";
        let sum = server.sh(make).ok();
        let got = client.sh(&format!("wget -qO- http://{name}:8080/file | md5sum"));
        assert_eq!(got.ok(), sum);
    }
}

#[test]
fn three_hosts_replicas_on_each_reach_each_other_by_name() {
    let lab = Lab::cluster("first-three", 1, 2);
    lab.network("shop", "10.20.0.0/24");
    lab.serve("web", &["--network", "shop", "--replicas", "6"]);
    let clients = lab.clients("shop");
    let places = lab.host(1).weft(&["service", "ps", "web", "--format", "{{.Node}}"]).ok();
    let mut places: Vec<&str> = places.lines().collect();
    places.sort_unstable();
    assert_eq!(places, ["n1", "n1", "n2", "n2", "n3", "n3"], "replicas are spread");
    for client in &clients {
        client.eventually("all tasks have a name", 5, |c| {
            let found = c.lookup("tasks.web")?;
            if found.len() == 6 { Ok(()) } else { Err(format!("{found:?}")) }
        });
        for address in client.lookup("tasks.web").expect("tasks") {
            client.pings(&address);
        }
        client.pings("web");
        let answers: BTreeSet<String> = (0..64)
            .map(|_| client.tcp("web", 80).expect("a connection to the service"))
            .map(|said| said.split(' ').next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(answers.len(), 6, "every task is asked: {answers:?}");
    }
    // What goes to all reaches every node, and nobody twice.
    let shouted = clients[1].exec(&["peer", "shout", "10.20.0.255", "80"]).ok();
    let heard: BTreeSet<&str> = shouted.lines().collect();
    assert_eq!((heard.len(), shouted.lines().count()), (6, 6), "{shouted}");
    let list =
        lab.host(1).weft(&["service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}"]);
    let list = list.ok();
    assert!(list.lines().any(|line| line == "web replicated 6/6"), "{list}");
    assert!(list.lines().any(|line| line == "clients-shop global 3/3"), "{list}");
}
