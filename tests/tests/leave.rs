//! Leaving a cluster and removing everything leave nothing of ours, and do not touch what is not ours.
#![forbid(unsafe_code)]

use std::time::Duration;

use weft_tests::{Lab, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn removing_everything_leaves_the_kernel_as_it_was() {
    let lab = Lab::cluster("remove", 1, 1);
    let theirs = "ip link add br-theirs type bridge; nft add table inet theirs; \
                  ip route add 192.0.2.0/24 via 10.99.0.254";
    for host in lab.hosts() {
        host.sh(theirs).ok();
    }
    let before: Vec<_> = lab.hosts().map(|host| host.snapshot()).collect();
    lab.network("shop", "10.20.0.0/24");
    lab.host(1).weft(&["network", "create", "-d", "overlay", "--ipv6", "six"]).ok();
    lab.serve("web", &["--network", "shop", "--network", "six", "--replicas", "4"]);
    assert!(
        lab.hosts().zip(&before).all(|(host, before)| !before.changes(&host.snapshot()).is_empty())
    );
    lab.host(1).weft(&["service", "rm", "web"]).ok();
    eventually("the networks can go", PATIENCE, || {
        // What an earlier try has removed is gone already.
        lab.host(1).weft(&["network", "rm", "--force", "shop", "six"]).text()
    });
    for (host, before) in lab.hosts().zip(&before) {
        eventually(&format!("{} is clean", host.name()), PATIENCE, || {
            let changes = before.changes(&host.snapshot());
            // The firewall of a member stays as long as it is one: it guards UDP 4789.
            let more: Vec<_> = changes.iter().filter(|c| !c.starts_with("nftables: ")).collect();
            let cgroups = host.container_cgroups();
            if more.is_empty() && cgroups.is_empty() {
                Ok(())
            } else {
                Err(format!("{more:#?} {cgroups:?}"))
            }
        });
        assert_eq!(host.sh(&format!("ls -A {}/containers", host.state_dir().display())).stdout, "");
    }
}

#[test]
fn a_node_that_leaves_has_nothing_of_ours() {
    let lab = Lab::new("leave", 2);
    for host in lab.hosts() {
        host.start();
    }
    let clean: Vec<_> = lab.hosts().map(alone).collect();
    lab.host(1).weft(&["cluster", "init", "--advertise-addr", "10.99.0.1"]).ok();
    lab.join(2, "worker");
    lab.nodes_ready(2);
    lab.network("shop", "10.20.0.0/24");
    lab.serve("web", &["--network", "shop", "--replicas", "2"]);
    // The last manager goes only by force, and what it refuses changes nothing.
    lab.host(1).weft(&["cluster", "leave"]).refused(1, &["manager"]);
    assert!(lab.host(1).weft(&["service", "ls"]).ok().contains("web"));
    lab.host(2).weft(&["cluster", "leave"]).ok();
    empty(&lab, 2, &clean[1]);
    eventually("the cluster knows", PATIENCE, || {
        let list =
            lab.host(1).weft(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]).text()?;
        if list.contains("n2 Down") || !list.contains("n2") { Ok(()) } else { Err(list) }
    });
    // It may join again, as a new node, when the old one has given up its address.
    lab.host(1).weft(&["node", "rm", "n2"]).ok();
    lab.join(2, "worker");
    eventually("it is ready", PATIENCE, || {
        let list =
            lab.host(1).weft(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]).text()?;
        if list.contains("n2 Ready") { Ok(()) } else { Err(list) }
    });
    lab.host(1).weft(&["cluster", "leave", "--force"]).ok();
    empty(&lab, 1, &clean[0]);
    lab.host(2).weft(&["cluster", "leave", "--force"]).ok();
    empty(&lab, 2, &clean[1]);
    for host in lab.hosts() {
        host.stop();
    }
    // Both can begin anew.
    lab.host(1).start();
    lab.host(1).weft(&["cluster", "init", "--advertise-addr", "10.99.0.1"]).ok();
}

/// The kernel of a host whose daemon is in no cluster: the node's own bridge is there.
fn alone(host: &weft_tests::Host) -> weft_tests::Snapshot {
    eventually("the node's own networks are there", PATIENCE, || {
        host.sh("ip link show weft0 && nft list table inet weft").text()?;
        let (first, second) = (host.snapshot(), host.snapshot());
        let changes = first.changes(&second);
        if changes.is_empty() { Ok(second) } else { Err(format!("{changes:#?}")) }
    })
}

fn empty(lab: &Lab, n: usize, clean: &weft_tests::Snapshot) {
    let host = lab.host(n);
    eventually(&format!("n{n} is clean"), PATIENCE, || {
        let info = host.weft(&["info"]).text()?;
        let changes = clean.changes(&host.snapshot());
        let cgroups = host.container_cgroups();
        let left = host.sh("ss -H -ltnup | grep -E ':(2377|4789) ' || true").ok();
        if info.contains("Cluster: inactive")
            && changes.is_empty()
            && cgroups.is_empty()
            && left.is_empty()
        {
            Ok(())
        } else {
            Err(format!("{changes:#?} {cgroups:?} {left} {info}"))
        }
    });
    let keys = format!("grep -rlE 'PRIVATE KEY' {} || true", host.state_dir().display());
    assert_eq!(host.sh(&keys).ok(), "", "keys of a cluster that it has left");
}

/// A cluster whose node 3 runs a container on a network, is cut off, and was removed without force
/// while it was down. The container's address.
fn removed_while_cut_off(name: &str) -> (Lab, String) {
    let lab = Lab::cluster(name, 1, 2);
    lab.network("shop", "10.20.0.0/28");
    lab.serve("away", &["--network", "shop", "--constraint", "node.hostname==n3"]);
    let address = lab.host(3).container("away").address("shop").expect("it has one");
    lab.cut(3);
    eventually("n3 is down", PATIENCE, || {
        let list = lab.host(1).weft(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]);
        let list = list.text()?;
        if list.contains("n3 Down") { Ok(()) } else { Err(list) }
    });
    let said = lab.host(1).weft(&["node", "rm", "n3"]);
    assert_eq!(said.ok(), "n3");
    assert!(said.stderr.contains("1 addresses stay held"), "{said}");
    assert!(said.stderr.contains("hint: "), "{said}");
    // As many as fit: none of them gets the address, which still answers on the other side.
    let all = ["--network", "shop", "--constraint", "node.hostname==n2", "--replicas", "20", "-d"];
    let image = lab.image();
    let create = ["service", "create", "--name", "many"];
    lab.host(1).weft(&[&create[..], &all, &[&image, "sleep", "1000000"]].concat()).ok();
    eventually("the network is full", PATIENCE, || {
        let tasks =
            ["service", "ps", "many", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}"];
        let tasks = lab.host(1).weft(&tasks).text()?;
        let ready = tasks.contains("address") && tasks.matches("Running").count() >= 8;
        if ready { Ok(()) } else { Err(tasks) }
    });
    for container in lab.host(2).containers("many") {
        assert_ne!(container.address("shop").as_deref(), Ok(address.as_str()));
    }
    lab.host(3).container("away").sh(&format!("ip addr | grep -q {address}/")).ok();
    lab.host(1).weft(&["service", "rm", "away", "many"]).ok();
    let wait = "only what was removed holds something";
    eventually(wait, PATIENCE, || {
        let said = lab.host(1).weft(&["network", "rm", "shop"]);
        let only = said.stderr.contains("task away.1") && !said.stderr.contains("many");
        if said.code == 1 && only { Ok(()) } else { Err(said.to_string()) }
    });
    (lab, address)
}

#[test]
fn a_removed_node_ends_what_it_runs_when_it_hears_of_it_and_its_addresses_are_free_then() {
    let (lab, _) = removed_while_cut_off("heard");
    lab.heal();
    eventually("its address is free", PATIENCE, || {
        lab.host(1).weft(&["network", "rm", "shop"]).text()
    });
    assert!(lab.host(3).containers("away").is_empty(), "it has ended before");
    let info = lab.host(3).weft(&["info"]).ok();
    assert!(info.contains("is not a member"), "{info}");
    // It does not come back by a new start either, and may join anew when it has left.
    lab.host(3).restart();
    assert!(lab.host(3).containers("away").is_empty());
    lab.host(3).weft(&["cluster", "leave"]).ok();
    lab.join(3, "worker");
    lab.nodes_ready(3);
}

#[test]
fn the_addresses_of_a_removed_node_that_stays_away_are_free_by_force() {
    let (lab, _) = removed_while_cut_off("forced");
    lab.host(1).weft(&["node", "rm", "n3"]).refused(1, &["n3"]);
    lab.host(1).weft(&["node", "rm", "--force", "n3"]).ok();
    lab.host(1).weft(&["network", "rm", "shop"]).ok();
    lab.host(1).weft(&["node", "rm", "--force", "n3"]).refused(1, &["n3"]);
    // When it comes back it ends what it runs all the same.
    lab.heal();
    eventually("it has ended", PATIENCE, || {
        let left = lab.host(3).weft(&["ps", "-q"]).text()?;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}
