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
