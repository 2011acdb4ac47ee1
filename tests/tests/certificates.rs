//! Certificates that end: renewed while the cluster runs, and after it was off for too long.
#![forbid(unsafe_code)]

use std::time::Duration;

use weft_tests::{Lab, eventually, stays};

const PATIENCE: Duration = Duration::from_secs(60);

/// Three managers and a worker whose certificates live for an hour, by clocks of their own.
fn cluster(name: &str) -> Lab {
    let lab = Lab::new(name, 4);
    for host in lab.hosts() {
        host.clock("+0");
        host.start();
    }
    let ip = lab.host(1).ip();
    let init = ["cluster", "init", "--advertise-addr", &ip, "--cert-expiry", "1h"];
    lab.host(1).weft(&init).ok();
    for n in [2, 3] {
        lab.join(n, "manager");
    }
    lab.join(4, "worker");
    lab.nodes_ready(4);
    lab
}

/// When the certificate of host `n` ends.
fn expires(lab: &Lab, n: usize) -> String {
    let info = lab.host(n).weft(&["info", "--format", "json"]).json();
    info["Cluster"]["CertificateExpiresAt"].as_str().expect("a member has a certificate").to_owned()
}

/// All nodes have another certificate than `before`, and are in touch by it.
#[track_caller]
fn renewed(lab: &Lab, when: &str, before: &[String]) -> Vec<String> {
    let now = eventually(&format!("{when}: all are renewed"), PATIENCE, || {
        let now: Vec<String> = (1..=4).map(|n| expires(lab, n)).collect();
        let all = now.iter().zip(before).all(|(now, before)| now > before);
        if all { Ok(now) } else { Err(format!("{now:?}, it was {before:?}")) }
    });
    eventually(&format!("{when}: all nodes are ready"), PATIENCE, || {
        let list = lab.host(1).weft(&["node", "ls", "--format", "{{.Status}}"]).text()?;
        if list.matches("Ready").count() == 4 { Ok(()) } else { Err(list) }
    });
    now
}

fn ids(lab: &Lab) -> Vec<String> {
    lab.hosts().flat_map(|host| host.containers("web")).map(|c| c.id().to_owned()).collect()
}

#[test]
fn a_cluster_that_was_off_for_longer_than_its_certificates_live_comes_back() {
    let lab = cluster("all-off");
    lab.network("shop", "10.20.0.0/24");
    lab.serve("web", &["--network", "shop", "--replicas", "4"]);
    let before = ids(&lab);
    let certificates: Vec<String> = (1..=4).map(|n| expires(&lab, n)).collect();
    for host in lab.hosts() {
        host.stop();
    }
    for host in lab.hosts() {
        host.clock("+1d");
        host.start();
    }
    renewed(&lab, "a day later", &certificates);
    lab.host(2).weft(&["network", "create", "-d", "overlay", "later"]).ok();
    stays("healthy tasks are left alone", Duration::from_secs(5), || {
        let now = ids(&lab);
        if now == before { Ok(()) } else { Err(format!("{now:?}, it was {before:?}")) }
    });
    lab.host(3).weft(&["service", "scale", "web=5"]).ok();
}

#[test]
fn certificates_are_renewed_while_the_cluster_runs_also_when_the_clock_has_jumped_past_their_end() {
    let lab = cluster("renewal");
    let mut certificates: Vec<String> = (1..=4).map(|n| expires(&lab, n)).collect();
    // First into the last fifth of their lives, then, as after a suspension, far beyond.
    for offset in ["+55m", "+12h"] {
        for host in lab.hosts() {
            host.clock(offset);
        }
        certificates = renewed(&lab, offset, &certificates);
        let name = format!("net{}", &offset[1..]);
        lab.host(3).weft(&["network", "create", "-d", "overlay", &name]).ok();
    }
}
