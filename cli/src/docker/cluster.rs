//! The cluster, and what a node knows of itself.

use jiff::Timestamp;
use serde_json::{Value, json};
use weft_proto::v1;

use super::meta;
use crate::{
    output::{
        escape::one_line,
        list::{Columns, Row},
        time::{ago, go_duration, rfc3339},
    },
    wire::{WireDuration, nanos},
};

/// `weft cluster client-cert --ls`
pub const CLIENT_COLUMNS: Columns = Columns {
    shown: &[
        ("Name", "NAME"),
        ("Serial", "SERIAL"),
        ("CreatedSince", "CREATED"),
        ("Expires", "EXPIRES"),
        ("Status", "STATUS"),
    ],
    more: &[("CreatedAt", "CREATED AT"), ("RevokedAt", "REVOKED AT")],
    id: "Serial",
};

/// One certificate of a client.
pub fn client_row(certificate: &v1::ClientCertificateInfo, now: Timestamp) -> Row {
    let revoked = certificate.revoked_at.as_ref();
    Row::new([
        ("CreatedAt", rfc3339(certificate.issued_at.as_ref())),
        ("CreatedSince", ago(certificate.issued_at.as_ref(), now)),
        ("Expires", rfc3339(certificate.expires_at.as_ref())),
        ("Name", certificate.name.clone()),
        ("RevokedAt", revoked.map(|at| rfc3339(Some(at))).unwrap_or_default()),
        ("Serial", certificate.serial.clone()),
        ("Status", if revoked.is_some() { "Revoked" } else { "Valid" }.to_owned()),
    ])
}

/// Everything about the cluster.
pub fn inspect(cluster: &v1::Cluster) -> Value {
    let (version, created, updated) = meta(cluster.meta.as_ref());
    let spec = cluster.spec.clone().unwrap_or_default();
    json!({
        "ID": cluster.id,
        "Version": version,
        "CreatedAt": created,
        "UpdatedAt": updated,
        "Spec": {
            "Name": "default",
            "Labels": {},
            "Orchestration": {"TaskHistoryRetentionLimit": spec.task_history_limit},
            "CAConfig": {"NodeCertExpiry": span(spec.node_certificate_expiry.as_ref())},
            "EncryptOverlays": spec.encrypt_overlays,
            "KeyRotation": span(spec.key_rotation.as_ref()),
            "WireguardPort": spec.wireguard_port,
        },
        "TLSInfo": {"TrustRoot": cluster.root_certificate},
        "DataPathPort": spec.data_path_port,
        "DefaultAddrPool": spec.default_address_pools,
        "SubnetSize": spec.subnet_size,
    })
}

/// A span in nanoseconds, as Docker has them.
fn span(span: Option<&WireDuration>) -> i64 {
    i64::try_from(nanos(span)).unwrap_or(i64::MAX)
}

/// `weft info --format`: Docker's names where Docker has the field.
pub fn info(info: &v1::InfoResponse) -> Value {
    let cluster = info.cluster.clone().unwrap_or_default();
    let state = if info.cluster_active { "active" } else { "inactive" };
    let managers: Vec<Value> = info.managers.iter().map(|addr| json!({"Addr": addr})).collect();
    let mut value = json!({
        "ServerVersion": info.version,
        "Name": info.hostname,
        "KernelVersion": info.kernel_version,
        "CgroupVersion": info.cgroup_version,
        "NCPU": info.cpus,
        "MemTotal": info.memory_bytes,
        "Containers": info.containers,
        "ContainersRunning": info.containers_running,
        "ContainersStopped": info.containers.saturating_sub(info.containers_running),
        "WireGuard": info.wireguard,
        "WeftRootDir": info.state_dir,
        "WeftRunDir": info.run_dir,
        "Warnings": info.warnings,
    });
    let status = json!({
        "NodeID": info.node_id,
        "NodeAddr": info.node_addr,
        "DataPathAddr": info.data_path_addr,
        "LocalNodeState": state,
        "ControlAvailable": info.is_manager,
        "Error": info.session_error,
        "RemoteManagers": managers,
        "Managers": info.manager_count,
        "Nodes": info.node_count,
        "Cluster": {
            "ID": info.cluster_id,
            "DefaultAddrPool": cluster.default_address_pools,
            "SubnetSize": cluster.subnet_size,
            "DataPathPort": cluster.data_path_port,
            "TaskHistoryRetentionLimit": cluster.task_history_limit,
            "EncryptOverlays": cluster.encrypt_overlays,
            "KeyRotation": span(cluster.key_rotation.as_ref()),
            "WireguardPort": cluster.wireguard_port,
        },
        "CertificateExpiresAt": rfc3339(info.certificate_expires_at.as_ref()),
    });
    // Docker's scripts ask for `.Swarm`; our own word is Cluster.
    value["Swarm"] = status.clone();
    value["Cluster"] = status;
    if let Some(raft) = &info.raft {
        value["Raft"] = json!({
            "Term": raft.term, "LastLog": raft.last_log, "Committed": raft.committed,
            "Applied": raft.applied, "Snapshot": raft.snapshot, "Leader": raft.leader,
            "Voters": raft.voters, "Learners": raft.learners,
        });
    }
    if let Some(path) = &info.data_path {
        value["DataPath"] = json!({
            "Networks": path.networks, "Attachments": path.attachments,
            "AppliedRevision": path.applied_revision, "Errors": path.errors,
            "Repairs": path.repairs,
        });
    }
    value
}

/// `weft info` for people: `Name: value` lines, indented by what they belong to.
pub fn info_text(info: &v1::InfoResponse) -> String {
    let mut text = Lines(String::new());
    text.line(0, "Server Version", &info.version);
    text.line(0, "Name", &info.hostname);
    text.line(0, "Containers", info.containers);
    text.line(1, "Running", info.containers_running);
    text.line(1, "Stopped", info.containers.saturating_sub(info.containers_running));
    text.line(0, "Cluster", if info.cluster_active { "active" } else { "inactive" });
    if info.cluster_active {
        cluster_lines(&mut text, info);
    }
    if let Some(raft) = &info.raft {
        raft_lines(&mut text, raft);
    }
    if let Some(path) = &info.data_path {
        text.line(0, "Data Path", if path.errors.is_empty() { "healthy" } else { "failing" });
        text.line(1, "Networks", path.networks);
        text.line(1, "Attachments", path.attachments);
        text.line(1, "Applied Revision", path.applied_revision);
        text.line(1, "Repairs", path.repairs);
        for error in &path.errors {
            text.line(1, "Error", error);
        }
    }
    if !info.wireguard.is_empty() {
        text.line(0, "WireGuard", &info.wireguard);
    }
    text.line(0, "Kernel Version", &info.kernel_version);
    text.line(0, "Cgroup Version", &info.cgroup_version);
    text.line(0, "CPUs", info.cpus);
    text.line(0, "Total Memory", gibibytes(info.memory_bytes));
    text.line(0, "Weft Root Dir", &info.state_dir);
    text.line(0, "Weft Run Dir", &info.run_dir);
    for warning in &info.warnings {
        text.line(0, "WARNING", warning);
    }
    text.0
}

fn cluster_lines(text: &mut Lines, info: &v1::InfoResponse) {
    text.line(1, "NodeID", &info.node_id);
    if !info.session_error.is_empty() {
        text.line(1, "Error", &info.session_error);
    }
    text.line(1, "Is Manager", info.is_manager);
    text.line(1, "ClusterID", &info.cluster_id);
    text.line(1, "Managers", info.manager_count);
    text.line(1, "Nodes", info.node_count);
    if let Some(cluster) = &info.cluster {
        text.line(1, "Default Address Pool", cluster.default_address_pools.join("  "));
        text.line(1, "SubnetSize", cluster.subnet_size);
        text.line(1, "Data Path Port", cluster.data_path_port);
        text.line(1, "Encrypt Overlays", cluster.encrypt_overlays);
        text.line(1, "WireGuard Port", cluster.wireguard_port);
        text.line(1, "Key Rotation", rotation(cluster.key_rotation.as_ref()));
        text.head(1, "Orchestration");
        text.line(2, "Task History Retention Limit", cluster.task_history_limit);
    }
    text.line(1, "Node Address", &info.node_addr);
    text.line(1, "Data Path Address", &info.data_path_addr);
    text.head(1, "Manager Addresses");
    for manager in &info.managers {
        text.item(2, manager);
    }
    if info.certificate_expires_at.is_some() {
        text.line(1, "Certificate Expires", rfc3339(info.certificate_expires_at.as_ref()));
    }
}

/// Age at which keys are rotated; none is left to operators.
fn rotation(period: Option<&WireDuration>) -> String {
    match nanos(period) {
        0 => "never".to_owned(),
        period => go_duration(period),
    }
}

fn raft_lines(text: &mut Lines, raft: &v1::RaftHealth) {
    text.line(0, "Raft", if raft.leader.is_empty() { "no leader" } else { "healthy" });
    text.line(1, "Leader", &raft.leader);
    text.line(1, "Term", raft.term);
    text.line(1, "Last Log", raft.last_log);
    text.line(1, "Committed", raft.committed);
    text.line(1, "Applied", raft.applied);
    text.line(1, "Snapshot", raft.snapshot);
    text.line(1, "Voters", raft.voters.join(" "));
    if !raft.learners.is_empty() {
        text.line(1, "Learners", raft.learners.join(" "));
    }
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.2}GiB", bytes as f64 / f64::from(1u32 << 30))
}

struct Lines(String);

impl Lines {
    fn line(&mut self, indent: usize, name: &str, value: impl ToString) {
        let value = one_line(&value.to_string());
        self.0.push_str(&format!("{}{name}: {value}\n", " ".repeat(indent)));
    }

    fn head(&mut self, indent: usize, name: &str) {
        self.0.push_str(&format!("{}{name}:\n", " ".repeat(indent)));
    }

    fn item(&mut self, indent: usize, value: &str) {
        self.0.push_str(&format!("{}{}\n", " ".repeat(indent), one_line(value)));
    }
}
