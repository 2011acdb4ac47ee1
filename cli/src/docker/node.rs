//! Nodes.

use serde_json::{Value, json};
use weft_proto::v1;

use super::{Trunc, meta, object, tunnel};
use crate::output::list::{Columns, Row};

/// `weft node ls`
pub const COLUMNS: Columns = Columns {
    shown: &[
        // The ID with a star behind the node that was asked.
        ("Shown", "ID"),
        ("Hostname", "HOSTNAME"),
        ("Status", "STATUS"),
        ("Availability", "AVAILABILITY"),
        ("ManagerStatus", "MANAGER STATUS"),
        ("EngineVersion", "ENGINE VERSION"),
    ],
    more: &[("ID", "ID"), ("Self", "SELF"), ("TLSStatus", "TLS STATUS")],
    id: "ID",
};

/// The state in Docker's words.
pub fn state(state: v1::NodeState) -> &'static str {
    match state {
        v1::NodeState::Unspecified | v1::NodeState::Unknown => "unknown",
        v1::NodeState::Ready => "ready",
        // Docker's word for a node that missed its heartbeats and is not given up yet.
        v1::NodeState::Silent => "disconnected",
        v1::NodeState::Down => "down",
    }
}

/// The availability in Docker's words.
pub fn availability(availability: v1::Availability) -> &'static str {
    match availability {
        v1::Availability::Unspecified | v1::Availability::Active => "active",
        v1::Availability::Pause => "pause",
        v1::Availability::Drain => "drain",
    }
}

/// The role in Docker's words.
pub fn role(role: v1::Role) -> &'static str {
    match role {
        v1::Role::Unspecified | v1::Role::Worker => "worker",
        v1::Role::Manager => "manager",
    }
}

fn reachability(reachability: v1::Reachability) -> &'static str {
    match reachability {
        v1::Reachability::Unspecified => "unknown",
        v1::Reachability::Reachable => "reachable",
        v1::Reachability::Unreachable => "unreachable",
    }
}

fn manager_status(manager: Option<&v1::ManagerStatus>) -> String {
    match manager {
        None => String::new(),
        Some(manager) if manager.leader => "Leader".to_owned(),
        Some(manager) => capital(reachability(manager.reachability())),
    }
}

/// The word with a capital letter.
pub fn capital(word: &str) -> String {
    let mut chars = word.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// One row of the list. `own` is the ID of the node that was asked.
pub fn row(node: &v1::Node, own: &str, trunc: Trunc) -> Row {
    let spec = node.spec.clone().unwrap_or_default();
    let id = trunc.id(&node.id);
    let shown = if node.id == own { format!("{id} *") } else { format!("{id}  ") };
    let mut row = Row::new([
        ("Availability", capital(availability(spec.availability()))),
        ("EngineVersion", node.engine_version.clone()),
        ("Hostname", node.hostname.clone()),
        ("ID", id),
        ("ManagerStatus", manager_status(node.manager.as_ref())),
        ("Status", capital(state(node.state()))),
        ("TLSStatus", "Ready".to_owned()),
    ]);
    row.fields.insert("Self".into(), (node.id == own).into());
    row.table.insert("Shown".into(), shown);
    row.labels = spec.labels.clone();
    row
}

/// Everything about a node. `links` are those that the node itself has told, if it was asked.
pub fn inspect(node: &v1::Node, links: Option<&v1::NodeLinksResponse>) -> Value {
    let spec = node.spec.clone().unwrap_or_default();
    let (version, created, updated) = meta(node.meta.as_ref());
    let mut value = json!({
        "ID": node.id,
        "Version": version,
        "CreatedAt": created,
        "UpdatedAt": updated,
        "Spec": {
            "Labels": object(&spec.labels),
            "Role": role(spec.role()),
            "Availability": availability(spec.availability()),
        },
        "Description": {
            "Hostname": node.hostname,
            "Platform": {"Architecture": node.architecture, "OS": node.os},
            "Resources": {"NanoCPUs": node.nano_cpus, "MemoryBytes": node.memory_bytes},
            "Engine": {"EngineVersion": node.engine_version},
        },
        "Status": {
            "State": state(node.state()),
            "Message": node.message,
            "Addr": host(&node.addr),
            "DataPathAddr": node.data_path_addr,
        },
    });
    if let Some(manager) = &node.manager {
        value["ManagerStatus"] = json!({
            "Leader": manager.leader,
            "Reachability": reachability(manager.reachability()),
            "Addr": manager.addr,
            "Voter": manager.voter,
            "RaftIncarnation": manager.raft_incarnation,
        });
    }
    if let Some(own) = &node.tunnel {
        value["Tunnel"] = tunnel::inspect(own, links);
    }
    value
}

/// The host of `host:port`, or the text if it has no port.
fn host(addr: &str) -> &str {
    if addr.parse::<std::net::IpAddr>().is_ok() {
        return addr;
    }
    addr.rsplit_once(':').map_or(addr, |(host, _)| host)
}

/// The node for people.
pub fn pretty(
    node: &v1::Node,
    links: Option<&v1::NodeLinksResponse>,
    now: jiff::Timestamp,
) -> String {
    let spec = node.spec.clone().unwrap_or_default();
    let (_, created, _) = meta(node.meta.as_ref());
    let mut lines = vec![format!("ID:\t\t\t{}", node.id)];
    if !spec.labels.is_empty() {
        lines.push("Labels:".to_owned());
        lines.extend(spec.labels.iter().map(|(key, value)| format!(" - {key}={value}")));
    }
    lines.push(format!("Hostname:\t\t{}", node.hostname));
    lines.push(format!("Joined at:\t\t{created}"));
    lines.push("Status:".to_owned());
    lines.push(format!(" State:\t\t\t{}", capital(state(node.state()))));
    if !node.message.is_empty() {
        lines.push(format!(" Message:\t\t{}", node.message));
    }
    lines.push(format!(" Availability:\t\t{}", capital(availability(spec.availability()))));
    lines.push(format!(" Address:\t\t{}", host(&node.addr)));
    if let Some(manager) = &node.manager {
        lines.push("Manager Status:".to_owned());
        lines.push(format!(" Address:\t\t{}", manager.addr));
        lines.push(format!(" Raft Status:\t\t{}", capital(reachability(manager.reachability()))));
        lines.push(format!(" Leader:\t\t{}", if manager.leader { "Yes" } else { "No" }));
    }
    lines.push("Platform:".to_owned());
    lines.push(format!(" Operating System:\t{}", node.os));
    lines.push(format!(" Architecture:\t\t{}", node.architecture));
    lines.push("Resources:".to_owned());
    lines.push(format!(" CPUs:\t\t\t{}", node.nano_cpus / 1_000_000_000));
    lines.push(format!(" Memory:\t\t{}MiB", node.memory_bytes >> 20));
    lines.push(format!("Engine Version:\t\t{}", node.engine_version));
    if let Some(own) = &node.tunnel {
        lines.extend(tunnel::pretty(own, links, now));
    }
    lines.join("\n") + "\n"
}
