//! From flags to a service spec: the whole one for `create`, the changes of one for `update`.
//! Pure functions.

use weft_proto::v1;

use super::{capabilities, health};
use crate::{
    args::{
        service::{
            EndpointModeArg, FailureArg, OrderArg, RestartArg, ServiceCreateArgs,
            ServiceUpdateArgs, Settings,
        },
        values::ModeArg,
    },
    error::CliError,
    wire::duration,
};

/// The spec of a new service. `name` is what the service is called if the user said nothing.
pub fn create(args: &ServiceCreateArgs, name: &str) -> Result<v1::ServiceSpec, CliError> {
    let mode = match args.mode {
        ModeArg::Replicated => replicated(1),
        ModeArg::Global if args.settings.replicas.is_some() => {
            return Err(CliError::usage("--replicas", "only with --mode replicated"));
        }
        ModeArg::Global => v1::service_mode::Mode::Global(v1::service_mode::Global {}),
        ModeArg::ReplicatedJob => {
            return Err(CliError::unsupported("service create", "--mode replicated-job"));
        }
        ModeArg::GlobalJob => {
            return Err(CliError::unsupported("service create", "--mode global-job"));
        }
    };
    let (image, command) = match args.image_and_args.split_first() {
        Some((image, command)) => (image.clone(), command.to_vec()),
        None => return Err(CliError::usage("IMAGE", "missing")),
    };
    let mut spec = v1::ServiceSpec {
        name: args.name.clone().unwrap_or_else(|| name.to_owned()),
        labels: args.label.iter().cloned().collect(),
        container: Some(v1::ContainerSpec {
            image,
            args: command,
            env: args.env.clone(),
            labels: args.container_label.iter().cloned().collect(),
            mounts: args.mount.clone(),
            hosts: args.host.clone(),
            dns: args.dns.iter().map(ToString::to_string).collect(),
            dns_search: args.dns_search.clone(),
            dns_options: args.dns_option.clone(),
            cap_add: args.cap_add.clone(),
            cap_drop: args.cap_drop.clone(),
            init: args.init,
            read_only: args.read_only,
            stop_signal: args.stop_signal.unwrap_or(0),
            sysctls: args.sysctl.iter().cloned().collect(),
            health: health::of_service(None, &args.health)?,
            ..Default::default()
        }),
        mode: Some(v1::ServiceMode { mode: Some(mode) }),
        networks: args.network.clone(),
        ..Default::default()
    };
    if !(args.constraint.is_empty() && args.placement_pref.is_empty()) {
        spec.placement = Some(v1::Placement {
            constraints: args.constraint.clone(),
            max_replicas_per_node: 0,
            preferences: args.placement_pref.clone(),
        });
    }
    settings(&mut spec, &args.settings)?;
    Ok(spec)
}

fn replicated(replicas: u32) -> v1::service_mode::Mode {
    v1::service_mode::Mode::Replicated(v1::service_mode::Replicated { replicas })
}

/// Changes the number of tasks; only a replicated service has one.
pub fn scale(spec: &mut v1::ServiceSpec, replicas: u32) -> Result<(), CliError> {
    match spec.mode.as_ref().and_then(|mode| mode.mode.as_ref()) {
        Some(v1::service_mode::Mode::Global(_)) => Err(CliError::refused(
            format!("service {}", spec.name),
            "a global service has no number of tasks: it runs one on each node",
        )),
        Some(v1::service_mode::Mode::Replicated(_)) | None => {
            spec.mode = Some(v1::ServiceMode { mode: Some(replicated(replicas)) });
            Ok(())
        }
    }
}

fn settings(spec: &mut v1::ServiceSpec, given: &Settings) -> Result<(), CliError> {
    if let Some(replicas) = given.replicas {
        scale(spec, replicas)?;
    }
    if let Some(most) = given.replicas_max_per_node {
        spec.placement.get_or_insert_default().max_replicas_per_node = most;
    }
    if let Some(mode) = given.endpoint_mode {
        spec.set_endpoint_mode(match mode {
            EndpointModeArg::Vip => v1::EndpointMode::Vip,
            EndpointModeArg::Dnsrr => v1::EndpointMode::Dnsrr,
        });
    }
    container_settings(spec.container.get_or_insert_default(), given);
    restart_settings(spec, given);
    update_settings(spec, given);
    Ok(())
}

fn container_settings(container: &mut v1::ContainerSpec, given: &Settings) {
    let texts = [
        (&given.hostname, &mut container.hostname),
        (&given.workdir, &mut container.workdir),
        (&given.user, &mut container.user),
    ];
    for (value, field) in texts {
        if let Some(value) = value {
            field.clone_from(value);
        }
    }
    if let Some(grace) = given.stop_grace_period {
        container.stop_grace_period = Some(duration(grace));
    }
    if let Some(bytes) = given.limit_memory {
        container.limits.get_or_insert_default().memory_bytes = bytes;
    }
    if let Some(nano) = given.limit_nano_cpus {
        container.limits.get_or_insert_default().nano_cpus = nano;
    }
    if let Some(pids) = given.limit_pids {
        container.limits.get_or_insert_default().pids = pids;
    }
}

/// Docker's pause before a task is replaced.
const RESTART_DELAY: std::time::Duration = std::time::Duration::from_secs(5);

fn restart_settings(spec: &mut v1::ServiceSpec, given: &Settings) {
    let any = given.restart_condition.is_some()
        || given.restart_delay.is_some()
        || given.restart_max_attempts.is_some()
        || given.restart_window.is_some();
    if !any {
        return;
    }
    // A message that is there is taken as a whole, so it must hold the defaults too.
    let restart = spec.restart.get_or_insert_with(|| v1::RestartPolicy {
        condition: v1::RestartCondition::Any.into(),
        delay: Some(duration(RESTART_DELAY)),
        ..Default::default()
    });
    if let Some(condition) = given.restart_condition {
        restart.set_condition(match condition {
            RestartArg::Any => v1::RestartCondition::Any,
            RestartArg::OnFailure => v1::RestartCondition::OnFailure,
            RestartArg::None => v1::RestartCondition::None,
        });
    }
    if let Some(delay) = given.restart_delay {
        restart.delay = Some(duration(delay));
    }
    if let Some(attempts) = given.restart_max_attempts {
        restart.max_attempts = attempts;
    }
    if let Some(window) = given.restart_window {
        restart.window = Some(duration(window));
    }
}

fn update_settings(spec: &mut v1::ServiceSpec, given: &Settings) {
    let any = given.update_parallelism.is_some()
        || given.update_delay.is_some()
        || given.update_order.is_some()
        || given.update_failure_action.is_some();
    if !any {
        return;
    }
    let update = spec.update.get_or_insert_with(|| v1::UpdateConfig {
        parallelism: 1,
        order: v1::UpdateOrder::StopFirst.into(),
        failure_action: v1::FailureAction::Pause.into(),
        ..Default::default()
    });
    if let Some(parallelism) = given.update_parallelism {
        update.parallelism = parallelism;
    }
    if let Some(delay) = given.update_delay {
        update.delay = Some(duration(delay));
    }
    if let Some(order) = given.update_order {
        update.set_order(match order {
            OrderArg::StopFirst => v1::UpdateOrder::StopFirst,
            OrderArg::StartFirst => v1::UpdateOrder::StartFirst,
        });
    }
    if let Some(action) = given.update_failure_action {
        update.set_failure_action(match action {
            FailureArg::Pause => v1::FailureAction::Pause,
            FailureArg::Continue => v1::FailureAction::Continue,
            FailureArg::Rollback => v1::FailureAction::Rollback,
        });
    }
}

/// Changes a spec as `service update` was asked to. Networks may have been stored under their IDs,
/// so `network_ids` tells which ID a name stands for.
pub fn update(
    spec: &mut v1::ServiceSpec,
    args: &ServiceUpdateArgs,
    network_ids: impl Fn(&str) -> Option<String>,
) -> Result<(), CliError> {
    let same = |a: &str, b: &str| {
        a == b || network_ids(a).as_deref() == Some(b) || network_ids(b).as_deref() == Some(a)
    };
    for name in &args.network_rm {
        let before = spec.networks.len();
        spec.networks.retain(|network| !same(&network.network, name));
        if spec.networks.len() == before {
            return Err(CliError::refused(
                format!("--network-rm {name}"),
                "the service is not on that network",
            ));
        }
    }
    for network in &args.network_add {
        spec.networks.retain(|known| !same(&known.network, &network.network));
        spec.networks.push(network.clone());
    }
    if !(args.constraint_add.is_empty()
        && args.constraint_rm.is_empty()
        && args.placement_pref_add.is_empty()
        && args.placement_pref_rm.is_empty())
    {
        let placement = spec.placement.get_or_insert_default();
        list(&mut placement.constraints, &args.constraint_add, &args.constraint_rm);
        list(&mut placement.preferences, &args.placement_pref_add, &args.placement_pref_rm);
    }
    labels(&mut spec.labels, &args.label_add, &args.label_rm);
    let container = spec.container.get_or_insert_default();
    update_container(container, args)?;
    settings(spec, &args.settings)
}

fn update_container(
    container: &mut v1::ContainerSpec,
    args: &ServiceUpdateArgs,
) -> Result<(), CliError> {
    if let Some(image) = &args.image {
        container.image.clone_from(image);
    }
    if let Some(words) = &args.args {
        container.args.clone_from(&words.0);
    }
    keyed(&mut container.env, &args.env_add, &args.env_rm, |entry| {
        entry.split('=').next().unwrap_or(entry)
    });
    list(&mut container.hosts, &args.host_add, &args.host_rm);
    let dns: Vec<String> = args.dns_add.iter().map(ToString::to_string).collect();
    list(&mut container.dns, &dns, &args.dns_rm);
    list(&mut container.dns_search, &args.dns_search_add, &args.dns_search_rm);
    list(&mut container.dns_options, &args.dns_option_add, &args.dns_option_rm);
    labels(&mut container.labels, &args.container_label_add, &args.container_label_rm);
    container.mounts.retain(|mount| !args.mount_rm.contains(&mount.target));
    for mount in &args.mount_add {
        container.mounts.retain(|known| known.target != mount.target);
        container.mounts.push(mount.clone());
    }
    labels(&mut container.sysctls, &args.sysctl_add, &args.sysctl_rm);
    let lists = (&mut container.cap_add, &mut container.cap_drop);
    capabilities::change(lists, &args.cap_add, &args.cap_drop);
    container.init = args.init.unwrap_or(container.init);
    container.read_only = args.read_only.unwrap_or(container.read_only);
    container.stop_signal = args.stop_signal.unwrap_or(container.stop_signal);
    container.health = health::of_service(container.health.take(), &args.health)?;
    Ok(())
}

fn labels(
    labels: &mut std::collections::BTreeMap<String, String>,
    add: &[(String, String)],
    remove: &[String],
) {
    labels.retain(|key, _| !remove.contains(key));
    labels.extend(add.iter().cloned());
}

/// Removes and adds whole entries; an entry that is there is not doubled.
fn list(list: &mut Vec<String>, add: &[String], remove: &[String]) {
    keyed(list, add, remove, |entry| entry);
}

/// Removes entries by key, and adds entries, each in the place of the one with its key.
fn keyed(list: &mut Vec<String>, add: &[String], remove: &[String], key: impl Fn(&str) -> &str) {
    list.retain(|entry| !remove.iter().any(|gone| gone == key(entry)));
    for entry in add {
        match list.iter_mut().find(|known| key(known) == key(entry)) {
            Some(known) => known.clone_from(entry),
            None => list.push(entry.clone()),
        }
    }
}
