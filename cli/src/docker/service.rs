//! Services.

use serde_json::{Value, json};
use weft_proto::v1;

use super::{Trunc, label_text, meta, object};
use crate::{
    output::{
        list::{Columns, Row},
        time::{go_duration, rfc3339},
    },
    wire::{WireDuration, nanos},
};

/// `weft service ls`
pub const COLUMNS: Columns = Columns {
    shown: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Mode", "MODE"),
        ("Replicas", "REPLICAS"),
        ("Image", "IMAGE"),
        ("Ports", "PORTS"),
    ],
    more: &[("Labels", "LABELS")],
    id: "ID",
};

/// The mode in Docker's words.
pub fn mode(spec: &v1::ServiceSpec) -> &'static str {
    match spec.mode.as_ref().and_then(|mode| mode.mode.as_ref()) {
        Some(v1::service_mode::Mode::Global(_)) => "global",
        Some(v1::service_mode::Mode::Replicated(_)) | None => "replicated",
    }
}

/// The number of tasks asked for; `None` for a global service.
pub fn replicas(spec: &v1::ServiceSpec) -> Option<u32> {
    match spec.mode.as_ref().and_then(|mode| mode.mode.as_ref()) {
        Some(v1::service_mode::Mode::Global(_)) => None,
        Some(v1::service_mode::Mode::Replicated(replicated)) => Some(replicated.replicas),
        None => Some(1),
    }
}

fn replicas_text(service: &v1::Service, spec: &v1::ServiceSpec) -> String {
    let wanted = replicas(spec).unwrap_or(service.desired_tasks);
    let most = spec.placement.as_ref().map_or(0, |placement| placement.max_replicas_per_node);
    let running = service.running_tasks;
    if most == 0 {
        format!("{running}/{wanted}")
    } else {
        format!("{running}/{wanted} (max {most} per node)")
    }
}

fn image(spec: &v1::ServiceSpec) -> &str {
    spec.container.as_ref().map_or("", |container| &container.image)
}

/// One row of the list.
pub fn row(service: &v1::Service, trunc: Trunc) -> Row {
    let spec = service.spec.clone().unwrap_or_default();
    let mut row = Row::new([
        ("ID", trunc.id(&service.id)),
        ("Image", image(&spec).to_owned()),
        ("Labels", label_text(&spec.labels)),
        ("Mode", mode(&spec).to_owned()),
        ("Name", spec.name.clone()),
        ("Ports", String::new()),
        ("Replicas", replicas_text(service, &spec)),
    ]);
    row.labels = spec.labels.clone();
    row
}

/// Everything about a service.
pub fn inspect(service: &v1::Service) -> Value {
    let (version, created, updated) = meta(service.meta.as_ref());
    let spec = service.spec.clone().unwrap_or_default();
    let vips: Vec<Value> = service
        .virtual_ips
        .iter()
        .flat_map(|vip| {
            vip.addresses
                .iter()
                .map(|addr| json!({"NetworkID": vip.network_id, "Addr": addr}))
                .collect::<Vec<_>>()
        })
        .collect();
    let mut value = json!({
        "ID": service.id,
        "Version": version,
        "CreatedAt": created,
        "UpdatedAt": updated,
        "Spec": spec_value(&spec),
    });
    if let Some(previous) = &service.previous_spec {
        value["PreviousSpec"] = spec_value(previous);
    }
    let mut endpoint = json!({"Spec": {"Mode": endpoint_mode(&spec)}});
    if !vips.is_empty() {
        endpoint["VirtualIPs"] = vips.into();
    }
    value["Endpoint"] = endpoint;
    if let Some(status) = service.update_status.as_ref().filter(|s| !s.state.is_empty()) {
        value["UpdateStatus"] = json!({
            "State": status.state,
            "StartedAt": rfc3339(status.started_at.as_ref()),
            "CompletedAt": rfc3339(status.completed_at.as_ref()),
            "Message": status.message,
        });
    }
    value["ServiceStatus"] = json!({
        "RunningTasks": service.running_tasks,
        "DesiredTasks": replicas(&spec).unwrap_or(service.desired_tasks),
    });
    if let Some(stuck) = &service.stuck {
        value["Stuck"] = json!({"Reason": stuck.reason, "Hint": stuck.hint});
    }
    value
}

fn endpoint_mode(spec: &v1::ServiceSpec) -> &'static str {
    match spec.endpoint_mode() {
        v1::EndpointMode::Unspecified | v1::EndpointMode::Vip => "vip",
        v1::EndpointMode::Dnsrr => "dnsrr",
    }
}

fn spec_value(spec: &v1::ServiceSpec) -> Value {
    let container = spec.container.clone().unwrap_or_default();
    let limits = container.limits.unwrap_or_default();
    let networks: Vec<Value> = spec
        .networks
        .iter()
        .map(|network| json!({"Target": network.network, "Aliases": network.aliases}))
        .collect();
    let mode = match replicas(spec) {
        Some(replicas) => json!({"Replicated": {"Replicas": replicas}}),
        None => json!({"Global": {}}),
    };
    let mut value = json!({
        "Name": spec.name,
        "Labels": object(&spec.labels),
        "TaskTemplate": {
            "ContainerSpec": container_spec(&container),
            "Resources": {"Limits": {
                "NanoCPUs": limits.nano_cpus,
                "MemoryBytes": limits.memory_bytes,
                "Pids": limits.pids,
            }},
            "Networks": networks,
        },
        "Mode": mode,
        "EndpointSpec": {"Mode": endpoint_mode(spec)},
    });
    if let Some(restart) = &spec.restart {
        value["TaskTemplate"]["RestartPolicy"] = json!({
            "Condition": condition(restart.condition()),
            "Delay": nanos_value(restart.delay.as_ref()),
            "MaxAttempts": restart.max_attempts,
            "Window": nanos_value(restart.window.as_ref()),
        });
    }
    if let Some(placement) = &spec.placement {
        let preferences: Vec<Value> = placement
            .preferences
            .iter()
            .map(|text| {
                let key = text.strip_prefix("spread=").unwrap_or(text);
                json!({"Spread": {"SpreadDescriptor": key}})
            })
            .collect();
        value["TaskTemplate"]["Placement"] = json!({
            "Constraints": placement.constraints,
            "Preferences": preferences,
            "MaxReplicas": placement.max_replicas_per_node,
        });
    }
    if let Some(update) = &spec.update {
        value["UpdateConfig"] = json!({
            "Parallelism": update.parallelism,
            "Delay": nanos_value(update.delay.as_ref()),
            "FailureAction": failure_action(update.failure_action()),
            "Order": order(update.order()),
        });
    }
    value
}

/// What tasks are made from, as Docker's `ContainerSpec`.
pub fn container_spec(container: &v1::ContainerSpec) -> Value {
    let mut value = json!({"Image": container.image});
    let lists = [("Args", &container.args), ("Env", &container.env), ("Hosts", &container.hosts)];
    for (key, list) in lists {
        if !list.is_empty() {
            value[key] = list.clone().into();
        }
    }
    let texts =
        [("Hostname", &container.hostname), ("Dir", &container.workdir), ("User", &container.user)];
    for (key, text) in texts {
        if !text.is_empty() {
            value[key] = text.clone().into();
        }
    }
    if !container.labels.is_empty() {
        value["Labels"] = object(&container.labels);
    }
    if !container.mounts.is_empty() {
        value["Mounts"] = container.mounts.iter().map(mount).collect();
    }
    if container.stop_grace_period.is_some() {
        value["StopGracePeriod"] = nanos_value(container.stop_grace_period.as_ref());
    }
    if !(container.dns.is_empty()
        && container.dns_search.is_empty()
        && container.dns_options.is_empty())
    {
        value["DNSConfig"] = json!({
            "Nameservers": container.dns,
            "Search": container.dns_search,
            "Options": container.dns_options,
        });
    }
    add_rights(container, &mut value);
    if let Some(health) = &container.health {
        value["Healthcheck"] = super::container::healthcheck(health);
    }
    value
}

fn add_rights(container: &v1::ContainerSpec, value: &mut Value) {
    let lists = [("CapabilityAdd", &container.cap_add), ("CapabilityDrop", &container.cap_drop)];
    for (key, list) in lists {
        if !list.is_empty() {
            value[key] = list.clone().into();
        }
    }
    for (key, set) in [("Init", container.init), ("ReadOnly", container.read_only)] {
        if set {
            value[key] = true.into();
        }
    }
    if container.stop_signal != 0 {
        value["StopSignal"] = container.stop_signal.to_string().into();
    }
    if !container.sysctls.is_empty() {
        value["Sysctls"] = object(&container.sysctls);
    }
}

fn mount(mount: &v1::Mount) -> Value {
    json!({
        "Type": mount.r#type,
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": mount.read_only,
    })
}

fn nanos_value(span: Option<&WireDuration>) -> Value {
    // What a duration of the wire can hold in nanoseconds is beyond 64 bits; 292 years are enough.
    i64::try_from(nanos(span)).unwrap_or(i64::MAX).into()
}

fn condition(condition: v1::RestartCondition) -> &'static str {
    match condition {
        v1::RestartCondition::Unspecified | v1::RestartCondition::Any => "any",
        v1::RestartCondition::OnFailure => "on-failure",
        v1::RestartCondition::None => "none",
    }
}

fn failure_action(action: v1::FailureAction) -> &'static str {
    match action {
        v1::FailureAction::Unspecified | v1::FailureAction::Pause => "pause",
        v1::FailureAction::Continue => "continue",
        v1::FailureAction::Rollback => "rollback",
    }
}

fn order(order: v1::UpdateOrder) -> &'static str {
    match order {
        v1::UpdateOrder::Unspecified | v1::UpdateOrder::StopFirst => "stop-first",
        v1::UpdateOrder::StartFirst => "start-first",
    }
}

/// The service for people.
pub fn pretty(service: &v1::Service) -> String {
    let spec = service.spec.clone().unwrap_or_default();
    let container = spec.container.clone().unwrap_or_default();
    let mut lines = vec![format!("ID:\t\t{}", service.id), format!("Name:\t\t{}", spec.name)];
    if !spec.labels.is_empty() {
        lines.push("Labels:".to_owned());
        lines.extend(spec.labels.iter().map(|(key, value)| format!(" {key}={value}")));
    }
    lines.push(format!("Service Mode:\t{}", super::node::capital(mode(&spec))));
    if let Some(replicas) = replicas(&spec) {
        lines.push(format!(" Replicas:\t{replicas}"));
    }
    if let Some(status) = service.update_status.as_ref().filter(|s| !s.state.is_empty()) {
        lines.push("UpdateStatus:".to_owned());
        lines.push(format!(" State:\t\t{}", status.state));
        lines.push(format!(" Message:\t{}", status.message));
    }
    if let Some(placement) = spec.placement.as_ref().filter(|p| !p.constraints.is_empty()) {
        lines.push("Placement:".to_owned());
        lines.push(format!(" Constraints:\t{}", placement.constraints.join(", ")));
    }
    if let Some(update) = &spec.update {
        lines.push("UpdateConfig:".to_owned());
        lines.push(format!(" Parallelism:\t{}", update.parallelism));
        lines.push(format!(" Delay:\t\t{}", go_duration(nanos(update.delay.as_ref()))));
        lines.push(format!(" On failure:\t{}", failure_action(update.failure_action())));
        lines.push(format!(" Update order:\t{}", order(update.order())));
    }
    lines.push("ContainerSpec:".to_owned());
    lines.push(format!(" Image:\t\t{}", container.image));
    if !container.args.is_empty() {
        lines.push(format!(" Args:\t\t{}", container.args.join(" ")));
    }
    if !container.env.is_empty() {
        lines.push(format!(" Env:\t\t{}", container.env.join(" ")));
    }
    if let Some(health) = &container.health {
        lines.extend(health_lines(health));
    }
    if !spec.networks.is_empty() {
        let names: Vec<&str> = spec.networks.iter().map(|n| n.network.as_str()).collect();
        lines.push(format!("Networks:\t{}", names.join(" ")));
    }
    lines.push(format!("Endpoint Mode:\t{}", endpoint_mode(&spec)));
    if let Some(stuck) = &service.stuck {
        lines.push(format!("Stuck:\t\t{}", stuck.reason));
    }
    let text: Vec<String> = lines.iter().map(|line| printable(line)).collect();
    text.join("\n") + "\n"
}

/// What is not set is as the node has it by default.
fn health_lines(health: &v1::Health) -> Vec<String> {
    let mut lines =
        vec![" Healthcheck:".to_owned(), format!("  Test:\t\t{}", health.test.join(" "))];
    let spans = [
        ("Interval:\t", &health.interval),
        ("Timeout:\t", &health.timeout),
        ("Start period:\t", &health.start_period),
    ];
    let set = spans.iter().filter(|(_, span)| nanos(span.as_ref()) > 0);
    lines.extend(set.map(|(name, span)| format!("  {name}{}", go_duration(nanos(span.as_ref())))));
    if health.retries > 0 {
        lines.push(format!("  Retries:\t{}", health.retries));
    }
    lines
}

/// The line with foreign control characters escaped; our own tabs stay.
fn printable(line: &str) -> String {
    let parts: Vec<String> = line.split('\t').map(crate::output::escape::one_line).collect();
    parts.join("\t")
}
