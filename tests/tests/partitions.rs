//! A worker that is cut off and comes back: no healthy task is restarted, no healthy name denied.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use weft_tests::{Container, Host, Lab, eventually};

/// A silent node's tasks are hidden within this time.
const HIDDEN: Duration = Duration::from_secs(3);
/// And replaced after this time.
const REPLACED: Duration = Duration::from_secs(8);
const SLACK: Duration = Duration::from_secs(2);

type Tasks = BTreeMap<String, (String, String)>;

/// Process and address of each container of `web` on a host.
fn tasks(host: &Host) -> Tasks {
    let of = |c: &Container<'_>| {
        let pid = c.pid().expect("pid").to_string();
        (c.id().to_owned(), (pid, c.address("shop").expect("address")))
    };
    host.containers("web").iter().map(of).collect()
}

fn cut_off_for(name: &str, time: Duration) {
    let lab = Lab::cluster(name, 1, 2);
    lab.network("shop", "10.20.0.0/24");
    lab.serve("web", &["--network", "shop", "--replicas", "3"]);
    let clients = lab.clients("shop");
    let (near, far) = (&clients[0], &clients[2]);
    let before = tasks(lab.host(3));
    assert_eq!(before.len(), 1);
    let (_, address) = before.values().next().expect("one").clone();
    near.eventually("three", 10, |c| match c.lookup("tasks.web")?.len() {
        3 => Ok(()),
        other => Err(format!("{other}")),
    });

    let start = Instant::now();
    lab.cut(3);
    // The others stop giving out the address of the silent node's task.
    eventually("its task is hidden", HIDDEN + SLACK, || {
        let found = near.lookup("tasks.web")?;
        if found.contains(&address) { Err(format!("{found:?}")) } else { Ok(()) }
    });
    eprintln!("hidden after {:?}", start.elapsed());
    if time > REPLACED {
        eventually(
            "its task is replaced",
            REPLACED + SLACK + Duration::from_secs(5),
            || match near.lookup("tasks.web")?.len() {
                3 => Ok(()),
                other => Err(format!("{other} tasks")),
            },
        );
        assert!(start.elapsed() > REPLACED - SLACK, "replaced too soon: {:?}", start.elapsed());
    }
    // On its own side everything goes on, for as long as it lasts.
    while start.elapsed() < time {
        let own = far.lookup("tasks.web").expect("names on the worker that is cut off");
        assert!(own.contains(&address), "{own:?}");
        let _ = near.lookup("web").expect("the service keeps its name");
        far.tcp(&address, 80).expect("its own task answers");
    }
    lab.heal();
    let healed = Instant::now();
    lab.nodes_ready(3);
    eventually("the task has its name again", Duration::from_secs(15), || {
        let found = near.lookup("tasks.web")?;
        if found.contains(&address) && found.len() == 3 {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    eprintln!("as before {:?} after it healed", healed.elapsed());
    assert_eq!(tasks(lab.host(3)), before, "a healthy task was restarted or moved");
    eventually("the replacement has stopped", Duration::from_secs(20), || {
        let all: usize = lab.hosts().map(|host| host.containers("web").len()).sum();
        if all == 3 { Ok(()) } else { Err(format!("{all} containers")) }
    });
    for c in &clients {
        c.eventually("and all reach all", 10, |c| {
            for address in c.lookup("tasks.web")? {
                c.tcp(&address, 80)?;
            }
            Ok(())
        });
    }
    assert_eq!(tasks(lab.host(3)), before);
}

#[test]
fn a_worker_is_cut_off_for_10_seconds() {
    cut_off_for("cut-10", Duration::from_secs(10));
}

#[test]
fn a_worker_is_cut_off_for_a_minute() {
    if !weft_tests::soak() {
        eprintln!("skipped: it takes a minute; `make soak` runs it");
        return;
    }
    cut_off_for("cut-60", Duration::from_secs(60));
}

#[test]
fn a_cut_in_one_direction_heals_too() {
    let lab = Lab::cluster("one-way", 1, 1);
    lab.network("shop", "10.20.0.0/24");
    lab.serve("web", &["--network", "shop", "--replicas", "2"]);
    let before = tasks(lab.host(2));
    lab.cut_one_way(1, 2);
    eventually(
        "the manager hears nothing new of it or it of the manager",
        Duration::from_secs(15),
        || {
            let list = lab
                .host(1)
                .weft(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"])
                .text()?;
            if list.contains("n2 Ready") { Err(list) } else { Ok(()) }
        },
    );
    lab.heal();
    lab.nodes_ready(2);
    eventually("two tasks, the old ones", Duration::from_secs(20), || {
        let all: usize = lab.hosts().map(|host| host.containers("web").len()).sum();
        if all == 2 { Ok(()) } else { Err(format!("{all} containers")) }
    });
    assert_eq!(tasks(lab.host(2)), before, "a healthy task was restarted");
}

#[test]
fn addresses_of_a_silent_node_stay_held_and_what_waits_for_them_says_so() {
    let lab = Lab::cluster("held", 1, 1);
    // Room for four tasks and the VIP, and not for one more.
    lab.network("small", "10.20.0.0/29");
    lab.serve("web", &["--network", "small", "--replicas", "4"]);
    let host = lab.host(1);
    lab.cut(2);
    eventually("the replacements wait and say for what", Duration::from_secs(30), || {
        let ps = ["service", "ps", "web", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}"];
        let list = host.weft(&ps).text()?;
        let told =
            list.lines().any(|l| l.contains("small is exhausted") && l.contains("out of touch"));
        if told { Ok(()) } else { Err(list) }
    });
    let addresses = |host: &Host| -> Vec<String> {
        host.containers("web").iter().map(|c| c.address("small").expect("address")).collect()
    };
    let (near, far) = (addresses(host), addresses(lab.host(2)));
    assert_eq!((near.len(), far.len()), (2, 2));
    assert!(near.iter().all(|address| !far.contains(address)), "{near:?} {far:?}");
    // Given up by hand, they may be used again.
    host.weft(&["node", "rm", "--force", "n2"]).ok();
    eventually("the replacements run", Duration::from_secs(30), || {
        let now = addresses(host);
        if now.len() == 4 { Ok(()) } else { Err(format!("{now:?}")) }
    });
}

#[test]
fn a_node_that_was_drained_while_it_was_away_gives_its_tasks_up() {
    let lab = Lab::cluster("away", 1, 2);
    lab.network("shop", "10.20.0.0/24");
    lab.serve("web", &["--network", "shop", "--replicas", "3"]);
    let host = lab.host(1);
    assert_eq!(lab.host(3).containers("web").len(), 1);
    lab.cut(3);
    eventually("it is missed", Duration::from_secs(15), || {
        let list = host.weft(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]).text()?;
        if list.contains("n3 Ready") { Err(list) } else { Ok(()) }
    });
    host.weft(&["node", "update", "--availability", "drain", "n3"]).ok();
    let here = || [lab.host(1), lab.host(2)].map(tasks);
    let count = |tasks: &[Tasks; 2]| tasks[0].len() + tasks[1].len();
    eventually("its task is replaced", Duration::from_secs(20), || match count(&here()) {
        3 => Ok(()),
        other => Err(format!("{other} tasks")),
    });
    let before = here();
    // There its own goes on until it hears of it.
    assert_eq!(lab.host(3).containers("web").len(), 1);
    lab.heal();
    eventually("it empties", Duration::from_secs(20), || {
        match lab.host(3).containers("web").len() {
            0 => Ok(()),
            other => Err(format!("{other} containers")),
        }
    });
    assert_eq!(here(), before, "a healthy task was touched");
}
