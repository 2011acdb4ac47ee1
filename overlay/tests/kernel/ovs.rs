//! Networks on Open vSwitch, with a daemon of the test's own that switches frames itself: the kernel module
//! is not needed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use weft_overlay::*;

use super::lab::*;

const NET: &[(&str, &str)] = &[("10.4.0.0/24", "10.4.0.1"), ("fd04::/64", "fd04::1")];
/// The bridge of `local(4)`.
const OURS: &str = "br-000000000004";

/// Runs a test in a process of its own, which finds Open vSwitch where the environment says.
fn apart(name: &str, test: impl FnOnce(Lab, Daemons)) {
    if std::env::var_os("OVS_RUNDIR").is_some() {
        let lab = Lab::new(1, false);
        let daemons = Daemons::start(&lab.nodes[0].space);
        return test(lab, daemons);
    }
    let found = Command::new("ovs-vsctl").arg("--version").stdout(Stdio::null()).status();
    assert!(found.is_ok(), "there is no ovs-vsctl: apt-get install openvswitch-switch");
    // Tests of one process have one each; its sockets' paths have at most 108 bytes.
    let short = &name[..8];
    let rundir = std::env::temp_dir().join(format!("weft-ovs-{}-{short}", std::process::id()));
    std::fs::create_dir_all(&rundir).unwrap();
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", &format!("ovs::{name}"), "--nocapture"]).env("OVS_RUNDIR", &rundir);
    let status = test.status();
    std::fs::remove_dir_all(&rundir).unwrap();
    assert!(status.unwrap().success());
}

struct Daemons {
    database: Child,
    switch: Child,
}

impl Daemons {
    fn start(space: &Space) -> Self {
        let rundir = PathBuf::from(std::env::var_os("OVS_RUNDIR").unwrap());
        let at = |name: &str| rundir.join(name).display().to_string();
        let (database, socket) = (at("conf.db"), at("db.sock"));
        space.sh(&format!("ovsdb-tool create {database} /usr/share/openvswitch/vswitch.ovsschema"));
        let log = format!("--log-file={}", at("log"));
        let remote = format!("--remote=punix:{socket}");
        let database = spawn(space, "ovsdb-server", [database, remote, log.clone()]);
        wait(|| std::path::Path::new(&socket).exists());
        space.sh("ovs-vsctl --timeout=10 --no-wait init");
        let pid = format!("--pidfile={}", at("ovs-vswitchd.pid"));
        let switch = spawn(space, "ovs-vswitchd", [format!("unix:{socket}"), pid, log]);
        wait(|| rundir.join("ovs-vswitchd.pid").exists());
        Self { database, switch }
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        for child in [&mut self.switch, &mut self.database] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn spawn(space: &Space, program: &'static str, arguments: [String; 3]) -> Child {
    space.run(move || {
        let mut command = Command::new(program);
        command.args(arguments).arg("--no-chdir").stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    })
}

fn wait(condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not within 10 s");
}

fn changed() -> Scope {
    Scope::Changed(BTreeSet::new())
}

#[test]
fn a_bridge_of_ours_is_kept_as_it_is_wanted_and_goes_with_its_network() {
    apart("a_bridge_of_ours_is_kept_as_it_is_wanted_and_goes_with_its_network", |mut lab, _ovs| {
        // Made for the daemon's own datapath, as a former process of ours would have with the module.
        lab.nodes[0].space.sh(&format!(
            "ovs-vsctl --timeout=10 add-br {OURS} -- set bridge {OURS} datapath_type=netdev \
             external_ids:weft=local4 'other_config:hwaddr=\"02:42:0a:04:00:01\"'"
        ));
        let ours = Ovs { bridge: OURS.into(), owned: true };
        let net = lab.local(4, NET, Kind::Ovs(ours));
        let a = lab.join("a", &[(net, "eth0", &["10.4.0.2/24", "fd04::2/64"], 0)]);
        let _b = lab.join("b", &[(net, "eth0", &["10.4.0.3/24", "fd04::3/64"], 0)]);
        lab.settle();
        for target in ["10.4.0.3", "fd04::3", "10.4.0.1", "fd04::1"] {
            assert!(a.reaches(target), "{target}");
        }
        let host = &lab.nodes[0].space;
        let _outside = plug(&lab.switch, 9);
        assert!(a.reaches("192.0.2.9"), "out, masqueraded");
        // A hand takes a port away; a look that is not thorough finds out.
        let port = host.sh(&format!("ovs-vsctl list-ports {OURS} | head -1")).trim().to_owned();
        host.sh(&format!("ovs-vsctl --timeout=10 del-port {port}"));
        assert!(!a.pings("10.4.0.3"), "the test can fail");
        let report = lab.nodes[0].look(Completeness::Complete, changed());
        assert!(report.is_settled() && !report.executed.is_empty(), "{:?}", report.failed);
        assert!(a.reaches("10.4.0.3"));
        // A new process adopts.
        let node = &mut lab.nodes[0];
        let run = node.run.path().to_owned();
        node.reconciler = node.space.run(move || Reconciler::new(&run).unwrap());
        assert_eq!(node.settle().executed, []);
        // The pair is made anew, and the port with it.
        a.sh("ip link del eth0");
        node.settle();
        assert!(a.reaches("10.4.0.3"));
        node.desired.sandboxes.remove("b");
        node.settle();
        assert_eq!(node.space.sh(&format!("ovs-vsctl list-ports {OURS}")).lines().count(), 1);
        node.desired.sandboxes.clear();
        node.desired.networks.clear();
        node.settle();
        assert_eq!(node.space.sh("ovs-vsctl list-br"), "");
        assert!(node.space.try_sh(&format!("ip link show {OURS}")).is_err());
    });
}

#[test]
fn an_administrators_bridge_gets_ports_and_nothing_else() {
    apart("an_administrators_bridge_gets_ports_and_nothing_else", |mut lab, mut ovs| {
        let theirs = Ovs { bridge: "ovs0".into(), owned: false };
        let net = lab.local(4, NET, Kind::Ovs(theirs));
        let a = lab.join("a", &[(net, "eth0", &["10.4.0.2/24"], 0)]);
        let _b = lab.join("b", &[(net, "eth0", &["10.4.0.3/24"], 0)]);
        let missing = lab.nodes[0].look(Completeness::Complete, Scope::Full).troubled();
        assert!(missing["a"].contains("ovs0"), "{}", missing["a"]);
        lab.nodes[0]
            .space
            .sh("ovs-vsctl --timeout=10 add-br ovs0 -- set bridge ovs0 datapath_type=netdev; \
             ip link set ovs0 up; ip addr add 10.4.0.9/24 dev ovs0");
        lab.settle();
        assert!(a.reaches("10.4.0.3") && a.reaches("10.4.0.9") && !a.pings("10.4.0.1"));
        let node = &mut lab.nodes[0];
        node.desired.sandboxes.clear();
        node.desired.networks.clear();
        node.settle();
        assert_eq!(node.space.sh("ovs-vsctl list-ports ovs0"), "");
        assert!(node.space.sh("ip addr show ovs0").contains("10.4.0.9/24"));
        // And when the daemon is away.
        let theirs = Ovs { bridge: "ovs0".into(), owned: false };
        let net = lab.local(4, NET, Kind::Ovs(theirs));
        let _c = lab.join("c", &[(net, "eth0", &["10.4.0.4/24"], 0)]);
        let _ = ovs.switch.kill();
        let _ = ovs.switch.wait();
        let troubled = lab.nodes[0].look(Completeness::Complete, Scope::Full).troubled();
        let why = "Open vSwitch is not running: apt-get install openvswitch-switch";
        assert_eq!(troubled["c"], why);
    });
}
