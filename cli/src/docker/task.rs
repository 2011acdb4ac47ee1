//! Tasks.

use jiff::Timestamp;
use serde_json::{Value, json};
use weft_proto::v1;

use super::{Trunc, meta, node::capital, object, service};
use crate::output::{
    list::{Columns, Row},
    time::{ago, rfc3339},
};

/// `weft service ps` and `weft node ps`
pub const COLUMNS: Columns = Columns {
    shown: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Image", "IMAGE"),
        ("Node", "NODE"),
        ("DesiredState", "DESIRED STATE"),
        ("CurrentState", "CURRENT STATE"),
        ("Error", "ERROR"),
        ("Ports", "PORTS"),
    ],
    more: &[],
    id: "ID",
};

/// The state in Docker's words.
pub fn state(state: v1::TaskState) -> &'static str {
    match state {
        v1::TaskState::Unspecified | v1::TaskState::New => "new",
        v1::TaskState::Pending => "pending",
        v1::TaskState::Assigned => "assigned",
        v1::TaskState::Accepted => "accepted",
        v1::TaskState::Preparing => "preparing",
        v1::TaskState::Starting => "starting",
        v1::TaskState::Running => "running",
        v1::TaskState::Complete => "complete",
        v1::TaskState::Shutdown => "shutdown",
        v1::TaskState::Failed => "failed",
        v1::TaskState::Rejected => "rejected",
        v1::TaskState::Orphaned => "orphaned",
    }
}

/// The desired state in Docker's words.
pub fn desired(desired: v1::DesiredState) -> &'static str {
    match desired {
        v1::DesiredState::Unspecified | v1::DesiredState::Running => "running",
        v1::DesiredState::Shutdown => "shutdown",
        v1::DesiredState::Remove => "remove",
    }
}

/// The state that the task is in.
pub fn state_of(task: &v1::Task) -> v1::TaskState {
    task.status.as_ref().map_or(v1::TaskState::Unspecified, v1::TaskStatus::state)
}

/// Why the task is not as wished: its own error, or what it waits for. Empty if all is well.
pub fn reason(task: &v1::Task) -> String {
    let error = task.status.as_ref().map_or("", |status| &status.error);
    match (&task.stuck, error) {
        (_, error) if !error.is_empty() => error.to_owned(),
        (Some(stuck), _) => stuck.reason.clone(),
        (None, _) => String::new(),
    }
}

/// Orders tasks for a list: by service, slot (or node), then newest first.
pub fn sort(tasks: &mut [v1::Task]) {
    tasks.sort_by(|a, b| group(a).cmp(&group(b)).then_with(|| created(b).cmp(&created(a))));
}

/// What tasks that replace each other have in common.
fn group(task: &v1::Task) -> (&str, u32, &str) {
    let node = if task.slot == 0 { task.node_id.as_str() } else { "" };
    (&task.service_name, task.slot, node)
}

fn created(task: &v1::Task) -> (i64, i32, &str) {
    let time = task.meta.as_ref().and_then(|meta| meta.created_at.as_ref());
    time.map_or((0, 0, task.id.as_str()), |time| (time.seconds, time.nanos, task.id.as_str()))
}

/// Rows of sorted tasks; an older task of the same slot stands under the newer one with ` \_ `.
pub fn rows(tasks: &[v1::Task], now: Timestamp, trunc: Trunc, resolve: Resolve) -> Vec<Row> {
    let mut rows = Vec::with_capacity(tasks.len());
    for (at, task) in tasks.iter().enumerate() {
        let older = at > 0 && group(&tasks[at - 1]) == group(task);
        let mut row = row(task, now, trunc, resolve);
        if older {
            row.table.insert("Name".into(), format!(" \\_ {}", name(task, resolve)));
        }
        rows.push(row);
    }
    rows
}

/// Whether lists show names or IDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolve {
    Names,
    Ids,
}

impl Resolve {
    /// From the flag `--no-resolve`.
    pub fn unless(no_resolve: bool) -> Self {
        if no_resolve { Self::Ids } else { Self::Names }
    }
}

fn name(task: &v1::Task, resolve: Resolve) -> String {
    match resolve {
        Resolve::Names => task.name.clone(),
        Resolve::Ids => format!("{}.{}", task.service_id, task.slot),
    }
}

fn row(task: &v1::Task, now: Timestamp, trunc: Trunc, resolve: Resolve) -> Row {
    let since = task.status.as_ref().and_then(|status| status.since.as_ref());
    let current = format!("{} {}", capital(state(state_of(task))), lower_first(&ago(since, now)));
    let error = reason(task);
    let node = match resolve {
        Resolve::Names if !task.node_hostname.is_empty() => task.node_hostname.clone(),
        Resolve::Names | Resolve::Ids => trunc.id(&task.node_id),
    };
    Row::new([
        ("CurrentState", current.trim_end().to_owned()),
        ("DesiredState", capital(desired(task.desired_state()))),
        ("Error", if error.is_empty() { error } else { format!("\"{error}\"") }),
        ("ID", trunc.id(&task.id)),
        ("Image", task.container.as_ref().map_or_else(String::new, |c| c.image.clone())),
        ("Name", name(task, resolve)),
        ("Node", node),
        ("Ports", String::new()),
    ])
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// Everything about a task.
pub fn inspect(task: &v1::Task) -> Value {
    let (version, created, updated) = meta(task.meta.as_ref());
    let status = task.status.clone().unwrap_or_default();
    let container = task.container.clone().unwrap_or_default();
    let labels = object(&container.labels);
    let mut value = json!({
        "ID": task.id,
        "Version": version,
        "CreatedAt": created,
        "UpdatedAt": updated,
        "Name": task.name,
        "Labels": labels,
        "Spec": {"ContainerSpec": service::container_spec(&container)},
        "ServiceID": task.service_id,
        "ServiceName": task.service_name,
        "Slot": task.slot,
        "NodeID": task.node_id,
        "NodeHostname": task.node_hostname,
        "Status": {
            "Timestamp": rfc3339(status.since.as_ref()),
            "State": state(status.state()),
            "Message": status.message,
            "Err": reason(task),
            "ContainerStatus": {
                "ContainerID": task.id,
                "PID": status.pid,
                "ExitCode": status.exit_code.unwrap_or(0),
            },
        },
        "DesiredState": desired(task.desired_state()),
        "NetworksAttachments": task.attachments.iter().map(attachment).collect::<Vec<_>>(),
    });
    if let Some(stuck) = &task.stuck {
        value["Stuck"] = json!({
            "Reason": stuck.reason,
            "Hint": stuck.hint,
            "Since": rfc3339(stuck.since.as_ref()),
            "NextRetry": rfc3339(stuck.next_retry.as_ref()),
        });
    }
    value
}

fn attachment(attachment: &v1::TaskAttachment) -> Value {
    json!({
        "ID": attachment.id,
        "Network": {"ID": attachment.network_id, "Spec": {"Name": attachment.network_name}},
        "Addresses": attachment.addresses,
        "MacAddress": attachment.mac_address,
        "Aliases": attachment.aliases,
    })
}
