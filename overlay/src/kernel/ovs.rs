//! Open vSwitch: its bridges and their ports, by `ovs-vsctl`, which knows where the database is (OVS_RUNDIR).
//!
//! Looking takes a process, so what was seen is kept until something of it may have changed: a link came, went
//! or was let go, we changed something ourselves, or the look is a thorough one.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{HostLook, KernelError};
use crate::op::{Op, Verb};
use crate::plane::Object;

/// What an administrator is told.
const NOT_RUNNING: &str = "Open vSwitch is not running: apt-get install openvswitch-switch";
/// Seconds that the database and the daemon get; both answer within milliseconds.
const PATIENCE: &str = "--timeout=5";
/// Where Open vSwitch keeps its sockets and process numbers unless OVS_RUNDIR says otherwise.
const RUNDIR: &str = "/var/run/openvswitch";
/// Marks a bridge as ours; the value is the network's id.
const BRIDGE_MARK: &str = "weft";
/// Marks a port as ours; the value is the sandbox's key.
const PORT_MARK: &str = "weft-sandbox";

/// Names and indexes of links, and whether Open vSwitch holds them.
type Links = BTreeSet<(String, u32, bool)>;

/// What is known of the bridges.
#[derive(Debug, Default)]
pub(crate) struct Switches {
    /// What was seen last; `None` before the first look and after one that failed.
    seen: Option<Vec<Object>>,
    /// Whether we have changed something since.
    stale: bool,
    links: Links,
    wanted: BTreeSet<String>,
}

impl Switches {
    /// The bridges that are ours or wanted, and our ports. Empty where nobody uses Open vSwitch.
    ///
    /// # Errors
    /// When bridges are wanted and Open vSwitch does not answer.
    pub(crate) fn look(
        &mut self,
        look: &HostLook,
        links: Links,
    ) -> Result<Vec<Object>, KernelError> {
        let ours = self.seen.as_ref().is_some_and(|seen| !seen.is_empty());
        // What a former process has left is found by one look, where there is anything to ask.
        let first = self.seen.is_none() && look.thorough && rundir().join("db.sock").exists();
        let changed = self.stale
            || self.seen.is_none()
            || self.links != links
            || self.wanted != look.switches;
        let concerned = !look.switches.is_empty() || ours;
        if (concerned && (look.thorough || changed)) || first {
            let seen = observe(&look.switches, &links);
            self.wanted.clone_from(&look.switches);
            self.links = links;
            self.stale = false;
            self.seen = seen.as_ref().ok().cloned();
            return match seen {
                Err(_) if look.switches.is_empty() => Ok(Vec::new()),
                seen => seen,
            };
        }
        Ok(self.seen.clone().unwrap_or_default())
    }

    /// Carries out operations in order; the next look asks again.
    pub(crate) fn execute(&mut self, ops: &[Op]) -> Vec<Result<(), KernelError>> {
        self.stale = true;
        let mut results = Vec::new();
        // A port that goes and comes in one transaction would never have been away.
        for alike in ops.chunk_by(|a, b| (a.verb == Verb::Remove) == (b.verb == Verb::Remove)) {
            results.extend(execute(alike));
        }
        results
    }
}

/// One process for all; where that fails each for itself, to know which.
fn execute(ops: &[Op]) -> Vec<Result<(), KernelError>> {
    let all: Vec<Vec<String>> = ops.iter().map(command).collect();
    let mut failure = match run(&all) {
        Ok(_) => return vec![Ok(()); ops.len()],
        Err(error) => Some(error),
    };
    // Alone it has had its try; and who is not there does not answer the next one either.
    failure = failure.filter(|error| ops.len() == 1 || *error == not_running());
    let one = |command: Vec<String>| match &failure {
        Some(error) => Err(error.clone()),
        None => run(&[command]).map(drop),
    };
    all.into_iter().map(one).collect()
}

fn not_running() -> KernelError {
    KernelError::Switch { message: NOT_RUNNING.to_owned() }
}

fn rundir() -> PathBuf {
    std::env::var_os("OVS_RUNDIR").map_or_else(|| PathBuf::from(RUNDIR), PathBuf::from)
}

/// The words of an operation.
fn command(op: &Op) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match (&op.object, &op.verb) {
        (Object::Switch { name, .. }, Verb::Remove) => words(&["--if-exists", "del-br", name]),
        (Object::Switch { name, network: None, .. }, _) => words(&["get", "Bridge", name, "name"]),
        (Object::Switch { name, network: Some(network), mac }, _) => {
            let mark = format!("external_ids:{BRIDGE_MARK}={}", quoted(network));
            let mut add: Vec<String> = words(&["add-br", name, "--", "set", "Bridge", name, &mark]);
            let mac = mac.map(|mac| format!("other_config:hwaddr={}", quoted(&mac.to_string())));
            add.extend(mac);
            add
        }
        (Object::SwitchPort { name, .. }, Verb::Remove) => {
            words(&["--if-exists", "del-port", name])
        }
        (Object::SwitchPort { name, bridge, sandbox, .. }, _) => {
            let mark = format!("external_ids:{PORT_MARK}={}", quoted(sandbox));
            words(&["add-port", bridge, name, "--", "set", "Port", name, &mark])
        }
        // Nothing else is brought here.
        _ => Vec::new(),
    }
}

/// A string as ovs-vsctl reads one.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Runs commands in one transaction, and waits until the daemon has made it so.
fn run(commands: &[Vec<String>]) -> Result<String, KernelError> {
    let mut ovs = Command::new("ovs-vsctl");
    ovs.args([PATIENCE, "--format=json"]);
    for command in commands {
        ovs.arg("--").args(command);
    }
    let output = ovs.stdin(Stdio::null()).output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => not_running(),
        _ => KernelError::io("ovs-vsctl", &error),
    })?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    // Status 0 means that the database has it; what the daemon could not do is only told.
    let told = errors.contains("Error detected while setting up");
    if output.status.success() && !told {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    // A signal: the time was over.
    if output.status.code().is_none() || errors.contains("database connection failed") {
        return Err(not_running());
    }
    let line = errors.lines().next().unwrap_or_default();
    let line = line.strip_prefix("ovs-vsctl: ").unwrap_or(line);
    Err(KernelError::Switch { message: format!("Open vSwitch: {line}") })
}

/// Asks for all bridges, ports and interfaces.
fn observe(wanted: &BTreeSet<String>, links: &Links) -> Result<Vec<Object>, KernelError> {
    check_daemon()?;
    let list = |columns: &str, table: &str| {
        [format!("--columns={columns}"), "list".to_owned(), table.to_owned()].to_vec()
    };
    let text = run(&[
        list("name,external_ids,ports", "Bridge"),
        list("_uuid,name,external_ids", "Port"),
        list("name,error", "Interface"),
    ])?;
    let garbled =
        || KernelError::Switch { message: "Open vSwitch: ovs-vsctl answers no tables".to_owned() };
    read(&text, wanted, links).ok_or_else(garbled)
}

/// The daemon runs, and in our namespace: its links are those we see.
fn check_daemon() -> Result<(), KernelError> {
    let Ok(text) = std::fs::read_to_string(rundir().join("ovs-vswitchd.pid")) else {
        // It may have been started without; if it is not there, the first change waits in vain.
        return Ok(());
    };
    let namespace = |process: &str| {
        let file = std::fs::metadata(format!("/proc/{process}/ns/net"));
        file.map(|file| (file.dev(), file.ino())).ok()
    };
    match namespace(text.trim()) {
        None => Err(not_running()),
        theirs if theirs == namespace("thread-self") => Ok(()),
        Some(_) => Err(KernelError::Switch {
            message: "Open vSwitch runs in another network namespace".to_owned(),
        }),
    }
}

/// Reads the three tables (RFC 7047, section 5.1 for the values).
pub(crate) fn read(text: &str, wanted: &BTreeSet<String>, links: &Links) -> Option<Vec<Object>> {
    let tables: Vec<Value> =
        text.lines().map(serde_json::from_str).collect::<Result<_, _>>().ok()?;
    let [bridges, ports, interfaces] = tables.as_slice() else { return None };
    let there = |name: &str| links.iter().any(|(link, _, _)| link == name);
    let mut faulty = BTreeSet::new();
    for row in rows(interfaces)? {
        let error = row.get(1)?.as_str().is_some_and(|error| !error.is_empty());
        faulty.extend(error.then(|| row.first().and_then(Value::as_str)).flatten());
    }
    let mut objects = Vec::new();
    let mut holders = BTreeMap::new();
    for row in rows(bridges)? {
        let [name, marks, held] = row.as_slice() else { return None };
        let (name, network) = (name.as_str()?, mark(marks, BRIDGE_MARK));
        holders.extend(ids(held).into_iter().map(|id| (id, name)));
        if network.is_some() || wanted.contains(name) {
            objects.push(Object::Switch { name: name.to_owned(), network, mac: None });
        }
    }
    for row in rows(ports)? {
        let [id, name, marks] = row.as_slice() else { return None };
        let (Some(sandbox), name) = (mark(marks, PORT_MARK), name.as_str()?) else { continue };
        let bridge = ids(id).first().and_then(|id| holders.get(id)).copied().unwrap_or_default();
        let works = there(name) && !faulty.contains(name);
        let (name, bridge) = (name.to_owned(), bridge.to_owned());
        objects.push(Object::SwitchPort { name, bridge, sandbox, works });
    }
    Some(objects)
}

fn rows(table: &Value) -> Option<Vec<&Vec<Value>>> {
    table.get("data")?.as_array()?.iter().map(Value::as_array).collect()
}

/// The value of a key in `["map", [[key, value], ...]]`.
fn mark(map: &Value, key: &str) -> Option<String> {
    let pairs = map.get(1)?.as_array()?.iter();
    let mut pairs = pairs.filter(|pair| pair.get(0).and_then(Value::as_str) == Some(key));
    pairs.next()?.get(1)?.as_str().map(str::to_owned)
}

/// The identifiers in `["uuid", id]`, or in `["set", [...]]` of such.
fn ids(value: &Value) -> Vec<&str> {
    let one = |value: &'_ Value| value.get(0).and_then(Value::as_str) == Some("uuid");
    let all = match one(value) {
        true => vec![value],
        false => value
            .get(1)
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default()
            .iter()
            .collect(),
    };
    all.into_iter().filter_map(|value| value.get(1)?.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As ovs-vsctl 3.1 answers, one table a line.
    const ANSWER: &str = concat!(
        r#"{"data":[["ours",["map",[["weft","n1"]]],["set",[["uuid","1"],["uuid","2"]]]],"#,
        r#"["theirs",["map",[]],["uuid","3"]],["other",["map",[]],["set",[]]]],"headings":[]}"#,
        "\n",
        r#"{"data":[[["uuid","1"],"wv1",["map",[["weft-sandbox","a"]]]],"#,
        r#"[["uuid","2"],"ours",["map",[]]],"#,
        r#"[["uuid","3"],"wv3",["map",[["x","y"],["weft-sandbox","c"]]]]],"headings":[]}"#,
        "\n",
        r#"{"data":[["wv1",["set",[]]],["ours",["set",[]]],["wv3","no such device"]],"headings":[]}"#,
        "\n",
    );

    fn port(name: &str, bridge: &str, sandbox: &str, works: bool) -> Object {
        let [name, bridge, sandbox] = [name, bridge, sandbox].map(str::to_owned);
        Object::SwitchPort { name, bridge, sandbox, works }
    }

    #[test]
    fn what_is_ours_or_wanted_is_read() {
        let wanted = BTreeSet::from(["theirs".to_owned()]);
        let links: Links = ["wv1", "wv3"].map(|name| (name.to_owned(), 1, true)).into();
        let switch = |name: &str, network: Option<&str>| Object::Switch {
            name: name.to_owned(),
            network: network.map(str::to_owned),
            mac: None,
        };
        let expected = [
            switch("ours", Some("n1")),
            switch("theirs", None),
            port("wv1", "ours", "a", true),
            port("wv3", "theirs", "c", false),
        ];
        assert_eq!(read(ANSWER, &wanted, &links).unwrap(), expected);
        let without = read(ANSWER, &wanted, &Links::new()).unwrap();
        assert_eq!(without[2], port("wv1", "ours", "a", false), "its link is gone");
        assert_eq!(read("{}\n{}\n{}\n", &wanted, &links), None);
    }

    #[test]
    fn text_of_others_is_one_word() {
        let mark = port("wv1", "br", "a\" b", true);
        let words = command(&Op::add(crate::plane::Place::Host, mark));
        assert_eq!(words.last().unwrap(), r#"external_ids:weft-sandbox="a\" b""#);
    }
}
