//! Making, joining and leaving a cluster, its tokens and its nodes.
#![forbid(unsafe_code)]

use std::time::Duration;

use weft_tests::{Lab, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn init_join_info_and_the_list_of_nodes() {
    let lab = Lab::new("init", 3);
    let host = lab.host(1);
    host.start();
    assert!(host.weft(&["info"]).ok().contains("Cluster: inactive"));
    // Nobody listens before there is a cluster.
    assert_eq!(host.sh("ss -ltnH 'sport = :2377'").ok(), "");
    host.weft(&["node", "ls"]).refused(1, &["cluster"]);
    let said = host.weft(&["cluster", "init", "--advertise-addr", "eth0"]).ok();
    let token = lab.token("worker");
    assert!(said.contains(&format!("weft cluster join --token {token} 10.99.0.1:2377")), "{said}");
    let parts: Vec<&str> = token.split('-').collect();
    assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [5, 1, 50, 25], "{token}");
    assert!(host.sh("ss -ltnH 'sport = :2377'").ok().contains(":2377"));
    host.weft(&["cluster", "init"]).refused(1, &["already"]);

    lab.host(2).start();
    let said = lab.host(2).weft(&["cluster", "join", "--token", &token, "10.99.0.1:2377"]).ok();
    assert_eq!(said, "This node joined a cluster as a worker.");
    lab.host(3).start();
    let manager = lab.token("manager");
    let join =
        ["cluster", "join", "--token", &manager, "--availability", "drain", "10.99.0.1:2377"];
    assert_eq!(lab.host(3).weft(&join).ok(), "This node joined a cluster as a manager.");
    lab.nodes_ready(3);
    let format = "{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}} {{.Self}}";
    eventually("the list of nodes", PATIENCE, || {
        let mut list: Vec<String> = host
            .weft(&["node", "ls", "--format", format])
            .text()?
            .lines()
            .map(str::to_owned)
            .collect();
        list.sort();
        let want = [
            "n1 Ready Active Leader true",
            "n2 Ready Active  false",
            "n3 Ready Drain Reachable false",
        ];
        if list == want { Ok(()) } else { Err(format!("{list:?}")) }
    });
    let table = host.weft(&["node", "ls"]).ok();
    let head = table.lines().next().expect("a head");
    for word in ["ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS", "ENGINE VERSION"] {
        assert!(head.contains(word), "{head}");
    }
    assert!(table.lines().any(|line| line.contains(" * ") && line.contains("n1")), "{table}");
    // Any manager takes any command; a worker names the managers to go to.
    lab.host(3).weft(&["network", "create", "-d", "overlay", "from3"]).ok();
    assert!(host.weft(&["network", "ls"]).ok().contains("from3"));
    lab.host(2).weft(&["node", "ls"]).refused(1, &["manager", "10.99.0.1:2377"]);
    let info = lab.host(2).weft(&["info"]).ok();
    for words in ["Cluster: active", "Is Manager: false", "NodeID: "] {
        assert!(info.contains(words), "{info}");
    }
    let info = host.weft(&["info"]).ok();
    for words in [
        "Is Manager: true",
        "Managers: 2",
        "Nodes: 3",
        "Default Address Pool: 10.0.0.0/8",
        "SubnetSize: 24",
        "Data Path Port: 4789",
        "Task History Retention Limit: 5",
    ] {
        assert!(info.contains(words), "{words}: {info}");
    }
    let shown = &host.weft(&["node", "inspect", "n2"]).json()[0];
    assert_eq!(shown["Description"]["Hostname"], "n2");
    assert_eq!(shown["Status"]["Addr"], "10.99.0.2");
    let own = &host.weft(&["node", "inspect", "self"]).json()[0];
    assert_eq!(own["Description"]["Hostname"], "n1");
}

#[test]
fn tokens_are_rotated_expire_and_are_used_up() {
    let lab = Lab::new("tokens", 3);
    for host in lab.hosts() {
        host.start();
    }
    let host = lab.host(1);
    host.weft(&["cluster", "init", "--advertise-addr", "10.99.0.1"]).ok();
    let join = |n: usize, token: &str| {
        lab.host(n).weft(&["cluster", "join", "--token", token, "10.99.0.1:2377"])
    };
    let mint = |args: &[&str]| {
        let mut words = vec!["cluster", "join-token", "-q"];
        words.extend(args);
        words.push("worker");
        host.weft(&words).ok()
    };
    let old = lab.token("worker");
    host.weft(&["cluster", "join-token", "--rotate", "worker"]).ok();
    let new = lab.token("worker");
    assert_ne!(old, new);
    join(2, &old).refused(1, &["token"]);
    assert!(lab.host(2).weft(&["info"]).ok().contains("Cluster: inactive"), "nothing changed");

    let once = mint(&["--uses", "1"]);
    join(2, &once).ok();
    join(3, &once).refused(1, &["token"]);
    let short = mint(&["--ttl", "1s"]);
    eventually("it expires", PATIENCE, || {
        // Each try by a node that is no member; the first ones may be in time, so they leave again.
        let said = join(3, &short);
        if said.code == 1 {
            return Ok(());
        }
        lab.host(3).weft(&["cluster", "leave"]).text()?;
        host.weft(&["node", "rm", "--force", "n3"]).text()?;
        Err(said.to_string())
    });
    // A member does not join again, and a token of another cluster opens nothing.
    join(2, &new).refused(1, &["already"]);
    join(1, &new).refused(1, &["already"]);
    let mut wrong = new.clone();
    let last = if wrong.ends_with('a') { 'b' } else { 'a' };
    wrong.pop();
    wrong.push(last);
    join(3, &wrong).refused(1, &["token"]);
    let other = Lab::new("tokens-other", 1);
    other.host(1).start();
    other.host(1).weft(&["cluster", "init", "--advertise-addr", "10.99.0.1"]).ok();
    let foreign = other.token("worker");
    join(3, &foreign).refused(1, &[]);
    join(3, &new).ok();
}

#[test]
fn promote_demote_remove_and_a_removed_node_is_refused() {
    let lab = Lab::cluster("roles", 1, 2);
    let host = lab.host(1);
    host.weft(&["node", "demote", "n1"]).refused(1, &["last"]);
    host.weft(&["node", "promote", "n2"]).ok();
    eventually("n2 is a manager", PATIENCE, || {
        let said = lab
            .host(2)
            .weft(&["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"])
            .text()?;
        if said.contains("n2 Reachable") { Ok(()) } else { Err(said) }
    });
    host.weft(&["node", "demote", "n2"]).ok();
    eventually("n2 is a worker again", PATIENCE, || {
        let said = lab.host(2).weft(&["node", "ls"]);
        if said.code == 1 && said.stderr.contains("manager") {
            Ok(())
        } else {
            Err(said.to_string())
        }
    });
    // Not while it is there, unless forced.
    host.weft(&["node", "rm", "n3"]).refused(1, &["n3"]);
    lab.network("shop", "10.20.0.0/24");
    lab.serve("web", &["--network", "shop", "--replicas", "3"]);
    host.weft(&["node", "rm", "--force", "n3"]).ok();
    eventually("its tasks run elsewhere", PATIENCE, || {
        let list = host.weft(&["service", "ls", "--format", "{{.Replicas}}"]).text()?;
        if list == "3/3" { Ok(()) } else { Err(list) }
    });
    assert_eq!(host.weft(&["node", "ls", "-q"]).ok().lines().count(), 2);
    // It is refused on the streams that were open, and its own side knows.
    eventually("the removed node knows", PATIENCE, || {
        let info = lab.host(3).weft(&["info"]).text()?;
        if info.contains("is not a member") { Ok(()) } else { Err(info) }
    });
    // And it can come back as a new one.
    lab.host(3).weft(&["cluster", "leave", "--force"]);
    lab.join(3, "worker");
    lab.nodes_ready(3);
}

#[test]
fn the_api_over_tcp_needs_a_certificate() {
    let lab = Lab::cluster("client-cert", 1, 1);
    let host = lab.host(1);
    let dir = lab.dir().join("certs");
    std::fs::create_dir(&dir).expect("writable");
    let dir = dir.display().to_string();
    host.weft(&["cluster", "client-cert", "robot", "--dir", &dir]).ok();
    let (ca, cert, key) =
        (format!("{dir}/ca.crt"), format!("{dir}/robot.crt"), format!("{dir}/robot.key"));
    let tcp =
        ["--host", "tcp://10.99.0.1:2377", "--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key];
    let mut ls = tcp.to_vec();
    ls.extend(["node", "ls", "-q"]);
    // From another machine, as an orchestration tool would.
    assert_eq!(lab.host(2).weft(&ls).ok().lines().count(), 2);
    let known = ["cluster", "client-cert", "--ls", "--format", "{{.Name}} {{.Status}}"];
    assert_eq!(host.weft(&known).ok(), "robot Valid");
    let naked = ["--host", "tcp://10.99.0.1:2377", "--tls-ca", &ca, "node", "ls"];
    assert_ne!(lab.host(2).weft(&naked).code, 0, "no certificate, no answer");
    // A worker's own certificate opens no API.
    let state = lab.host(2).state_dir();
    let find = format!("grep -rlE 'BEGIN (EC )?(PRIVATE KEY|CERTIFICATE)' {}", state.display());
    let files = lab.host(2).sh(&find).ok();
    let pick = |word: &str| {
        let hit = files
            .lines()
            .find(|file| std::fs::read_to_string(file).unwrap_or_default().contains(word));
        hit.map(str::to_owned)
    };
    if let (Some(key), Some(cert)) = (
        pick("PRIVATE KEY"),
        files.lines().find(|f| f.contains("node") && f.ends_with(".crt") || f.contains("cert")),
    ) {
        let worker = [
            "--host",
            "tcp://10.99.0.1:2377",
            "--tls-ca",
            &ca,
            "--tls-cert",
            cert,
            "--tls-key",
            &key,
            "node",
            "ls",
        ];
        let said = lab.host(2).weft(&worker);
        assert_ne!(said.code, 0, "{said}");
    }
    // Keys are for root alone.
    for file in files
        .lines()
        .filter(|f| std::fs::read_to_string(f).unwrap_or_default().contains("PRIVATE KEY"))
    {
        assert_eq!(host.sh(&format!("stat -c %a {file}")).ok(), "600", "{file}");
    }
    host.weft(&["cluster", "client-cert", "--revoke", "nobody"]).refused(1, &["nobody"]);
    let serial = host.weft(&["cluster", "client-cert", "--revoke", "robot"]).ok();
    lab.host(2).weft(&ls).refused(1, &["robot", "revoked", &serial]);
    assert_eq!(host.weft(&known).ok(), "robot Revoked");
}
