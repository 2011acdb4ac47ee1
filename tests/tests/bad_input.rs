//! Bad input as a table: a specific error with its exit code, and nothing changed.
#![forbid(unsafe_code)]

use weft_tests::Lab;

/// Words typed after `weft`, exit code, and what the error must say.
type Case<'a> = (&'a str, i32, &'a [&'a str]);

const OVERLAY: &str = "network create -d overlay";

fn networks() -> Vec<(String, i32, &'static [&'static str])> {
    let cases: &[(&str, i32, &'static [&'static str])] = &[
        // Malformed: the command line makes no sense.
        ("--subnet 10.30.0.0/33 x", 2, &["10.30.0.0/33"]),
        ("--subnet 10.30.0.0 x", 2, &["10.30.0.0"]),
        ("--subnet 010.30.0.0/24 x", 2, &["010.30.0.0/24"]),
        ("--subnet nonsense x", 2, &["nonsense"]),
        ("--gateway 10.30.0.300 --subnet 10.30.0.0/24 x", 2, &["10.30.0.300"]),
        ("--aux-address printer --subnet 10.30.0.0/24 x", 2, &["printer"]),
        ("", 2, &["NAME"]),
        // Understood, and refused.
        ("--subnet 10.30.0.5/24 x", 2, &["10.30.0.5/24", "10.30.0.0/24"]),
        ("--subnet 127.0.0.0/8 x", 1, &["127.0.0.0/8"]),
        ("--subnet 224.0.0.0/24 x", 1, &["224.0.0.0/24"]),
        ("--subnet 169.254.0.0/16 x", 1, &["169.254.0.0/16"]),
        ("--subnet 240.0.0.0/8 x", 1, &["240.0.0.0/8"]),
        ("--subnet 0.0.0.0/0 x", 1, &["0.0.0.0/0"]),
        ("--subnet fe80::/64 x", 1, &["fe80::/64"]),
        ("--subnet ff02::/64 x", 1, &["ff02::/64"]),
        ("--subnet 10.30.0.0/31 x", 1, &["10.30.0.0/31"]),
        ("--subnet 10.30.0.0/32 x", 1, &["10.30.0.0/32"]),
        ("--subnet 10.20.0.0/16 x", 1, &["shop"]),
        ("--subnet 10.20.0.128/25 x", 1, &["shop"]),
        ("--subnet 10.99.0.0/24 x", 1, &["10.99.0.0/24"]),
        ("--subnet 10.30.0.0/24 --gateway 10.31.0.1 x", 2, &["10.31.0.1"]),
        ("--subnet 10.30.0.0/24 --gateway 10.30.0.0 x", 1, &["10.30.0.0"]),
        ("--subnet 10.30.0.0/24 --gateway 10.30.0.255 x", 1, &["10.30.0.255"]),
        ("--subnet 10.30.0.0/24 --ip-range 10.31.0.0/28 x", 2, &["10.31.0.0/28"]),
        ("--subnet 10.30.0.0/24 --aux-address a=10.31.0.1 x", 2, &["10.31.0.1"]),
        (
            "--subnet 10.30.0.0/24 --aux-address a=10.30.0.7 --aux-address b=10.30.0.7 x",
            1,
            &["10.30.0.7"],
        ),
        ("--subnet 10.30.0.0/24 -o com.docker.network.driver.mtu=banana x", 1, &["mtu"]),
        ("--subnet 10.30.0.0/24 -o com.docker.network.driver.mtu=10 x", 1, &["mtu"]),
        ("--subnet 10.30.0.0/24 -o encrypted=perhaps x", 1, &["encrypted", "true or false"]),
        ("--subnet 10.30.0.0/24 shop", 1, &["shop", "exists"]),
        // One network does not become another: the way is shown.
        ("-o encrypted shop", 1, &["shop", "exists", "hint: ", "--network-add", "--network-rm"]),
        ("--subnet 10.30.0.0/24 ../x", 1, &["../x"]),
        ("--subnet 10.30.0.0/24 a/b", 1, &["a/b"]),
        ("--subnet 10.30.0.0/24 host", 1, &["host"]),
        ("--subnet 10.30.0.0/24 none", 1, &["none"]),
        ("--subnet 10.30.0.0/24 ingress", 1, &["ingress"]),
        ("--scope local --subnet 10.30.0.0/24 x", 2, &["scope"]),
    ];
    cases.iter().map(|(words, code, says)| (format!("{OVERLAY} {words}"), *code, *says)).collect()
}

const OTHERS: &[Case<'static>] = &[
    ("network create -d nonsense x", 1, &["nonsense"]),
    ("network rm nobody", 1, &["nobody"]),
    ("network rm shop", 1, &["shop", "web"]),
    ("network inspect nobody", 1, &["nobody"]),
    ("service create --name x --network nobody IMAGE true", 1, &["nobody"]),
    ("service create --name web --network shop IMAGE true", 1, &["web", "exists"]),
    ("service create --name ../x --network shop IMAGE true", 1, &["../x"]),
    ("service create --name x --network shop --replicas -1 IMAGE true", 2, &["-1"]),
    (
        "service create --name x --network shop --replicas 99999999999999999999 IMAGE true",
        2,
        &["replicas"],
    ),
    ("service create --name x --network shop --mode sometimes IMAGE true", 2, &["sometimes"]),
    (
        "service create --name x --network shop --mode global --replicas 2 IMAGE true",
        2,
        &["replicas"],
    ),
    ("service create --name x --network shop --endpoint-mode never IMAGE true", 2, &["never"]),
    ("service create --name x --network shop --constraint nonsense IMAGE true", 2, &["nonsense"]),
    ("service create --name x --network shop --env =x IMAGE true", 2, &["env"]),
    ("service create --name x --network shop --restart-delay banana IMAGE true", 2, &["banana"]),
    ("service create --name x --network shop --hostname a_b!c IMAGE true", 1, &["a_b!c"]),
    ("service create --name x --network shop --network shop IMAGE true", 1, &["twice"]),
    ("service create --name x --network shop,alias=../y IMAGE true", 1, &["../y"]),
    ("service create --name x --network shop --limit-memory banana IMAGE true", 2, &["banana"]),
    ("service create --name x --network shop --nonsense IMAGE true", 2, &["--nonsense"]),
    (
        "service create --name x --network shop --secret s IMAGE true",
        125,
        &["unsupported", "--secret"],
    ),
    ("service create --name x", 2, &["IMAGE"]),
    ("service scale web", 2, &["web"]),
    ("service scale web=-1", 2, &["-1"]),
    ("service scale nobody=1", 1, &["nobody"]),
    ("service update nobody --image IMAGE", 1, &["nobody"]),
    ("service rm nobody", 1, &["nobody"]),
    ("service ps nobody", 1, &["nobody"]),
    ("service inspect nobody", 1, &["nobody"]),
    ("service logs nobody", 1, &["nobody"]),
    ("node inspect nobody", 1, &["nobody"]),
    ("node update --availability sometimes n1", 2, &["sometimes"]),
    ("node update --availability drain nobody", 1, &["nobody"]),
    ("node update --rotate-key nosuch", 1, &["nosuch"]),
    ("node promote nobody", 1, &["nobody"]),
    ("node demote n1", 1, &["last"]),
    ("node rm n1", 1, &["n1"]),
    ("cluster init", 1, &["already"]),
    ("cluster init --wireguard-port 99999", 2, &["99999", "65503"]),
    ("cluster update --key-rotation 1s", 1, &["--key-rotation", "1m"]),
    ("cluster update --wireguard-port 80", 2, &["80"]),
    ("cluster join-token nobody", 2, &["nobody"]),
    ("cluster join-token --uses 0 worker", 2, &["uses"]),
    ("cluster join-token --ttl banana worker", 2, &["banana"]),
    ("cluster leave", 1, &["manager"]),
    ("exec nobody true", 125, &["nobody"]),
    ("logs nobody", 1, &["nobody"]),
    ("stop nobody", 1, &["nobody"]),
    ("kill nobody", 1, &["nobody"]),
    ("inspect nobody", 1, &["nobody"]),
    ("nonsense", 2, &["nonsense"]),
    ("node ls --format {{.Nonsense", 2, &["format"]),
    ("ps --filter nonsense=1", 2, &["nonsense"]),
];

#[test]
fn every_bad_value_has_its_own_error_and_changes_nothing() {
    let lab = Lab::cluster("bad", 1, 0);
    let host = lab.host(1);
    lab.network("shop", "10.20.0.0/24");
    lab.serve("web", &["--network", "shop"]);
    let image = lab.image();
    let state = || {
        let lists =
            ["network ls --no-trunc", "service ls --no-trunc", "node ls --no-trunc", "ps -aq"];
        lists.map(|list| host.weft(&list.split(' ').collect::<Vec<_>>()).ok()).join("\n")
    };
    let (before, kernel) = (state(), host.snapshot());
    let mut wrong = Vec::new();
    let others = OTHERS.iter().map(|(words, code, says)| ((*words).to_owned(), *code, *says));
    for (words, code, says) in networks().into_iter().chain(others) {
        let args: Vec<&str> = words
            .split_whitespace()
            .map(|word| if word == "IMAGE" { image.as_str() } else { word })
            .collect();
        let said = host.weft(&args);
        let text = said.stderr.to_lowercase();
        let missing: Vec<_> =
            says.iter().filter(|word| !text.contains(&word.to_lowercase())).collect();
        if said.code != code
            || !missing.is_empty()
            || !said.stderr.starts_with("error: ")
            || !matches!(said.stdout.as_str(), "" | "[]\n")
        {
            wrong.push(format!("want {code} and {says:?}: {said}"));
        }
        let now = state();
        assert_eq!(now, before, "changed by {said}");
    }
    assert_eq!(kernel.changes(&host.snapshot()), Vec::<String>::new());
    assert!(wrong.is_empty(), "{} of the table:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_cluster_that_cannot_be_is_not_begun() {
    let lab = Lab::alone("bad-init", 1);
    let host = lab.host(1);
    let init = ["cluster", "init", "--advertise-addr", "10.99.0.1", "--key-rotation"];
    host.weft(&[&init[..], &["1s"]].concat()).refused(1, &["--key-rotation", "1m"]);
    assert!(host.weft(&["info"]).ok().contains("Cluster: inactive"));
    host.weft(&[&init[..], &["0"]].concat()).ok();
}

#[test]
fn an_engine_that_the_kernel_has_not_is_no_engine() {
    let lab = Lab::new("bad-engine", 1);
    let host = lab.host(1);
    if host.sh("ip link add wg0 type wireguard").code == 0 {
        eprintln!("this kernel has WireGuard: there is nothing to refuse");
        return;
    }
    let dirs = [host.state_dir(), host.run_dir()].map(|dir| dir.display().to_string());
    let [state, run] = &dirs;
    let daemon = ["daemon", "--state-dir", state, "--run-dir", run, "--wireguard", "kernel"];
    host.weft(&daemon).refused(1, &["wireguard", "hint: ", "--wireguard userspace"]);
    host.start();
    assert!(host.weft(&["info"]).ok().contains("WireGuard: userspace"));
}

#[test]
fn joins_that_cannot_be() {
    let lab = Lab::cluster("bad-join", 1, 0);
    let spare = lab.more_hosts(2, 1);
    let host = &spare[0];
    host.weft(&["info"]).refused(125, &["cannot reach the daemon"]);
    host.start();
    let (worker, manager) = (lab.token("worker"), lab.token("manager"));
    let cut = &worker[..worker.len() - 1];
    let digest = worker.replacen("WFTKN-1-", "WFTKN-1-0", 1);
    let other = format!("WFTKN-1-{}-{}", "0".repeat(50), &worker[worker.len() - 25..]);
    let cases: &[(&str, &str, i32, &[&str])] = &[
        ("", "10.99.0.1:2377", 1, &["token"]),
        ("SWMTKN-1-a-b", "10.99.0.1:2377", 1, &["token"]),
        (cut, "10.99.0.1:2377", 1, &["token"]),
        (&digest, "10.99.0.1:2377", 1, &["token"]),
        (&other, "10.99.0.1:2377", 1, &[]),
        (&worker, "10.99.0.1:0", 2, &["10.99.0.1:0"]),
        (&worker, "10.99.0.1:99999", 2, &["99999"]),
        (&worker, "10.99.0.77:2377", 1, &["10.99.0.77:2377"]),
        (&worker, "10.99.0.1:9", 1, &["10.99.0.1:9"]),
        (&worker, "nobody.invalid:2377", 1, &["nobody.invalid"]),
        (&manager, "10.99.0.2:2377", 1, &["10.99.0.2:2377"]),
    ];
    let mut wrong = Vec::new();
    for (token, address, code, says) in cases {
        let said = host.weft(&["cluster", "join", "--token", token, address]);
        let text = said.stderr.to_lowercase();
        if said.code != *code || !says.iter().all(|word| text.contains(&word.to_lowercase())) {
            wrong.push(format!("want {code} and {says:?}: {said}"));
        }
        assert!(host.weft(&["info"]).ok().contains("Cluster: inactive"), "changed by {said}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(lab.host(1).weft(&["node", "ls", "-q"]).ok().lines().count(), 1);
    // After all that a good one still goes.
    host.weft(&["cluster", "join", "--token", &worker, "10.99.0.1:2377"]).ok();
    host.weft(&["cluster", "join", "--token", &worker, "10.99.0.1:2377"]).refused(1, &["already"]);
    host.weft(&["service", "ls"]).refused(1, &["manager"]);
    host.weft(&["network", "create", "-d", "overlay", "x"]).refused(1, &["manager"]);
}
