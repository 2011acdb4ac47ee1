//! `--metrics-addr`: what a Prometheus server sees, read by the parser of Prometheus's own Python client.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use weft_tests::{Host, Lab, eventually};

/// How long a busy machine may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where the daemons serve, each in its own namespace.
const ADDRESS: &str = "127.0.0.1:9323";
/// What is fetched from PyPI; the version is fixed so that a run can be repeated.
const PACKAGE: &str = "prometheus-client==0.23.*";

/// A Python with the parser in the build directory, made once; nothing if PyPI cannot be reached.
fn python() -> Option<PathBuf> {
    let own = std::env::current_exe().expect("own path");
    let target = own.ancestors().nth(3).expect("target/PROFILE/deps/TEST");
    let (venv, lock) = (target.join("metrics-venv"), target.join("metrics-venv.lock"));
    // Two tests at once make one environment.
    let lock = fs::File::create(lock).expect("the build directory can be written");
    lock.lock().expect("a lock on a file of ours");
    let python = venv.join("bin/python");
    let works = || {
        let said = Command::new(&python).args(["-c", "import prometheus_client"]).output();
        said.is_ok_and(|said| said.status.success())
    };
    if !works() {
        let _ = fs::remove_dir_all(&venv);
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        let install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", PACKAGE];
        run(Command::new(&python).args(install))?;
    }
    works().then_some(python)
}

fn run(command: &mut Command) -> Option<()> {
    let said = command.output().ok()?;
    said.status.success().then_some(())
}

/// One HTTP request by hand, as old as can be; the answer with its head.
fn get(host: &Host, path: &str) -> Result<String, String> {
    let script = format!(
        "import socket\ns = socket.create_connection(('127.0.0.1', 9323), 5)\n\
         s.sendall(b'GET {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')\n\
         print(b''.join(iter(lambda: s.recv(65536), b'')).decode(), end='')"
    );
    let said = host.run(&["python3", "-c", &script]);
    if said.stderr.is_empty() { Ok(said.stdout) } else { Err(said.stderr) }
}

fn scrape(host: &Host) -> Result<String, String> {
    let answer = get(host, "/metrics")?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no head")?;
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(head.to_lowercase().contains("content-type: application/openmetrics-text"), "{head}");
    Ok(body.to_owned())
}

/// Samples by name and labels.
type Samples = BTreeMap<(String, BTreeMap<String, String>), f64>;

fn parse(python: &Path, text: &str) -> Samples {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/metrics/parse.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python runs");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let said = child.wait_with_output().expect("it ends");
    assert!(said.status.success(), "{}\n{text}", String::from_utf8_lossy(&said.stderr));
    let lines = String::from_utf8(said.stdout).expect("text");
    let sample = |line: &str| {
        let (name, labels, value) = serde_json::from_str(line).expect("three values");
        ((name, labels), value)
    };
    lines.lines().map(sample).collect()
}

/// The sum of all samples of this name that have these labels.
fn sum(samples: &Samples, name: &str, labels: &[(&str, &str)]) -> f64 {
    let found: Vec<f64> = samples
        .iter()
        .filter(|((found, _), _)| found == name)
        .filter(|((_, has), _)| labels.iter().all(|(k, v)| has.get(*k).is_some_and(|x| x == v)))
        .map(|(_, value)| *value)
        .collect();
    found.iter().sum()
}

#[test]
fn a_cluster_tells_a_prometheus_server_how_it_does() {
    let Some(python) = python() else {
        eprintln!("SKIPPED: prometheus-client could not be installed from PyPI");
        return;
    };
    let lab = Lab::new("metrics", 3);
    for host in lab.hosts() {
        host.start_with(&["--metrics-addr", ADDRESS]);
        eventually("the daemon answers", PATIENCE, || host.weft(&["info"]).text());
    }
    lab.host(1).weft(&["cluster", "init", "--advertise-addr", &lab.host(1).ip()]).ok();
    lab.join(2, "worker");
    lab.join(3, "worker");
    lab.nodes_ready(3);
    let read = |n: usize| parse(&python, &scrape(lab.host(n)).expect("it answers"));

    // A task starts.
    let before = read(1);
    assert_eq!(sum(&before, "weft_tasks", &[("state", "running")]), 0.0);
    assert_eq!(sum(&before, "weft_nodes", &[("state", "ready")]), 3.0);
    assert_eq!(sum(&before, "weft_raft_is_leader", &[]), 1.0);
    let create = ["network", "create", "-d", "overlay", "-o", "encrypted", "--subnet"];
    lab.host(1).weft(&[&create[..], &["10.20.0.0/24", "shop"]].concat()).ok();
    let clients = lab.clients("shop");
    let after = read(1);
    assert_eq!(sum(&after, "weft_tasks", &[("state", "running")]), 3.0);
    assert!(
        sum(&after, "weft_raft_proposals_total", &[])
            > sum(&before, "weft_raft_proposals_total", &[])
    );
    assert!(
        sum(&after, "weft_raft_applied_index", &[]) > sum(&before, "weft_raft_applied_index", &[])
    );
    assert!(
        sum(&after, "weft_addresses_used", &[("network", "shop")]) >= 4.0,
        "tasks, and the VIP"
    );
    assert_eq!(sum(&after, "weft_addresses_usable", &[("network", "shop")]), 253.0);

    // A worker: its container, its session, and what it knows of no cluster's managers.
    let worker = read(2);
    assert_eq!(sum(&worker, "weft_containers", &[("kind", "task"), ("state", "running")]), 1.0);
    assert_eq!(sum(&worker, "weft_session_up", &[]), 1.0);
    assert_eq!(sum(&worker, "weft_manager", &[]), 0.0);
    assert!(!worker.keys().any(|(name, _)| name.starts_with("weft_raft_")));
    assert!(sum(&worker, "weft_apply_seconds_count", &[]) > 0.0);
    assert!(sum(&worker, "weft_certificate_expiry_timestamp_seconds", &[]) > 1.7e9);
    assert!(sum(&worker, "weft_disk_free_bytes", &[("directory", "state")]) > 0.0);

    // A ping over the encrypted link raises bytes at both ends, of that link.
    let at_three = [("hostname", "n3")];
    let target = clients[2].address("shop").expect("it has an address");
    clients[1].pings(&target);
    let pinged = read(2);
    for name in ["weft_link_sent_bytes_total", "weft_link_received_bytes_total"] {
        assert!(sum(&pinged, name, &at_three) > sum(&worker, name, &at_three), "{name}");
    }
    assert!(sum(&pinged, "weft_link_handshake_age_seconds", &at_three) < 60.0);

    // A question for a name.
    let own = [("origin", "own"), ("outcome", "noerror")];
    let asked = sum(&read(2), "weft_dns_answers_total", &own);
    clients[1].sh("nslookup clients-shop").ok();
    assert!(sum(&read(2), "weft_dns_answers_total", &own) > asked);

    // No key and no token is in it.
    let text = scrape(lab.host(1)).expect("it answers");
    let secret = lab.token("worker");
    assert!(!text.contains(secret.rsplit('-').next().expect("a secret")), "{text}");
    assert!(get(lab.host(1), "/").expect("an answer").starts_with("HTTP/1.1 404"));

    // It goes with the daemon.
    lab.host(2).stop();
    assert!(get(lab.host(2), "/metrics").is_err());
}

#[test]
fn a_port_in_use_refuses_the_start_and_without_the_option_nothing_listens() {
    let lab = Lab::new("metrics-port", 1);
    let host = lab.host(1);
    host.start();
    assert!(get(host, "/metrics").is_err(), "nobody asked for it");
    host.stop();
    let mut taken = host
        .command(&[
            "python3",
            "-c",
            "import socket, time\ns = socket.create_server(('127.0.0.1', 9323))\ntime.sleep(600)",
        ])
        .spawn()
        .expect("python runs");
    eventually("the port is in use", PATIENCE, || {
        host.sh("ss -ltnH sport = :9323 | grep 9323").text()
    });
    let mut daemon =
        host.spawn_daemon(&host.state_dir(), &host.run_dir(), &["--metrics-addr", ADDRESS]);
    let ended = daemon.wait().expect("it ends");
    assert_eq!(ended.code(), Some(1));
    let log = fs::read_to_string(host.log()).expect("a log");
    let last = log.lines().rev().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(last.contains("cannot serve metrics on 127.0.0.1:9323 (--metrics-addr)"), "{log}");
    assert!(last.contains("in use"), "{log}");
    taken.kill().expect("it is ours");
    taken.wait().expect("it is ours");
}
