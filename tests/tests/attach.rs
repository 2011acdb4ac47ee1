//! Network namespaces that somebody else owns, on attachable networks: found by name, kept over the
//! death of the daemon, and gone without a trace.
#![forbid(unsafe_code)]

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::Value;
use weft_tests::{Host, Lab, Output, eventually};

/// How long a cluster may take to do what it was asked, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Moments at which the daemon is killed after `weft attach` was called: the whole call takes about
/// as long as the last of them.
const MOMENTS: [u64; 12] = [0, 5, 10, 15, 20, 30, 40, 60, 80, 120, 200, 400];

/// A namespace of somebody else, with a resolv.conf of its own.
struct Stranger<'a> {
    host: &'a Host,
    process: Child,
}

impl<'a> Stranger<'a> {
    fn new(host: &'a Host, name: &str) -> Self {
        let conf = host.run_dir().with_file_name(format!("{name}.{}.conf", host.name()));
        std::fs::write(&conf, "nameserver 127.0.0.11\noptions ndots:0\n").expect("writable");
        let script = format!(
            "mount --bind {} /etc/resolv.conf && echo ready && exec sleep infinity",
            conf.display()
        );
        let mut process = host
            .command(&[
                "unshare",
                "--net",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                &script,
            ])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut line = String::new();
        let out = process.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("it speaks");
        assert_eq!(line.trim(), "ready");
        Self { host, process }
    }

    fn netns(&self) -> String {
        format!("/proc/{}/ns/net", self.process.id())
    }

    fn argv(&self, network: &str, name: &str, more: &[&str]) -> Vec<String> {
        let netns = self.netns();
        let argv = ["attach", "--netns", &netns, "--network", network, "--name", name];
        argv.iter().chain(more).map(|word| (*word).to_owned()).collect()
    }

    fn attach(&self, network: &str, name: &str, more: &[&str]) -> Output {
        let argv = self.argv(network, name, more);
        self.host.weft(&argv.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs a script in the namespace.
    fn sh(&self, script: &str) -> Output {
        let pid = self.process.id().to_string();
        self.host.run(&["nsenter", "-t", &pid, "-n", "-m", "sh", "-c", script])
    }

    #[track_caller]
    fn pings(&self, target: &str) {
        eventually(&format!("{} pings {target}", self.netns()), PATIENCE, || {
            self.sh(&format!("busybox ping -c1 -W1 {target} 2>&1")).text()
        });
    }

    fn links(&self) -> Vec<String> {
        let list = self.sh("ip -o link show").ok();
        let names = list.lines().filter_map(|line| line.split(": ").nth(1));
        names.map(|name| name.split('@').next().unwrap_or(name).to_owned()).collect()
    }
}

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn attachable(lab: &Lab) {
    let made =
        ["network", "create", "-d", "overlay", "--attachable", "--subnet", "10.20.0.0/24", "shop"];
    lab.host(1).weft(&made).ok();
}

/// Names of the members of the network, as the leader has them.
fn members(lab: &Lab) -> Vec<String> {
    let shown = lab.host(1).weft(&["network", "inspect", "shop"]).json();
    let containers = shown[0]["Containers"].as_object().cloned().unwrap_or_default();
    containers.values().filter_map(|one| one["Name"].as_str().map(str::to_owned)).collect()
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}")).to_owned()
}

#[test]
fn two_strangers_and_a_service_find_and_reach_each_other_by_name() {
    let lab = Lab::cluster("attach-names", 1, 1);
    attachable(&lab);
    lab.network("closed", "10.21.0.0/24");
    lab.serve("web", &["--network", "shop", "--constraint", "node.hostname==n2"]);
    let (one, two) = (Stranger::new(lab.host(1), "one"), Stranger::new(lab.host(2), "two"));
    let shown = one.attach("shop", "left", &["--alias", "lookout", "--ip", "10.20.0.77"]).json();
    assert_eq!(text(&shown, "IPAddress"), "10.20.0.77");
    assert_eq!(text(&shown, "Gateway"), "10.20.0.1");
    assert_eq!(text(&shown, "Network"), "shop");
    assert_eq!(text(&shown, "State"), "attached");
    assert!(one.sh("ip -o addr show dev eth0").ok().contains("10.20.0.77/24"));
    let shown = two.attach("shop", "right", &["--ifname", "weft1"]).json();
    assert_eq!(text(&shown, "Interface"), "weft1");
    let mac = text(&shown, "MacAddress");
    assert!(two.sh("ip -o link show dev weft1").ok().contains(&mac));

    one.pings("right");
    two.pings("left");
    two.pings("lookout");
    two.pings("left.shop");
    for stranger in [&one, &two] {
        stranger.pings("web");
        stranger.pings("tasks.web");
    }
    let task = lab.host(2).container("web");
    for name in ["left", "right", &text(&shown, "Id")[..12]] {
        task.pings(name);
    }
    assert_eq!(task.lookup("left").expect("an address"), ["10.20.0.77"]);

    // A namespace with a way out of its own keeps it.
    let routed = Stranger::new(lab.host(1), "routed");
    routed
        .sh("ip link add own0 type bridge && ip addr add 10.77.0.2/24 dev own0 && \
               ip link set own0 up && ip route add default via 10.77.0.1")
        .ok();
    let before = routed.sh("ip route show default").ok();
    let shown = routed.attach("shop", "routed", &[]).json();
    assert_eq!(text(&shown, "Gateway"), "");
    routed.pings("right");
    assert_eq!(routed.sh("ip route show default").ok(), before);
    lab.host(1).weft(&["detach", "routed"]).ok();
    assert_eq!(routed.sh("ip route show default").ok(), before);
    assert_eq!(routed.links(), ["lo", "own0"]);

    // What is refused changes nothing.
    let other = Stranger::new(lab.host(2), "other");
    other.attach("closed", "x", &[]).refused(1, &["not attachable", "hint:", "--attachable"]);
    other.attach("shop", "LEFT", &[]).refused(1, &["attachment LEFT already exists"]);
    other.attach("shop", "web", &[]).refused(1, &["service web already exists"]);
    other.attach("nowhere", "x", &[]).refused(1, &["no such network: nowhere"]);
    other.attach("shop", "x", &["--ip", "10.20.0.77"]).refused(1, &["10.20.0.77", "is taken"]);
    other.attach("shop", "x", &["--ip", "10.99.0.7"]).refused(1, &["may not be given out"]);
    other.attach("shop", "x", &["--ip", "fd00::1"]).refused(2, &["--ip6"]);
    other.attach("shop", "x", &["--ifname", "a/b"]).refused(1, &["--ifname"]);
    other.attach("shop", "x", &["--ifname", "lo"]).refused(1, &["--ifname"]);
    other.attach("shop", "x", &["--service", "web"]).refused(1, &["worker", "on a manager"]);
    other.attach("shop", "x", &["--tap"]).refused(125, &["unsupported"]);
    two.attach("shop", "x", &["--ifname", "eth9"]).refused(1, &["attached already as right"]);
    for (path, words) in [
        ("/proc/self/ns/net", "host's own"),
        ("/proc/self/ns/mnt", "not a network namespace"),
        ("/run/netns/none", "No such file"),
        ("/etc/passwd", "not a network namespace"),
    ] {
        let argv = ["attach", "--netns", path, "--network", "shop"];
        lab.host(2).weft(&argv).refused(1, &[words]);
    }
    assert_eq!(other.links(), ["lo"], "nothing half made");
    lab.host(1).weft(&["network", "rm", "shop"]).refused(1, &["attachment left"]);

    // A name that is detached is denied, and its address is free.
    assert_eq!(lab.host(1).weft(&["detach", "left"]).ok(), "left");
    assert_eq!(one.links(), ["lo"]);
    assert_eq!(one.sh("nft list tables 2>/dev/null").ok(), "", "no table of ours stays");
    task.eventually("the name is gone", 5, |c| c.denied("left.shop"));
    other.attach("shop", "left", &["--ip", "10.20.0.77"]).ok();
    task.pings("left");
    lab.host(1).weft(&["detach", "left"]).refused(1, &["no such attachment on this node"]);
    lab.host(2).weft(&["detach", "left", "right"]).ok();
    assert_eq!(members(&lab).len(), 1, "{:?}", members(&lab));
}

#[test]
fn a_manager_s_stranger_answers_for_a_service() {
    let lab = Lab::cluster("attach-service", 1, 1);
    attachable(&lab);
    lab.serve("web", &["--network", "shop", "--constraint", "node.hostname==n2"]);
    let asker = lab.host(2).container("web");
    let helper = Stranger::new(lab.host(1), "helper");
    let peer = lab.peer();
    let pid = helper.process.id().to_string();
    let mut server = lab
        .host(1)
        .command(&["nsenter", "-t", &pid, "-n", &peer, "serve", "80"])
        .stdout(Stdio::null())
        .spawn()
        .expect("nsenter");
    let shown = helper.attach("shop", "helper", &["--service", "web"]).json();
    let address = text(&shown, "IPAddress");
    assert_eq!(text(&shown, "Service"), "web");
    let both = asker.eventually("both answer for web", 5, |c| {
        let found = c.lookup("tasks.web")?;
        if found.len() == 2 { Ok(found) } else { Err(format!("{found:?}")) }
    });
    assert!(both.contains(&address));
    let answers = asker.eventually("the VIP leads to both", 10, |c| {
        let mut said: Vec<String> = (0..16).filter_map(|_| c.tcp("web", 80).ok()).collect();
        said.sort();
        said.dedup_by(|a, b| a.split(' ').next() == b.split(' ').next());
        if said.len() == 2 { Ok(said) } else { Err(format!("{said:?}")) }
    });
    assert_eq!(answers.len(), 2);
    // The owner ends his namespace without a word.
    server.kill().expect("our child");
    server.wait().expect("our child");
    drop(helper);
    asker.eventually("it is found no more", 10, |c| {
        let found = c.lookup("tasks.web")?;
        if found.len() == 1 { Ok(()) } else { Err(format!("{found:?}")) }
    });
    eventually("nothing is left of it", PATIENCE, || {
        let left = members(&lab);
        let processes = lab.host(1).sh("pgrep -fc 'weft-shim .*attachments' || true").ok();
        let links = lab.host(1).sh("ls /sys/class/net").ok();
        if left.len() == 1 { Ok(()) } else { Err(format!("{left:?} {processes} {links}")) }
    });
}

#[test]
fn the_daemon_s_death_changes_nothing_for_a_stranger() {
    let lab = Lab::cluster("attach-restart", 1, 1);
    attachable(&lab);
    lab.serve("web", &["--network", "shop", "--constraint", "node.hostname==n1"]);
    let host = lab.host(2);
    let stranger = Stranger::new(host, "one");
    stranger.attach("shop", "probe", &[]).ok();
    stranger.pings("web");
    let inside = |what: &str| stranger.sh(what).ok();
    let looks = ["ip -o addr show", "ip route", "nft list tables"];
    let before = (host.snapshot(), looks.map(inside));
    host.kill9();
    assert_eq!(looks.map(inside), before.1, "the daemon died");
    // A question of now waits for the next daemon.
    let script = format!("nsenter -t {} -n -m busybox ping -c1 -w20 web", stranger.process.id());
    let mut asked =
        host.command(&["sh", "-c", &script]).stdout(Stdio::null()).spawn().expect("sh runs");
    host.start();
    host.eventually("it is known again", 10, |host| {
        let list = host.weft(&["info"]).text()?;
        let table = stranger.sh("ip -o addr show dev eth0").text()?;
        if table.contains("10.20.0.") { Ok(list) } else { Err(table) }
    });
    assert!(asked.wait().expect("our child").success(), "the question was answered");
    stranger.pings("web");
    lab.host(1).container("web").pings("probe");
    assert_eq!(looks.map(inside), before.1);
    assert_eq!(before.0.changes(&host.snapshot()), Vec::<String>::new());
    host.weft(&["detach", "probe"]).ok();
    assert_eq!(stranger.links(), ["lo"]);
}

#[test]
fn killed_at_any_moment_of_an_attach_it_ends_attached_or_in_nothing() {
    let lab = Lab::cluster("attach-killed", 1, 1);
    attachable(&lab);
    let host = lab.host(2);
    let stranger = Stranger::new(host, "one");
    let (mut attached, mut nothing) = (0, 0);
    for (index, moment) in MOMENTS.iter().enumerate() {
        let name = format!("probe{index}");
        let argv = host.weft_argv(
            &stranger.argv("shop", &name, &[]).iter().map(String::as_str).collect::<Vec<_>>(),
        );
        let mut caller = host
            .command(&argv.iter().map(String::as_str).collect::<Vec<_>>())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("weft can be started");
        std::thread::sleep(Duration::from_millis(*moment));
        host.kill9();
        caller.kill().expect("our child");
        caller.wait().expect("our child");
        host.start();
        let ended =
            host.eventually(&format!("killed after {moment} ms: one or the other"), 30, |_| {
                let known = members(&lab).contains(&name);
                let links = stranger.links();
                match (known, links.contains(&"eth0".to_owned())) {
                    (true, true) => {
                        stranger.sh("busybox ping -c1 -W1 10.20.0.1").text()?;
                        host.weft(&["detach", &name]).text().map(|_| true)
                    }
                    (false, false) => {
                        // The next one may have the namespace: nothing of this one is in the way.
                        Ok(false)
                    }
                    other => Err(format!("known, in the kernel: {other:?}, {links:?}")),
                }
            });
        if ended {
            attached += 1
        } else {
            nothing += 1
        }
        eventually("nothing is left", PATIENCE, || {
            let (left, links) = (members(&lab), stranger.links());
            let book = host.state_dir().join("attachments.json");
            let book = std::fs::read_to_string(book).unwrap_or_else(|_| "[]".to_owned());
            if left.is_empty() && links == ["lo"] && book.trim() == "[]" {
                Ok(())
            } else {
                Err(format!("{left:?} {links:?} {book}"))
            }
        });
    }
    assert!(attached > 0 && nothing > 0, "all at one end: {attached} and {nothing}");
    let shown = stranger.attach("shop", "probe", &[]).json();
    assert_eq!(text(&shown, "State"), "attached");
}

#[test]
fn what_goes_while_no_manager_is_there_is_gone_when_one_is_back() {
    let lab = Lab::cluster("attach-alone", 1, 1);
    attachable(&lab);
    let host = lab.host(2);
    let stranger = Stranger::new(host, "one");
    stranger.attach("shop", "probe", &[]).ok();
    lab.host(1).kill9();
    let argv = host.weft_argv(&["detach", "probe"]);
    let mut caller = host
        .command(&argv.iter().map(String::as_str).collect::<Vec<_>>())
        .stdout(Stdio::null())
        .spawn()
        .expect("weft can be started");
    eventually("it is written down", PATIENCE, || {
        let text = std::fs::read_to_string(host.state_dir().join("attachments.json"));
        let text = text.map_err(|error| error.to_string())?;
        if text.contains("Leaving") || text.trim() == "[]" { Ok(()) } else { Err(text) }
    });
    // Neither daemon remembers the call now, only the node's disk does.
    caller.kill().expect("our child");
    caller.wait().expect("our child");
    host.restart();
    lab.host(1).start();
    eventually("it is gone at both ends", PATIENCE, || {
        let (left, links) = (members(&lab), stranger.links());
        if left.is_empty() && links == ["lo"] { Ok(()) } else { Err(format!("{left:?} {links:?}")) }
    });
}

#[test]
fn a_node_that_leaves_takes_its_strangers_off() {
    let lab = Lab::cluster("attach-leave", 1, 1);
    attachable(&lab);
    let host = lab.host(2);
    let stranger = Stranger::new(host, "one");
    stranger.attach("shop", "probe", &[]).ok();
    host.weft(&["cluster", "leave"]).ok();
    assert_eq!(stranger.links(), ["lo"]);
    assert_eq!(stranger.sh("nft list tables 2>/dev/null").ok(), "", "no table of ours stays");
    for dir in [host.state_dir(), host.run_dir()] {
        let left = std::fs::read_dir(dir.join("attachments")).map(Iterator::count).unwrap_or(0);
        assert_eq!(left, 0, "nothing is left in {}", dir.display());
    }
    stranger
        .attach("shop", "probe", &[])
        .refused(1, &["not part of a cluster", "hint:", "weft cluster join"]);
    lab.host(1).weft(&["node", "rm", "--force", "n2"]).ok();
    assert_eq!(members(&lab), Vec::<String>::new());
}
