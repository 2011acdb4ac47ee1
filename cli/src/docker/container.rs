//! Containers of a node.

use std::collections::{BTreeMap, BTreeSet};

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
        ("Mounts", mount_names(container, trunc)),
        ("Names", container.name.clone()),
        ("Networks", networks.join(",")),
        ("Ports", ports(container)),
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
            let health = match container.health.as_ref().map(|health| health.status.as_str()) {
                None | Some("" | "none") => String::new(),
                Some("starting") => " (health: starting)".to_owned(),
                Some(status) => format!(" ({status})"),
            };
            format!("Up {}{health}", human(seconds))
        }
        "restarting" => format!("Restarting ({exit}) {}", ago(container.finished_at.as_ref(), now))
            .trim_end()
            .to_owned(),
        "exited" => {
            let when = ago(container.finished_at.as_ref(), now);
            format!("Exited ({exit}) {when}").trim_end().to_owned()
        }
        other => super::node::capital(other),
    }
}

/// `0.0.0.0:8080`, `[::]:8080`
pub fn host_end(port: &v1::PortBinding) -> String {
    match port.host_ip.as_str() {
        v6 if v6.contains(':') => format!("[{v6}]:{}", port.host_port),
        v4 => format!("{v4}:{}", port.host_port),
    }
}

/// Published and exposed ports in Docker's notation: neighbours that lead to neighbours are folded.
fn ports(container: &v1::Container) -> String {
    // One that does not run has nothing open.
    if container.status != "running" {
        return String::new();
    }
    let published: BTreeSet<(u32, &str)> =
        container.ports.iter().map(|port| (port.container_port, port.protocol.as_str())).collect();
    let mut bindings: Vec<&v1::PortBinding> = container.ports.iter().collect();
    bindings.sort_by_key(|port| {
        (port.protocol.clone(), port.host_ip.contains(':'), port.host_ip.clone(), port.host_port)
    });
    let mut parts: Vec<String> = folded(&bindings).iter().map(|run| published_text(run)).collect();
    for exposed in &container.exposed {
        let (ports, protocol) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
        let port = ports.parse().unwrap_or(0);
        if !published.contains(&(port, protocol)) {
            parts.push(format!("{ports}/{protocol}"));
        }
    }
    parts.join(", ")
}

/// Runs of bindings in which both ends go up by one.
fn folded<'a>(bindings: &[&'a v1::PortBinding]) -> Vec<Vec<&'a v1::PortBinding>> {
    let mut runs: Vec<Vec<&v1::PortBinding>> = Vec::new();
    for binding in bindings {
        let follows = |last: &v1::PortBinding| {
            last.host_ip == binding.host_ip
                && last.protocol == binding.protocol
                && last.host_port + 1 == binding.host_port
                && last.container_port + 1 == binding.container_port
        };
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|last| follows(last)) => run.push(binding),
            _ => runs.push(vec![binding]),
        }
    }
    runs
}

fn published_text(run: &[&v1::PortBinding]) -> String {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return String::new() };
    let span = |first: u32, last: u32| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    let ip = if first.host_ip.contains(':') {
        format!("[{}]", first.host_ip)
    } else {
        first.host_ip.clone()
    };
    format!(
        "{ip}:{}->{}/{}",
        span(first.host_port, last.host_port),
        span(first.container_port, last.container_port),
        first.protocol
    )
}

fn mount_names(container: &v1::Container, trunc: Trunc) -> String {
    /// Characters of a path that lists show.
    const SHOWN: usize = 15;
    let spec = container.run.as_ref().and_then(|run| run.container.as_ref());
    let sources = spec.map_or(&[][..], |spec| &spec.mounts).iter().map(|mount| &mount.source);
    let shown = sources.filter(|source| !source.is_empty()).map(|source| match trunc {
        Trunc::Yes if source.chars().count() > SHOWN => {
            format!("{}…", source.chars().take(SHOWN - 1).collect::<String>())
        }
        Trunc::Yes | Trunc::No => source.clone(),
    });
    shown.collect::<Vec<_>>().join(",")
}

/// Everything about a container.
pub fn inspect(container: &v1::Container) -> Value {
    let (path, args) = match container.args.split_first() {
        Some((path, args)) => (path.clone(), args.to_vec()),
        None => (String::new(), Vec::new()),
    };
    json!({
        "Id": container.id,
        "Created": rfc3339(container.created_at.as_ref()),
        "Path": path,
        "Args": args,
        "State": state(container),
        "Image": container.image,
        "ResolvConfPath": container.resolv_conf_path,
        "HostnamePath": container.hostname_path,
        "HostsPath": container.hosts_path,
        "LogPath": container.log_path,
        "Name": format!("/{}", container.name),
        "RestartCount": container.restart_count,
        "Driver": "overlayfs",
        "Platform": "linux",
        "HostConfig": host_config(container),
        "Mounts": mounts(container),
        "Config": config(container),
        "NetworkSettings": network_settings(container),
    })
}

fn state(container: &v1::Container) -> Value {
    let status = container.status.as_str();
    let mut state = json!({
        "Status": status,
        "Running": matches!(status, "running" | "restarting"),
        "Paused": false,
        "Restarting": status == "restarting",
        "OOMKilled": container.oom_killed,
        "Dead": status == "dead",
        "Pid": container.pid,
        "ExitCode": container.exit_code.unwrap_or(0),
        "Error": container.error,
        "StartedAt": rfc3339(container.started_at.as_ref()),
        "FinishedAt": rfc3339(container.finished_at.as_ref()),
    });
    if let Some(health) = &container.health {
        let log = health.log.iter().map(|probe| {
            json!({
                "Start": rfc3339(probe.started_at.as_ref()),
                "End": rfc3339(probe.finished_at.as_ref()),
                "ExitCode": probe.exit_code,
                "Output": probe.output,
            })
        });
        state["Health"] = json!({
            "Status": health.status,
            "FailingStreak": health.failing_streak,
            "Log": log.collect::<Vec<_>>(),
        });
    }
    state
}

/// What the user asked for of a container made by `run`; nothing of a task's.
fn asked(container: &v1::Container) -> (v1::RunSpec, v1::ContainerSpec) {
    let run = container.run.clone().unwrap_or_default();
    let spec = run.container.clone().unwrap_or_default();
    (run, spec)
}

fn host_config(container: &v1::Container) -> Value {
    let limits = container.limits.unwrap_or_default();
    let (run, spec) = asked(container);
    let network_mode = match run.network_mode.as_str() {
        "" => container.networks.first().map_or("none", |network| &network.network_name),
        mode => mode,
    };
    let (restart, most) = match run.restart.split_once(':') {
        Some((policy, most)) => (policy, most.parse().unwrap_or(0)),
        None if run.restart.is_empty() => ("no", 0u32),
        None => (run.restart.as_str(), 0),
    };
    let binds = spec.mounts.iter().filter(|mount| mount.r#type == "bind").map(|mount| {
        let mode = if mount.read_only { ":ro" } else { "" };
        format!("{}:{}{mode}", mount.source, mount.target)
    });
    let tmpfs: Map<String, Value> = spec
        .mounts
        .iter()
        .filter(|mount| mount.r#type == "tmpfs")
        .map(|mount| (mount.target.clone(), Value::String(tmpfs_options(mount))))
        .collect();
    json!({
        "Binds": binds.collect::<Vec<_>>(),
        "NetworkMode": network_mode,
        "PortBindings": asked_ports(container, &run),
        "RestartPolicy": {"Name": restart, "MaximumRetryCount": most},
        "AutoRemove": run.auto_remove,
        "CapAdd": spec.cap_add,
        "CapDrop": spec.cap_drop,
        "Dns": spec.dns,
        "DnsOptions": spec.dns_options,
        "DnsSearch": spec.dns_search,
        "ExtraHosts": spec.hosts,
        "Links": run.links,
        "Privileged": spec.privileged,
        "PublishAllPorts": run.publish_all,
        "ReadonlyRootfs": spec.read_only,
        "Sysctls": object(&spec.sysctls),
        "Tmpfs": tmpfs,
        "Init": spec.init,
        "Memory": limits.memory_bytes,
        "NanoCpus": limits.nano_cpus,
        "PidsLimit": limits.pids,
    })
}

/// What was asked to be published, by the port of the container; a host port that is to be chosen is
/// empty, as in Docker. Of a task there is only what was decided.
fn asked_ports(container: &v1::Container, run: &v1::RunSpec) -> Map<String, Value> {
    if container.run.is_none() {
        return bindings(container);
    }
    let mut by_port: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for port in &run.publish {
        let protocol = if port.protocol.is_empty() { "tcp" } else { &port.protocol };
        let last = port.container_port_end.max(port.container_port);
        for (offset, number) in (0..).zip(port.container_port..=last) {
            let host = match (port.host_port, port.host_port_end.max(port.host_port)) {
                (0, _) => String::new(),
                (first, end) if first != end && last == port.container_port => {
                    format!("{first}-{end}")
                }
                // Ranges of equal length lead one to one.
                (first, _) => (first + offset).to_string(),
            };
            let binding = json!({"HostIp": port.host_ip, "HostPort": host});
            by_port.entry(format!("{number}/{protocol}")).or_default().push(binding);
        }
    }
    by_port.into_iter().map(|(key, bindings)| (key, Value::Array(bindings))).collect()
}

fn tmpfs_options(mount: &v1::Mount) -> String {
    let size = (mount.tmpfs_size > 0).then(|| format!("size={}", mount.tmpfs_size));
    let mode = (mount.tmpfs_mode > 0).then(|| format!("mode={:o}", mount.tmpfs_mode));
    size.into_iter().chain(mode).collect::<Vec<_>>().join(",")
}

fn mounts(container: &v1::Container) -> Value {
    let (_, spec) = asked(container);
    let mounts = spec.mounts.iter().map(|mount| {
        json!({
            "Type": mount.r#type,
            "Source": mount.source,
            "Destination": mount.target,
            "Mode": if mount.read_only { "ro" } else { "" },
            "RW": !mount.read_only,
            "Propagation": if mount.r#type == "bind" { "rprivate" } else { "" },
        })
    });
    mounts.collect()
}

fn config(container: &v1::Container) -> Value {
    let (_, spec) = asked(container);
    let mut config = json!({
        "Hostname": container.hostname,
        "User": container.user,
        "AttachStdin": spec.open_stdin,
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "Env": container.env,
        "Cmd": container.args,
        "Entrypoint": null,
        "Image": container.image,
        "WorkingDir": container.workdir,
        "Labels": object(&container.labels),
    });
    let exposed: Map<String, Value> = container
        .exposed
        .iter()
        .cloned()
        .chain(container.ports.iter().map(|p| format!("{}/{}", p.container_port, p.protocol)))
        .map(|port| (port, json!({})))
        .collect();
    if !exposed.is_empty() {
        config["ExposedPorts"] = Value::Object(exposed);
    }
    if spec.stop_signal != 0 {
        config["StopSignal"] = spec.stop_signal.to_string().into();
    }
    if let Some(health) = &spec.health {
        config["Healthcheck"] = healthcheck(health);
    }
    config
}

/// A health check, as Docker's `HealthConfig`.
pub fn healthcheck(health: &v1::Health) -> Value {
    let nanos = |span: Option<&crate::wire::WireDuration>| {
        u64::try_from(crate::wire::nanos(span)).unwrap_or(0)
    };
    json!({
        "Test": health.test,
        "Interval": nanos(health.interval.as_ref()),
        "Timeout": nanos(health.timeout.as_ref()),
        "StartPeriod": nanos(health.start_period.as_ref()),
        "Retries": health.retries,
    })
}

/// Published ports by the port of the container, in the order of the keys.
fn bindings(container: &v1::Container) -> Map<String, Value> {
    let mut by_port: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for port in &container.ports {
        let key = format!("{}/{}", port.container_port, port.protocol);
        let binding = json!({"HostIp": port.host_ip, "HostPort": port.host_port.to_string()});
        by_port.entry(key).or_default().push(binding);
    }
    by_port.into_iter().map(|(key, bindings)| (key, Value::Array(bindings))).collect()
}

fn network_settings(container: &v1::Container) -> Value {
    // A sandbox has no ID but its container's.
    let sandbox = if container.netns_path.is_empty() { "" } else { &container.id };
    let networks: Map<String, Value> = container
        .networks
        .iter()
        .map(|network| (network.network_name.clone(), endpoint(network)))
        .collect();
    let mut ports = bindings(container);
    for exposed in &container.exposed {
        ports.entry(exposed.clone()).or_insert(Value::Null);
    }
    // Scripts of long ago read these of the default bridge here.
    let bridge = container.networks.iter().find(|network| network.network_name == "bridge");
    let bridge = bridge.map_or_else(|| endpoint(&v1::ContainerNetwork::default()), endpoint);
    let mut settings = json!({
        "SandboxID": sandbox,
        "SandboxKey": container.netns_path,
        "Ports": ports,
        "Networks": networks,
    });
    for field in [
        "EndpointID",
        "Gateway",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "IPAddress",
        "IPPrefixLen",
        "IPv6Gateway",
        "MacAddress",
    ] {
        settings[field] = bridge[field].clone();
    }
    settings
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
