//! What is known of a container: from the runtime, which knows it without any manager, and from the
//! assignments, which know its networks.

use std::{net::IpAddr, path::Path};

use weft_model::{AttachmentId, TaskId, assignments::NetworkItem};
use weft_overlay::Mac;
use weft_proto::v1;

use crate::{
    container::{ContainerConfig, Found, Image, Phase},
    desired::{Sorted, with_prefixes},
    tasks::{attachments_label, labels},
};

/// Nanoseconds of a CPU's second in a thousandth of a CPU.
const NANO_CPUS_PER_MILLI: u64 = 1_000_000;

/// A container as the API shows it. `state_dir` is the absolute path of the runtime's state.
pub(super) fn container(found: &Found, sorted: &Sorted<'_>, state_dir: &Path) -> v1::Container {
    let mut out = v1::Container {
        id: found.id.to_string(),
        name: found.id.to_string(),
        ..v1::Container::default()
    };
    add_status(found, &mut out);
    add_paths(found, state_dir, &mut out);
    match &found.config {
        Some(config) => {
            add_config(config, &mut out);
            out.networks = networks(&attachments_label(&config.labels), sorted);
        }
        None => add_task(found, sorted, &mut out),
    }
    out
}

fn add_status(found: &Found, out: &mut v1::Container) {
    let status = &found.status;
    out.pid = status.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
    out.created_at = status.created.map(Into::into);
    out.started_at = status.started.map(Into::into);
    let word = match &status.phase {
        Phase::Created | Phase::Starting => "created",
        Phase::Running => "running",
        Phase::Exited(exit) => {
            out.exit_code = Some(exit.code);
            out.oom_killed = exit.oom;
            out.error = exit.error.clone().unwrap_or_default();
            out.finished_at = Some(exit.finished.into());
            "exited"
        }
        Phase::Failed { reason } => {
            out.error.clone_from(reason);
            "dead"
        }
    };
    word.clone_into(&mut out.status);
}

fn add_paths(found: &Found, state_dir: &Path, out: &mut v1::Container) {
    add_own_paths(found.id.as_str(), Some(found), state_dir, out);
}

/// Where its things lie; `container/layout.rs` puts them there.
pub(super) fn add_own_paths(
    id: &str,
    found: Option<&Found>,
    state_dir: &Path,
    out: &mut v1::Container,
) {
    let own = state_dir.join("containers").join(id);
    let path = |name: &str| own.join(name).to_string_lossy().into_owned();
    out.log_path = path("log");
    out.hosts_path = path("etc/hosts");
    out.resolv_conf_path = path("etc/resolv.conf");
    out.hostname_path = path("etc/hostname");
    let netns = found.and_then(Found::netns);
    out.netns_path = netns.map_or_else(String::new, |path| path.display().to_string());
}

fn add_config(config: &ContainerConfig, out: &mut v1::Container) {
    let Image::Rootfs(directory) = &config.image;
    let label = |key: &str| config.labels.get(key).cloned().unwrap_or_default();
    out.name.clone_from(&config.name);
    out.task_name = label(labels::TASK_NAME);
    out.service_id = label(labels::SERVICE_ID);
    out.service_name = label(labels::SERVICE_NAME);
    out.image = format!("rootfs:{}", directory.display());
    out.args.clone_from(&config.args);
    out.env = config.effective_env();
    out.labels = config.labels.clone().into_iter().collect();
    config.effective_hostname().clone_into(&mut out.hostname);
    out.limits = Some(v1::Limits {
        memory_bytes: config.limits.memory.unwrap_or(0),
        nano_cpus: u64::from(config.limits.cpu_millis.unwrap_or(0)) * NANO_CPUS_PER_MILLI,
        pids: config.limits.pids.map_or(0, u64::from),
    });
}

/// Its configuration is lost, but the managers may know the task.
fn add_task(found: &Found, sorted: &Sorted<'_>, out: &mut v1::Container) {
    let id: Option<TaskId> = found.id.as_str().parse().ok();
    let Some(task) = id.and_then(|id| sorted.tasks.get(&id)) else { return };
    out.name = task.container_name();
    out.task_name = task.name();
    out.service_id = task.service.to_string();
    out.service_name.clone_from(&task.service_name);
    out.image.clone_from(&task.container.image);
    out.args.clone_from(&task.container.args);
    out.networks = networks(&task.attachments, sorted);
}

/// In the order of the interfaces. The attachments of a container that has ended may be gone.
fn networks(attachments: &[AttachmentId], sorted: &Sorted<'_>) -> Vec<v1::ContainerNetwork> {
    let numbered = attachments.iter().enumerate();
    numbered.filter_map(|(index, id)| network(index, *id, sorted)).collect()
}

pub(super) fn network(
    index: usize,
    id: AttachmentId,
    sorted: &Sorted<'_>,
) -> Option<v1::ContainerNetwork> {
    let endpoint = sorted.endpoints.get(&id)?;
    let network = sorted.networks.get(&endpoint.network)?;
    let service = endpoint.service.and_then(|id| sorted.services.get(&id));
    let names = service.and_then(|service| service.networks.get(&endpoint.network));
    let aliases = names.into_iter().flat_map(|names| names.aliases.iter());
    Some(v1::ContainerNetwork {
        network_id: endpoint.network.to_string(),
        network_name: network.name.clone(),
        addresses: with_prefixes(&endpoint.addresses, network)
            .iter()
            .map(ToString::to_string)
            .collect(),
        gateways: gateways(&endpoint.addresses, network),
        mac_address: Mac(endpoint.mac).to_string(),
        aliases: endpoint.names.iter().chain(aliases).cloned().collect(),
        interface: format!("eth{index}"),
        endpoint_id: id.to_string(),
    })
}

/// The gateways of the subnets that it has an address in; an internal network has no way out.
fn gateways(addresses: &[IpAddr], network: &NetworkItem) -> Vec<String> {
    if network.internal {
        return Vec::new();
    }
    addresses
        .iter()
        .filter_map(|address| network.subnets.iter().find(|(cidr, _)| cidr.contains(address)))
        .map(|(_, gateway)| gateway.to_string())
        .collect()
}
