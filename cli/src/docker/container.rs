//! Containers of a node.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use weft_proto::v1;

use super::{Trunc, address, label_text, object, of_family, prefix};
use crate::output::{
    list::{Columns, Row},
    time::{ago, human, rfc3339, timestamp},
};

/// Characters of a command that lists show.
const SHOWN_COMMAND: usize = 20;

/// `weft ps`
pub const COLUMNS: Columns = Columns {
    shown: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Ports", "PORTS"),
        ("Names", "NAMES"),
    ],
    more: &[
        ("CreatedAt", "CREATED AT"),
        ("Labels", "LABELS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Mounts", "MOUNTS"),
        ("Networks", "NETWORKS"),
        ("Size", "SIZE"),
        ("State", "STATE"),
    ],
    id: "ID",
};

/// One row of the list.
pub fn row(container: &v1::Container, now: Timestamp, trunc: Trunc) -> Row {
    let networks: Vec<&str> =
        container.networks.iter().map(|network| network.network_name.as_str()).collect();
    let mut row = Row::new([
        ("Command", command(&container.args, trunc)),
        ("CreatedAt", rfc3339(container.created_at.as_ref())),
        ("ID", trunc.id(&container.id)),
        ("Image", container.image.clone()),
        ("Labels", label_text(&container.labels)),
        ("LocalVolumes", "0".to_owned()),
        ("Mounts", String::new()),
        ("Names", container.name.clone()),
        ("Networks", networks.join(",")),
        ("Ports", String::new()),
        ("RunningFor", ago(container.created_at.as_ref(), now)),
        ("Size", "0B".to_owned()),
        ("State", container.status.clone()),
        ("Status", status(container, now)),
    ]);
    row.labels = container.labels.clone();
    row
}

fn command(args: &[String], trunc: Trunc) -> String {
    let text = args.join(" ");
    match trunc {
        Trunc::Yes if text.chars().count() > SHOWN_COMMAND => {
            let head: String = text.chars().take(SHOWN_COMMAND - 1).collect();
            format!("\"{head}…\"")
        }
        Trunc::Yes | Trunc::No => format!("\"{text}\""),
    }
}

fn status(container: &v1::Container, now: Timestamp) -> String {
    let exit = container.exit_code.unwrap_or(0);
    match container.status.as_str() {
        "running" => {
            let since = container.started_at.as_ref().and_then(timestamp);
            let seconds = since.map_or(0, |since| now.as_second() - since.as_second());
            format!("Up {}", human(seconds))
        }
        "exited" => {
            let when = ago(container.finished_at.as_ref(), now);
            format!("Exited ({exit}) {when}").trim_end().to_owned()
        }
        other => super::node::capital(other),
    }
}

/// Everything about a container.
pub fn inspect(container: &v1::Container) -> Value {
    let (path, args) = match container.args.split_first() {
        Some((path, args)) => (path.clone(), args.to_vec()),
        None => (String::new(), Vec::new()),
    };
    let limits = container.limits.unwrap_or_default();
    json!({
        "Id": container.id,
        "Created": rfc3339(container.created_at.as_ref()),
        "Path": path,
        "Args": args,
        "State": {
            "Status": container.status,
            "Running": container.status == "running",
            "Paused": false,
            "Restarting": false,
            "OOMKilled": container.oom_killed,
            "Dead": container.status == "dead",
            "Pid": container.pid,
            "ExitCode": container.exit_code.unwrap_or(0),
            "Error": container.error,
            "StartedAt": rfc3339(container.started_at.as_ref()),
            "FinishedAt": rfc3339(container.finished_at.as_ref()),
        },
        "Image": container.image,
        "ResolvConfPath": container.resolv_conf_path,
        "HostnamePath": container.hostname_path,
        "HostsPath": container.hosts_path,
        "LogPath": container.log_path,
        "Name": format!("/{}", container.name),
        "RestartCount": 0,
        "Driver": "overlayfs",
        "Platform": "linux",
        "HostConfig": {
            "NetworkMode": container.networks.first().map_or("none", |n| &n.network_name),
            "Memory": limits.memory_bytes,
            "NanoCpus": limits.nano_cpus,
            "PidsLimit": limits.pids,
        },
        "Mounts": [],
        "Config": {
            "Hostname": container.hostname,
            "Env": container.env,
            "Cmd": container.args,
            "Image": container.image,
            "Labels": object(&container.labels),
        },
        "NetworkSettings": network_settings(container),
    })
}

fn network_settings(container: &v1::Container) -> Value {
    let sandbox = container.netns_path.rsplit('/').next().unwrap_or("");
    let networks: Map<String, Value> = container
        .networks
        .iter()
        .map(|network| (network.network_name.clone(), endpoint(network)))
        .collect();
    json!({
        "SandboxID": sandbox,
        "SandboxKey": container.netns_path,
        "Ports": {},
        "Networks": networks,
    })
}

fn endpoint(network: &v1::ContainerNetwork) -> Value {
    let (v4, v6) = (of_family(&network.addresses, false), of_family(&network.addresses, true));
    json!({
        "IPAMConfig": null,
        "Links": null,
        "Aliases": network.aliases,
        "MacAddress": network.mac_address,
        "DriverOpts": null,
        "NetworkID": network.network_id,
        "EndpointID": network.endpoint_id,
        "Gateway": address(of_family(&network.gateways, false)),
        "IPAddress": address(v4),
        "IPPrefixLen": prefix(v4),
        "IPv6Gateway": address(of_family(&network.gateways, true)),
        "GlobalIPv6Address": address(v6),
        "GlobalIPv6PrefixLen": prefix(v6),
        "DNSNames": network.aliases,
        "InterfaceName": network.interface,
    })
}
