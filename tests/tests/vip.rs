//! A service's virtual address: who answers on it, and what happens when those who do come and go.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    time::{Duration, Instant},
};

use weft_tests::{Container, Lab, eventually};

/// A removed or ended task is out of names and VIPs within this time.
const GONE: Duration = Duration::from_secs(1);
/// What a look from outside adds to it: a process in a container, on a busy machine.
const SLACK: Duration = Duration::from_millis(700);

fn names(c: &Container<'_>, times: usize) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for _ in 0..times {
        let said = c.tcp("web", 80).expect("the service answers");
        *found.entry(said.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    found
}

#[test]
fn a_vip_balances_tcp_udp_and_ping_and_keeps_the_clients_address() {
    let lab = Lab::cluster("vip", 1, 1);
    lab.network("shop", "10.20.0.0/24");
    lab.serve("web", &["--network", "shop", "--replicas", "4"]);
    let clients = lab.clients("shop");
    for client in &clients {
        let own = client.address("shop").expect("address");
        client.eventually("the service answers", 10, |c| c.tcp("web", 80));
        let answers = names(client, 64);
        assert_eq!(answers.len(), 4, "{answers:?}");
        for (name, count) in &answers {
            assert!((8..=24).contains(count), "{name} got {count} of 64: {answers:?}");
        }
        let said = client.tcp("web", 80).expect("tcp");
        assert!(said.ends_with(&format!(" {own}")), "{said}: the client is {own}");
        let said = client.udp("web", 80).expect("udp");
        assert!(said.ends_with(&format!(" {own}")), "{said}: the client is {own}");
        client.ping("web").expect("ping");
    }
    // A task reaches its own service too, itself included.
    let task = &lab.host(1).containers("web")[0];
    for _ in 0..8 {
        task.tcp("web", 80).expect("a task asks its own service");
    }
}

#[test]
fn a_task_that_ends_leaves_the_vip_within_a_second_and_its_udp_flows_move() {
    let lab = Lab::cluster("vip-gone", 1, 1);
    lab.network("shop", "10.20.0.0/24");
    // With a long delay the ended task is not replaced while we look.
    let flags = ["--network", "shop", "--replicas", "2", "--restart-delay", "60s"];
    lab.serve("web", &flags);
    let clients = lab.clients("shop");
    let client = &clients[0];
    client.eventually("both answer", 10, |c| {
        let found = names(c, 8);
        if found.len() == 2 { Ok(()) } else { Err(format!("{found:?}")) }
    });
    // One flow of UDP that hits one of them, and goes on.
    let mut flow = client.spawn(&["peer", "udp", "web", "80", "1000"]);
    let mut lines =
        BufReader::new(flow.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let first = lines.next().expect("an answer");
    let name = first.split(' ').next().expect("a name").to_owned();
    let (host, task) = lab
        .hosts()
        .flat_map(|host| host.containers("web").into_iter().map(move |task| (host, task)))
        .find(|(_, task)| task.id().starts_with(&name))
        .expect("the task that answered");
    host.weft(&["kill", task.id()]).ok();
    let killed = Instant::now();
    let other = lines.find(|line| !line.starts_with("none") && !line.starts_with(&name));
    let moved = killed.elapsed();
    assert!(other.is_some(), "the flow went to nobody else");
    // The client itself waits a second for each lost answer.
    assert!(moved < GONE + Duration::from_secs(1) + SLACK, "the flow hung for {moved:?}");
    eventually("the ended task is gone from the name", GONE + SLACK, || {
        let found = client.lookup("tasks.web")?;
        if found.len() == 1 { Ok(()) } else { Err(format!("{found:?}")) }
    });
    // From now on nobody meets the dead one.
    let answers = names(client, 32);
    assert_eq!(answers.len(), 1, "{answers:?}");
    let _ = flow.kill();
    let _ = flow.wait();

    // Nobody left: refused at once, which is not the same as no answer.
    lab.host(1).weft(&["service", "scale", "web=0"]).ok();
    client.eventually("an immediate refusal", 10, |c| {
        let start = Instant::now();
        let said = c.exec(&["peer", "tcp", "web", "80"]);
        let refused = said.stderr.contains("refused") && start.elapsed() < GONE;
        if refused { Ok(()) } else { Err(said.to_string()) }
    });
}

#[test]
fn removing_and_adding_backends_leaves_the_other_flows_alone() {
    let lab = Lab::cluster("vip-flows", 1, 1);
    lab.network("shop", "10.20.0.0/24");
    lab.serve("web", &["--network", "shop", "--constraint", "node.hostname==n2"]);
    let client = &lab.clients("shop")[0];
    client.eventually("it answers", 10, |c| c.tcp("web", 80));
    let mut flow = client.spawn(&["peer", "flow", "web", "80"]);
    let mut lines =
        BufReader::new(flow.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.next().is_some(), "the flow runs");
    lab.host(1).weft(&["service", "scale", "web=4"]).ok();
    client.eventually("all four answer", 10, |c| {
        let found = names(c, 16);
        if found.len() == 4 { Ok(()) } else { Err(format!("{found:?}")) }
    });
    lab.host(1).weft(&["service", "scale", "web=1"]).ok();
    client.eventually("one answers", 10, |c| {
        let found = names(c, 8);
        if found.len() == 1 { Ok(()) } else { Err(format!("{found:?}")) }
    });
    assert_eq!(flow.try_wait().expect("it is our child"), None, "the flow was cut");
    assert!(lines.next().is_some(), "the flow goes on");
    let _ = flow.kill();
    let _ = flow.wait();
}
