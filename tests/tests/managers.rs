//! Managers that die: one of three, the leader, all of them.
#![forbid(unsafe_code)]

use std::{
    thread,
    time::{Duration, Instant},
};

use weft_tests::{Lab, eventually, stays};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn three_managers_survive_the_loss_of_their_leader() {
    let lab = Lab::cluster("failover", 3, 1);
    lab.network("shop", "10.20.0.0/24");
    lab.serve(
        "web",
        &["--network", "shop", "--replicas", "2", "--constraint", "node.hostname==n4"],
    );
    let before: Vec<String> =
        lab.host(4).containers("web").iter().map(|c| c.id().to_owned()).collect();
    eventually("three vote", PATIENCE, || {
        let info = lab.host(1).weft(&["info"]).text()?;
        if info.matches(":2377").count() >= 3 { Ok(()) } else { Err(info) }
    });
    let first = lab.leader(1).expect("a leader");
    let others: Vec<usize> = (1..=3).filter(|n| *n != first).collect();
    lab.host(first).kill9();
    let start = Instant::now();
    let second = eventually("another one leads", PATIENCE, || {
        let now = lab.leader(others[0])?;
        if now == first { Err("still the dead one".into()) } else { Ok(now) }
    });
    eprintln!("a new leader after {:?}", start.elapsed());
    assert!(others.contains(&second));
    // Writes go on, by either of the two.
    for n in &others {
        let name = format!("net{n}");
        lab.host(*n).weft(&["network", "create", "-d", "overlay", &name]).ok();
    }
    lab.host(others[1]).weft(&["service", "scale", "web=3"]).ok();
    let now: Vec<String> =
        lab.host(4).containers("web").iter().map(|c| c.id().to_owned()).collect();
    assert!(before.iter().all(|id| now.contains(id)), "a healthy task was replaced");
    // The dead one comes back and knows what happened.
    lab.host(first).start();
    eventually("it has caught up", PATIENCE, || {
        let list = lab.host(first).weft(&["network", "ls", "--format", "{{.Name}}"]).text()?;
        let all = others.iter().all(|n| list.contains(&format!("net{n}")));
        if all { Ok(()) } else { Err(list) }
    });
    lab.nodes_ready(4);
    // Two of three gone: an error that says what is missing, and soon; nothing is accepted.
    for n in &others {
        lab.host(*n).kill9();
    }
    let start = Instant::now();
    let said = lab.host(first).weft(&["network", "create", "-d", "overlay", "never"]);
    assert_eq!(said.code, 1, "{said}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}: {said}", start.elapsed());
    for n in &others {
        lab.host(*n).start();
    }
    lab.nodes_ready(4);
}

#[test]
fn names_and_vips_go_on_with_every_manager_dead_also_after_the_workers_daemon_restarted() {
    let lab = Lab::cluster("all-dead", 1, 2);
    lab.network("shop", "10.20.0.0/24");
    lab.serve(
        "web",
        &["--network", "shop", "--replicas", "2", "--constraint", "node.role==worker"],
    );
    let clients = lab.clients("shop");
    let client = &clients[1];
    let works = |when: &str| {
        for name in ["tasks.web", "web", "web.1"] {
            client.eventually(&format!("{when}: {name}"), 10, |c| c.lookup(name));
        }
        client.eventually(when, 10, |c| c.tcp("web", 80));
        let far = lab.host(3).container("web").address("shop").expect("address");
        client.eventually(&format!("{when}: the other worker"), 10, |c| c.tcp(&far, 80));
    };
    works("with a manager");
    let before = lab.host(2).snapshot();
    lab.host(1).kill9();
    works("without");
    stays(
        "they go on beyond the time after which a silent manager is noticed",
        Duration::from_secs(6),
        || {
            client.lookup("tasks.web")?;
            client.tcp("web", 80).map(drop)
        },
    );
    lab.host(2).restart();
    works("after a restart without a manager");
    assert_eq!(before.changes(&lab.host(2).snapshot()), Vec::<String>::new());
    let ids: Vec<String> =
        lab.host(2).containers("web").iter().map(|c| c.id().to_owned()).collect();
    // It comes back: no healthy task is replaced.
    lab.host(1).start();
    lab.nodes_ready(3);
    works("with a manager again");
    let now: Vec<String> =
        lab.host(2).containers("web").iter().map(|c| c.id().to_owned()).collect();
    assert_eq!(ids, now);
}

#[test]
fn all_managers_are_killed_and_restarted() {
    let lab = Lab::cluster("all-killed", 3, 0);
    lab.network("shop", "10.20.0.0/24");
    lab.serve("web", &["--network", "shop", "--replicas", "3"]);
    let ids = |lab: &Lab| -> Vec<String> {
        lab.hosts().flat_map(|host| host.containers("web")).map(|c| c.id().to_owned()).collect()
    };
    let before = ids(&lab);
    for host in lab.hosts() {
        host.kill9();
    }
    for n in [2, 3, 1] {
        lab.host(n).start();
    }
    eventually("there is a leader", PATIENCE, || lab.leader(1));
    lab.nodes_ready(3);
    assert!(lab.host(2).weft(&["network", "ls"]).ok().contains("shop"));
    stays("healthy tasks are left alone", Duration::from_secs(5), || {
        let now = ids(&lab);
        if now == before { Ok(()) } else { Err(format!("{now:?}, it was {before:?}")) }
    });
    lab.host(3).weft(&["service", "scale", "web=4"]).ok();
}

#[test]
fn the_leader_is_killed_while_nodes_join() {
    let lab = Lab::cluster("join-kill", 3, 0);
    lab.network("shop", "10.20.0.0/24");
    let first = lab.leader(1).expect("a leader");
    let survivor = (1..=3).find(|n| *n != first).expect("three of them");
    let token = lab.token("worker");
    let joiners = lab.more_hosts(4, 4);
    for host in &joiners {
        host.start();
    }
    let results: Vec<_> = thread::scope(|scope| {
        let started: Vec<_> = joiners
            .iter()
            .map(|host| {
                let argv = host.weft_argv(&[
                    "cluster",
                    "join",
                    "--token",
                    &token,
                    &format!("10.99.0.{first}:2377"),
                ]);
                let mut command =
                    host.command(&argv.iter().map(String::as_str).collect::<Vec<_>>());
                scope.spawn(move || command.output().expect("weft can be started"))
            })
            .collect();
        lab.host(first).kill9();
        started.into_iter().map(|one| one.join().expect("no panic")).collect()
    });
    eventually("another one leads", PATIENCE, || {
        lab.leader(survivor).and_then(
            |n| {
                if n == first { Err("the dead one".into()) } else { Ok(n) }
            },
        )
    });
    // Each join is wholly in or wholly out: who was told no can try again and is one node only.
    for (host, result) in joiners.iter().zip(&results) {
        let told = String::from_utf8_lossy(&result.stderr).into_owned();
        eventually(&format!("{} is a member ({told})", host.name()), PATIENCE, || {
            let info = host.weft(&["info"]).text()?;
            if info.contains("Cluster: active") {
                return Ok(());
            }
            let again = ["cluster", "join", "--token", &token, &format!("10.99.0.{survivor}:2377")];
            host.weft(&again).text().map(drop)
        });
    }
    lab.host(first).start();
    eventually("each is there once and ready", PATIENCE, || {
        let list = lab
            .host(survivor)
            .weft(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"])
            .text()?;
        let once = joiners.iter().all(|host| {
            let name = format!("{} ", host.name());
            let mine: Vec<&str> = list.lines().filter(|line| line.starts_with(&name)).collect();
            mine.iter().filter(|line| line.ends_with("Ready")).count() == 1
        });
        if once { Ok(()) } else { Err(list) }
    });
}
