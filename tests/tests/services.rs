//! Services and their tasks: making, scaling, updating, placing, restarting, and what is said of it.
#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use weft_tests::{Host, Lab, eventually};

/// Name, node and state of each task that should run.
fn tasks(host: &Host, service: &str) -> Result<Vec<(String, String, String)>, String> {
    let format = "{{.Name}}|{{.Node}}|{{.CurrentState}}|{{.DesiredState}}";
    let list = host.weft(&["service", "ps", service, "--format", format]).text()?;
    let rows = list.lines().map(|line| line.split('|').map(str::to_owned).collect::<Vec<_>>());
    Ok(rows
        .filter(|row| row[3].eq_ignore_ascii_case("running"))
        .map(|row| (row[0].clone(), row[1].clone(), row[2].to_lowercase()))
        .collect())
}

fn all_run(
    host: &Host,
    service: &str,
    count: usize,
) -> Result<Vec<(String, String, String)>, String> {
    let found = tasks(host, service)?;
    let running = found.iter().filter(|task| task.2.starts_with("running")).count();
    if running == count && found.len() == count { Ok(found) } else { Err(format!("{found:?}")) }
}

fn per_node(tasks: &[(String, String, String)]) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for task in tasks {
        *found.entry(task.1.clone()).or_default() += 1;
    }
    found
}

#[test]
fn scale_update_constraints_drain_and_global() {
    let lab = Lab::cluster("services", 1, 2);
    let host = lab.host(1);
    lab.network("shop", "10.20.0.0/24");
    let created = host.weft(&[
        "service",
        "create",
        "--name",
        "web",
        "--replicas",
        "3",
        "--network",
        "shop",
        "--stop-grace-period",
        "500ms",
        &lab.image(),
        "sleep",
        "1000000",
    ]);
    // Results on stdout, progress on stderr, plain lines where there is no terminal.
    let id = created.ok();
    let id = id.lines().next().expect("an ID").to_owned();
    assert!(id.len() >= 12 && id.chars().all(|c| c.is_ascii_hexdigit()), "{created}");
    let said = format!("{}{}", created.stdout, created.stderr);
    assert!(said.contains("overall progress: 3 out of 3 tasks"), "{created}");
    assert!(said.contains("verify: Service converged") && !said.contains('\u{1b}'), "{created}");

    host.weft(&["service", "scale", "web=6"]).ok();
    let found = all_run(host, "web", 6).expect("scale waits until they run");
    let spread = per_node(&found);
    assert!(spread.len() == 3 && spread.values().all(|count| *count == 2), "{spread:?}");
    host.weft(&["service", "scale", "web=3"]).ok();
    eventually("three go", Duration::from_secs(20), || all_run(host, "web", 3));

    // A rolling update: new environment in every task, and the slots stay.
    host.weft(&["service", "update", "--env-add", "COLOUR=red", "--label-add", "a=b", "web"]).ok();
    let found = all_run(host, "web", 3).expect("update waits");
    let slots: BTreeSet<&str> = found.iter().map(|task| task.0.as_str()).collect();
    assert_eq!(slots, BTreeSet::from(["web.1", "web.2", "web.3"]));
    for task in lab.hosts().flat_map(|host| host.containers("web")) {
        assert_eq!(task.sh("echo $COLOUR").ok(), "red");
    }
    let shown = &host.weft(&["service", "inspect", "web"]).json()[0];
    assert_eq!(shown["Spec"]["Labels"]["a"], "b");
    assert_eq!(shown["ID"], id.as_str());

    // Constraints: by label, and what cannot be placed says why.
    host.weft(&["node", "update", "--label-add", "zone=east", "n2"]).ok();
    lab.service(
        "east",
        &["--network", "shop", "--replicas", "2", "--constraint", "node.labels.zone==east"],
        &["sleep", "1000000"],
    );
    let east = all_run(host, "east", 2).expect("they run");
    assert!(east.iter().all(|task| task.1 == "n2"), "{east:?}");
    let image = lab.image();
    let west = [
        "service",
        "create",
        "--name",
        "west",
        "--detach",
        "--network",
        "shop",
        "--constraint",
        "node.labels.zone==west",
        &image,
        "sleep",
        "1000000",
    ];
    host.weft(&west).ok();
    eventually("it says why it waits", Duration::from_secs(10), || {
        let list = host.weft(&[
            "service",
            "ps",
            "west",
            "--no-trunc",
            "--format",
            "{{.CurrentState}} {{.Error}}",
        ]);
        let text = list.text()?;
        if text.contains("3 nodes") || text.contains("constraint") { Ok(()) } else { Err(text) }
    });
    host.weft(&["node", "update", "--label-add", "zone=west", "n3"]).ok();
    let west = eventually("it is placed when it can be", Duration::from_secs(15), || {
        all_run(host, "west", 1)
    });
    assert_eq!(west[0].1, "n3");

    // A global service has one on each node, and follows the nodes.
    lab.service("all", &["--mode", "global", "--network", "shop"], &["sleep", "1000000"]);
    let all = all_run(host, "all", 3).expect("one on each");
    assert_eq!(per_node(&all).len(), 3);
    host.weft(&["node", "update", "--availability", "drain", "n3"]).ok();
    eventually("the drained node empties", Duration::from_secs(30), || {
        let left = lab.host(3).weft(&["ps", "-q"]).text()?;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    let web =
        eventually("its tasks run elsewhere", Duration::from_secs(20), || all_run(host, "web", 3));
    assert!(web.iter().all(|task| task.1 != "n3"), "{web:?}");
    host.weft(&["node", "update", "--availability", "active", "n3"]).ok();
    eventually("global comes back", Duration::from_secs(20), || all_run(host, "all", 3));
    let ls = host.weft(&["node", "ls", "--format", "{{.Hostname}} {{.Availability}}"]).ok();
    assert!(ls.to_lowercase().contains("n3 active"), "{ls}");

    let ps = host.weft(&["node", "ps", "n2", "--format", "{{.Name}}"]).ok();
    assert!(ps.contains("east.1") && ps.contains("east.2"), "{ps}");
    host.weft(&["service", "rm", "web", "east", "west", "all"]).ok();
    eventually("everything is gone", Duration::from_secs(20), || {
        let left: String = lab
            .hosts()
            .map(|host| host.weft(&["ps", "-aq"]).text())
            .collect::<Result<Vec<_>, _>>()?
            .concat();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    assert_eq!(host.weft(&["service", "ls", "-q"]).ok(), "");
}

#[test]
fn an_ended_task_is_replaced_with_back_off_and_a_history_of_five() {
    let lab = Lab::cluster("restart-policy", 1, 0);
    let host = lab.host(1);
    lab.network("shop", "10.20.0.0/24");
    lab.serve("web", &["--network", "shop", "--restart-delay", "1s"]);
    let first = host.container("web");
    let address = first.address("shop").expect("address");
    host.weft(&["kill", first.id()]).ok();
    let start = Instant::now();
    let second = eventually("it is replaced", Duration::from_secs(15), || {
        match host.containers("web").as_slice() {
            [other] if other.id() != first.id() => Ok(other.clone()),
            other => Err(format!("{} containers", other.len())),
        }
    });
    assert!(start.elapsed() >= Duration::from_millis(900), "without its delay");
    // A freed address rests.
    assert_ne!(second.address("shop").expect("address"), address, "an address that should rest");
    let list = host.weft(&[
        "service",
        "ps",
        "web",
        "--no-trunc",
        "--format",
        "{{.CurrentState}} {{.Error}}",
    ]);
    assert!(list.ok().contains("137"), "the history says how it ended: {list}");

    // One that always fails: it waits longer each time, and only the last five are kept.
    let image = lab.image();
    let create = [
        "service",
        "create",
        "--name",
        "bad",
        "--network",
        "shop",
        "--detach",
        "--restart-delay",
        "100ms",
        &image,
        "sh",
        "-c",
        "exit 7",
    ];
    host.weft(&create).ok();
    let count = || -> Result<usize, String> {
        Ok(host.weft(&["service", "ps", "bad", "-q"]).text()?.lines().count())
    };
    eventually("its history fills", Duration::from_secs(40), || match count()? {
        5.. => Ok(()),
        few => Err(format!("{few} tasks")),
    });
    // In all, as in Docker; a sixth is there until the reaper has seen it.
    weft_tests::stays("no more than five", Duration::from_secs(3), || match count()? {
        ..=6 => Ok(()),
        many => Err(format!("{many} tasks")),
    });
    let never = [
        "service",
        "create",
        "--name",
        "once",
        "--network",
        "shop",
        "--restart-condition",
        "none",
        &image,
        "sh",
        "-c",
        "exit 7",
    ];
    let said = host.weft(&never);
    said.refused(1, &["7"]);
    let cannot = [
        "service",
        "create",
        "--name",
        "no",
        "--network",
        "shop",
        "rootfs:/does/not/exist",
        "true",
    ];
    host.weft(&cannot).refused(1, &["/does/not/exist"]);
}

#[test]
fn logs_of_a_service_and_tasks_without_a_network() {
    let lab = Lab::cluster("service-logs", 1, 1);
    let host = lab.host(1);
    lab.service(
        "talk",
        &["--replicas", "2"],
        &["sh", "-c", "echo hello from $(hostname); sleep 1000000"],
    );
    eventually("both are heard, from both nodes", Duration::from_secs(10), || {
        let logs = host.weft(&["service", "logs", "talk"]).text()?;
        let heard = logs.matches("hello from").count();
        if heard == 2 && logs.contains("talk.1") && logs.contains("talk.2") {
            Ok(())
        } else {
            Err(logs)
        }
    });
    // No network was named and there is no local engine yet: only a loopback.
    let task = lab.hosts().flat_map(|host| host.containers("talk")).next().expect("a task");
    assert_eq!(task.sh("ls /sys/class/net").ok(), "lo");
}

#[test]
fn tasks_have_the_user_and_the_rights_that_were_asked_for() {
    let lab = Lab::cluster("service-rights", 1, 0);
    let flags = [
        "--user",
        "1000",
        "--cap-drop",
        "ALL",
        "--read-only",
        "--init",
        "--stop-signal",
        "KILL",
        "--sysctl",
        "net.ipv4.ip_default_ttl=42",
        "--mount",
        "type=tmpfs,target=/scratch",
    ];
    lab.service("safe", &flags, &["sleep", "1000000"]);
    let task = lab.host(1).container("safe");
    let status = task.sh("cat /proc/1/status").ok();
    let line = |name: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name));
        found.map(|value| value.split_whitespace().next().unwrap_or_default().to_owned())
    };
    assert_eq!(line("Uid:").as_deref(), Some("1000"), "{status}");
    assert_eq!(line("CapBnd:").as_deref(), Some("0000000000000000"), "{status}");
    assert_ne!(line("Name:").as_deref(), Some("sleep"), "an init is the first process");
    assert_eq!(task.sh("cat /proc/sys/net/ipv4/ip_default_ttl").ok(), "42");
    task.sh("touch /scratch/x").ok();
    assert_ne!(task.sh("touch /x").code, 0);
}
