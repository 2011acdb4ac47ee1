//! Health checks of services: who counts as running, who is found, and who is replaced.
#![forbid(unsafe_code)]

use std::time::Duration;

use weft_tests::{Container, Host, Lab, eventually};

const PATIENCE: Duration = Duration::from_secs(30);
/// A check that fails until the test says otherwise, and fails for long before it counts.
const CHECK: &[&str] = &[
    "--health-cmd",
    "echo not well yet; test -e /tmp/well",
    "--health-interval",
    "200ms",
    "--health-retries",
    "3",
    "--health-start-period",
    "1h",
];

/// Name, state and error of all tasks, the newest of each slot first.
fn tasks(host: &Host, service: &str) -> Result<Vec<[String; 3]>, String> {
    let format = "{{.Name}}|{{.CurrentState}}|{{.Error}}";
    let list = host.weft(&["service", "ps", service, "--no-trunc", "--format", format]).text()?;
    let row = |line: &str| {
        let mut parts = line.splitn(3, '|').map(str::to_owned);
        [(); 3].map(|()| parts.next().unwrap_or_default())
    };
    Ok(list.lines().map(row).collect())
}

fn states(host: &Host, service: &str, wanted: &[(&str, &str)]) {
    eventually(&format!("{service} is {wanted:?}"), PATIENCE, || {
        let found = tasks(host, service)?;
        let is = |(name, state): &(&str, &str)| {
            found.iter().any(|task| task[0] == *name && task[1].starts_with(state))
        };
        if wanted.iter().all(is) { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

fn heal(lab: &Lab, service: &str) {
    for task in lab.hosts().flat_map(|host| host.containers(service)) {
        task.sh("touch /tmp/well").ok();
    }
}

fn found(client: &Container<'_>, name: &str, wanted: &[&String]) {
    client.eventually(&format!("{name} is {wanted:?}"), PATIENCE.as_secs(), |client| {
        let found = client.lookup(name)?;
        let mut wanted = wanted.to_vec();
        wanted.sort();
        if found.iter().eq(wanted) { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

#[test]
fn only_healthy_tasks_run_and_are_found_and_the_others_are_replaced() {
    let lab = Lab::cluster("health", 1, 1);
    let host = lab.host(1);
    lab.network("shop", "10.20.0.0/24");
    let clients = lab.clients("shop");
    let image = lab.image();
    // It ignores SIGTERM, so for these seconds an unhealthy one still answers.
    let mut create = vec!["service", "create", "-d", "--name", "web", "--replicas", "2"];
    create.extend(["--network", "shop", "--restart-delay", "100ms", "--stop-grace-period", "5s"]);
    create.extend(CHECK);
    create.extend([image.as_str(), "peer", "serve", "80"]);
    host.weft(&create).ok();

    // Their commands run, and they are none the less not running.
    let two = || -> Result<Vec<Container<'_>>, String> {
        let mut found = Vec::new();
        for host in lab.hosts() {
            for task in host.containers("web") {
                let template = "{{.State.Status}} {{.State.Health.Status}}";
                let shown = host.weft(&["inspect", "--format", template, task.id()]).text()?;
                if shown != "running starting" {
                    return Err(shown);
                }
                found.push(task);
            }
        }
        if found.len() == 2 { Ok(found) } else { Err(format!("{} containers", found.len())) }
    };
    let both = eventually("both containers run", PATIENCE, two);
    states(host, "web", &[("web.1", "Starting"), ("web.2", "Starting")]);
    for client in &clients {
        client.lookup("tasks.web").expect_err("nobody is well");
    }
    heal(&lab, "web");
    states(host, "web", &[("web.1", "Running"), ("web.2", "Running")]);
    let addresses: Vec<String> =
        both.iter().map(|task| task.address("shop").expect("an address")).collect();
    found(&clients[0], "tasks.web", &addresses.iter().collect::<Vec<_>>());
    let listed = lab.hosts().map(|host| host.weft(&["ps"]).ok()).collect::<String>();
    assert_eq!(listed.matches("(healthy)").count(), 2, "{listed}");

    // A new daemon does not doubt what was healthy.
    lab.host(2).kill9();
    lab.host(2).start();
    lab.nodes_ready(2);
    states(host, "web", &[("web.1", "Running"), ("web.2", "Running")]);

    // One gets ill: nobody finds it, though its command still runs; then it is replaced.
    both[0].sh("rm /tmp/well").ok();
    for client in &clients {
        found(client, "tasks.web", &[&addresses[1]]);
    }
    assert_eq!(both[0].sh("echo still here").ok(), "still here");
    for client in &clients {
        client.eventually("the virtual address leads to the healthy one", 10, |client| {
            let said: Result<Vec<String>, String> = (0..8).map(|_| client.tcp("web", 80)).collect();
            let other = both[1].sh("hostname").ok();
            let said = said?;
            if said.iter().all(|line| line.contains(&other)) {
                Ok(())
            } else {
                Err(said.join("; "))
            }
        });
    }
    let why = "task: unhealthy container (exit code 1): not well yet";
    eventually("the reason is told", PATIENCE, || {
        let found = tasks(host, "web")?;
        let told = found.iter().any(|task| task[1].starts_with("Failed") && task[2].contains(why));
        if told { Ok(()) } else { Err(format!("{found:?}")) }
    });
    eventually("another takes its place", PATIENCE, || {
        let found = tasks(host, "web")?;
        match found.iter().filter(|task| task[1].starts_with("Starting")).count() {
            1 => Ok(()),
            _ => Err(format!("{found:?}")),
        }
    });
    heal(&lab, "web");
    states(host, "web", &[("web.1", "Running"), ("web.2", "Running")]);
    eventually("two are found again", PATIENCE, || {
        let found = clients[0].lookup("tasks.web")?;
        if found.len() == 2 { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

#[test]
fn a_check_is_shown_changed_and_taken_away() {
    let lab = Lab::cluster("health-update", 1, 0);
    let host = lab.host(1);
    let image = lab.image();
    let sleep = ["sleep", "1000000"];
    let quick = ["--health-cmd", "true", "--health-interval", "100ms"];
    // Waits until the check has succeeded.
    lab.service("web", &quick, &sleep);
    states(host, "web", &[("web.1", "Running")]);
    let pretty = host.weft(&["service", "inspect", "--pretty", "web"]).ok();
    for part in ["Healthcheck:", "CMD-SHELL true", "100ms", "Timeout:\t2s"] {
        assert!(pretty.contains(part), "{part}: {pretty}");
    }
    let check = |path: &str| {
        let shown = &host.weft(&["service", "inspect", "web"]).json()[0];
        shown["Spec"]["TaskTemplate"]["ContainerSpec"]["Healthcheck"][path].clone()
    };
    assert_eq!(check("Interval"), 100_000_000);
    let update = |flags: &[&str]| {
        let mut args = vec!["service", "update"];
        args.extend(flags);
        args.push("web");
        host.weft(&args)
    };
    update(&["--health-interval", "150ms"]).ok();
    assert_eq!((check("Interval"), check("Test")[1].clone()), (150_000_000.into(), "true".into()));

    // With an empty command, or none, nothing is checked.
    update(&["--health-cmd", ""]).ok();
    assert_eq!(check("Test"), serde_json::Value::Null);
    update(&["--no-healthcheck"]).ok();
    assert_eq!(check("Test")[0], "NONE");

    // An update to a check that never succeeds says so.
    let bad = ["--health-cmd", "echo no good; false", "--health-interval", "100ms"];
    let bad = [&bad[..], &["--health-retries", "1", "--restart-delay", "100ms"]].concat();
    let said = update(&bad);
    assert_eq!(said.code, 1, "{said}");
    assert!(said.stderr.contains("unhealthy container (exit code 1): no good"), "{said}");

    let bad_input: &[(&[&str], &str)] = &[
        (&["--health-interval", "1s"], "needs --health-cmd"),
        (&["--no-healthcheck", "--health-retries", "1"], "not with --no-healthcheck"),
        (&["--health-cmd", ""], "--health-cmd"),
        (&["--health-cmd", "true", "--health-interval", "1us"], "--health-interval"),
        (&["--health-cmd", "true", "--health-timeout", "25h"], "--health-timeout"),
        (&["--health-cmd", "true", "--health-retries", "-1"], "--health-retries"),
        (&["--health-cmd", "true", "--health-start-period", "5"], "missing unit"),
    ];
    for (flags, why) in bad_input {
        let mut args = vec!["service", "create", "-d", "--name", "bad"];
        args.extend(*flags);
        args.push(&image);
        args.extend(sleep);
        let said = host.weft(&args);
        assert!(said.code != 0 && said.stderr.contains(why), "{flags:?}: {said}");
    }
    let listed = host.weft(&["service", "ls", "--format", "{{.Name}}"]).ok();
    assert_eq!(listed, "web", "nothing half done");
}
