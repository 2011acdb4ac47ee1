//! The daemon of a lone host dies at every point of what it does, containers end while it is down,
//! and the machine loses its power: all is there afterwards or nothing, and in the end nothing.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use weft_tests::{Host, Lab};

/// How long a daemon that has come back may take to do what was asked.
const SOON: u64 = 15;

/// Commands of `weft`, the words of each.
type Commands<'a> = &'a [&'a [&'a str]];

/// A server on a network of its own that is published, and what asks it.
struct Shop {
    lab: Lab,
    image: String,
}

impl Shop {
    fn new(name: &str) -> Self {
        let lab = Lab::alone(name, 1);
        let image = lab.image();
        Self { lab, image }
    }

    fn host(&self) -> &Host {
        self.lab.host(1)
    }

    /// `weft ARGS`, with IMAGE for the lab's.
    fn weft(&self, args: &[&str]) -> weft_tests::Output {
        let word =
            |arg: &&str| if *arg == "IMAGE" { self.image.clone() } else { (*arg).to_owned() };
        let args: Vec<String> = args.iter().map(word).collect();
        self.host().weft(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn all(&self, commands: Commands<'_>) {
        for args in commands {
            self.weft(args).ok();
        }
    }

    /// The points that `op` passes.
    fn points(&self, setup: Commands<'_>, op: &[&str]) -> BTreeSet<String> {
        self.all(setup);
        self.host().stop();
        let list = self.lab.dir().join("points");
        self.host().start_listing(&list);
        self.weft(op).ok();
        self.host().stop();
        let text = std::fs::read_to_string(&list).expect("points were passed");
        std::fs::remove_file(&list).expect("it is there");
        self.host().start();
        text.lines().map(str::to_owned).collect()
    }

    /// Lets the daemon die at each point of `op`, looks whether what is there then is whole, and
    /// whether nothing is left when all is removed.
    fn dies(&self, setup: Commands<'_>, op: &[&str], clear: Commands<'_>, whole: impl Fn(&Self)) {
        let points = self.points(setup, op);
        assert!(!points.is_empty(), "no points: {op:?}");
        let mut clean = None;
        for point in [String::new()].into_iter().chain(points) {
            if !point.is_empty() {
                self.all(setup);
                self.host().stop();
                self.host().start_dying_at(&point);
                self.weft(op);
                // It may have been on its way when the answer came, or be no point of the daemon.
                if !self.host().has_died() {
                    self.host().kill9();
                }
                self.host().start();
            }
            eprintln!("{op:?} at {point:?}");
            whole(self);
            for args in clear {
                // Perhaps it never came to be.
                self.weft(args);
            }
            assert_eq!(self.weft(&["ps", "-aq"]).ok(), "", "after {point}");
            self.host().has_nothing_left(&point);
            let clean = clean.get_or_insert_with(|| self.host().snapshot());
            self.host().eventually(
                &format!("the kernel is as it was, after {point}"),
                SOON,
                |host| {
                    let changes = clean.changes(&host.snapshot());
                    if changes.is_empty() { Ok(()) } else { Err(format!("{changes:#?}")) }
                },
            );
        }
    }

    /// The server is there, running, published and named; or was only made, and can be started.
    fn serves(&self) {
        self.host().eventually("it runs, or was never started", SOON, |host| {
            match host.status("web")? {
                up if up.starts_with("Up") => Ok(()),
                made if made.starts_with("Created") || made.starts_with("Exited") => {
                    host.weft(&["start", "web"]).text().map(|_| ())
                }
                other => Err(format!("it is {other:?}")),
            }
        });
        let peer = self.lab.peer();
        self.host().eventually("it is published", SOON, |host| {
            for address in ["127.0.0.1", &host.ip(), "::1"] {
                host.run(&[&peer, "tcp", address, "8080"]).text()?;
            }
            Ok(())
        });
        self.lab.try_run(&["--rm", "--network", "shop"], &["peer", "tcp", "web", "80"]).ok();
    }
}

const SERVER: &[&str] = &[
    "run",
    "-d",
    "--name",
    "web",
    "-h",
    "web",
    "--network",
    "shop",
    "-p",
    "8080:80",
    // It does not listen to TERM; a daemon that comes back to a restart has forgotten the user's `-t 0`.
    "--stop-timeout",
    "1",
    "IMAGE",
    "peer",
    "serve",
    "80",
];
const NETWORK: &[&str] = &["network", "create", "--subnet", "10.20.0.0/24", "shop"];
const CLEAR: Commands<'static> = &[&["rm", "-f", "web"], &["network", "rm", "shop"]];

#[test]
fn while_a_container_is_made_and_started() {
    let shop = Shop::new("faults-run");
    shop.dies(&[NETWORK], SERVER, CLEAR, |shop| {
        if shop.host().status("web").expect("it answers").is_empty() {
            shop.host().has_nothing_left("a container that never was");
            shop.weft(SERVER).ok();
        }
        shop.serves();
    });
}

#[test]
fn while_a_container_is_restarted() {
    let shop = Shop::new("faults-restart");
    shop.dies(&[NETWORK, SERVER], &["restart", "-t", "0", "web"], CLEAR, Shop::serves);
}

#[test]
fn while_a_container_is_stopped() {
    let shop = Shop::new("faults-stop");
    shop.dies(&[NETWORK, SERVER], &["stop", "-t", "0", "web"], CLEAR, Shop::serves);
}

#[test]
fn while_a_container_is_removed() {
    let shop = Shop::new("faults-rm");
    shop.dies(&[NETWORK, SERVER], &["rm", "-f", "web"], CLEAR, |shop| {
        // Wanted before the daemon died, or never asked for.
        shop.host().eventually("it is removed or serves", SOON, |host| {
            let status = host.status("web")?;
            let whole = status.is_empty() || status.starts_with("Up");
            if whole { Ok(()) } else { Err(status) }
        });
        if !shop.host().status("web").expect("it answers").is_empty() {
            shop.serves();
        }
    });
}

#[test]
fn while_networks_come_and_go() {
    let shop = Shop::new("faults-networks");
    let back: &[&str] = &["network", "create", "back"];
    let clear: Commands<'_> = &[CLEAR[0], CLEAR[1], &["network", "rm", "back"]];
    let connect: &[&str] = &["network", "connect", "--alias", "behind", "back", "web"];
    let consistent = |shop: &Shop| {
        shop.serves();
        let on = shop.host().container_named("web").address("back").is_ok();
        let links = shop.weft(&["exec", "web", "ls", "/sys/class/net"]).ok();
        assert_eq!(links.contains("eth1"), on, "{links}");
        let asked = ["--rm", "--network", "back"];
        let said = shop.lab.try_run(&asked, &["peer", "tcp", "behind", "80"]);
        assert_eq!(said.code == 0, on, "{said}");
    };
    shop.dies(&[NETWORK, SERVER, back], connect, clear, consistent);
    let leave: &[&str] = &["network", "disconnect", "back", "web"];
    shop.dies(&[NETWORK, SERVER, back, connect], leave, clear, consistent);
    let device = |shop: &Shop| {
        let shown = shop.weft(&["network", "inspect", "--format", "{{.Id}}", "back"]);
        let links = shop.host().sh("ip -o link show type bridge").ok();
        match shown.code {
            0 => assert!(links.contains(&format!("br-{}", &shown.stdout[..12])), "{links}"),
            _ => assert!(!links.contains("br-"), "{links}"),
        }
    };
    let clear: Commands<'_> = &[&["network", "rm", "back"]];
    shop.dies(&[], back, clear, device);
    shop.dies(&[back], &["network", "rm", "back"], clear, device);
}

#[test]
fn while_the_daemon_is_down_what_runs_goes_on_and_what_ends_is_noticed() {
    let lab = Lab::alone("faults-down", 2);
    let (host, other) = (lab.host(1), lab.host(2));
    let web = lab.run("web", &["-p", "8080:80"], &["peer", "serve", "80"]);
    let count = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done";
    lab.run("counter", &[], &["sh", "-c", count]);
    // Each ends when its file is there.
    let ends = |code: &str| format!("until [ -e /gate/open ]; do sleep 0.05; done; exit {code}");
    let gate = lab.dir().join("gate");
    std::fs::create_dir(&gate).expect("writable");
    let gate_flag = format!("{}:/gate", gate.display());
    for (name, flags) in [
        ("plain", &[][..]),
        ("short", &["--rm"]),
        ("again", &["--restart", "on-failure"]),
        ("always", &["--restart", "always"]),
    ] {
        let flags = [&["-v", &gate_flag], flags].concat();
        lab.run(name, &flags, &["sh", "-c", &ends("7")]);
    }
    let pid = web.pid().expect("pid");
    let mut flow = other
        .command(&[&lab.peer(), "flow", &host.ip(), "8080"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the client can be started");
    let mut lines =
        BufReader::new(flow.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.next().is_some());
    host.kill9();
    std::fs::write(gate.join("open"), "").expect("writable");
    host.run(&[&lab.peer(), "tcp", "127.0.0.1", "8080"]).ok();
    other.run(&[&lab.peer(), "tcp", &host.ip(), "8080"]).ok();
    // They have ended before anybody can look.
    host.eventually("they have ended", SOON, |host| {
        let left = host.sh("pgrep -fc '[g]ate/open' || true").text()?;
        if left == "0" { Ok(()) } else { Err(left) }
    });
    std::fs::remove_file(gate.join("open")).expect("it is there");
    host.start();
    assert_eq!(web.pid(), Ok(pid));
    host.comes_to("plain", "Exited (7)");
    host.comes_to("short", "");
    for name in ["again", "always"] {
        host.comes_to(name, "Up");
        let count = host.weft(&["inspect", "--format", "{{.RestartCount}}", name]).ok();
        assert_eq!(count, "1", "{name}");
    }
    let logs = host.weft(&["logs", "counter"]).ok();
    let numbers: Vec<u32> = logs.lines().map(|line| line.parse().expect("a number")).collect();
    assert!(numbers.len() > 5, "{logs}");
    assert!(numbers.iter().zip(1..).all(|(number, nth)| *number == nth), "{logs}");
    assert_eq!(flow.try_wait().expect("our child"), None, "the flow was cut");
    assert!(lines.next().is_some());
    flow.kill().expect("it runs");
    flow.wait().expect("our child");
    host.weft(&["rm", "-f", "web", "counter", "plain", "again", "always"]).ok();
    host.has_nothing_left("all of it");
}

#[test]
fn after_a_power_cut_each_restart_policy_is_obeyed() {
    let lab = Lab::alone("faults-power", 1);
    let host = lab.host(1);
    let sleep = ["sleep", "1000000"];
    lab.run("web", &["-p", "8080:80", "--restart", "unless-stopped"], &["peer", "serve", "80"]);
    lab.run("no", &[], &sleep);
    lab.run("rm", &["--rm"], &sleep);
    for policy in ["always", "unless-stopped", "on-failure"] {
        lab.run(policy, &["--restart", policy], &sleep);
        lab.run(&format!("{policy}-stopped"), &["--restart", policy], &sleep);
        host.weft(&["stop", "-t", "0", &format!("{policy}-stopped")]).ok();
    }
    lab.run(
        "kept",
        &["--restart", "always"],
        &["sh", "-c", "echo x >>/root/starts; sleep 1000000"],
    );
    host.lose_power();
    host.start();
    for up in ["web", "always", "always-stopped", "unless-stopped", "on-failure", "kept"] {
        host.comes_to(up, "Up");
    }
    for down in ["unless-stopped-stopped", "on-failure-stopped"] {
        host.comes_to(down, "Exited (137)");
    }
    host.comes_to("no", "Exited (255)");
    host.comes_to("rm", "");
    host.eventually("it is published again", SOON, |host| {
        host.run(&[&lab.peer(), "tcp", &host.ip(), "8080"]).text()
    });
    // What a container has written is there.
    let starts = host.container_named("kept").sh("cat /root/starts").ok();
    assert_eq!(starts, "x\nx");
    let all = host.weft(&["ps", "-aq"]).ok();
    host.weft(&[&["rm", "-f"], &all.lines().collect::<Vec<_>>()[..]].concat()).ok();
    host.has_nothing_left("all of it");
}
