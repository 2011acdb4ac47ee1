//! From a task to the configuration of its container.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::PathBuf};

use weft_dns::files::{HostEntry, Ipv6, Overrides, ResolvConf, hosts};
use weft_model::{
    AttachmentId, Task, TaskId,
    assignments::EndpointItem,
    spec::{Access as SpecAccess, ContainerSpec, Limits as SpecLimits, Missing, Mount},
};

use crate::{
    container::{
        Access, BindMount, ContainerConfig, ContainerId, Error, Image, Limits, MissingSource, Tmpfs,
    },
    plumbing::Resolving,
};

/// Where the host's own resolver is set.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The port of name servers.
const DNS_PORT: u16 = 53;

/// Labels of ours on a container, that say whose it is.
pub mod labels {
    /// ID of the service.
    pub const SERVICE_ID: &str = "weft.service.id";
    /// Its name.
    pub const SERVICE_NAME: &str = "weft.service.name";
    /// `web.1`
    pub const TASK_NAME: &str = "weft.task.name";
    /// IDs of the attachments, in the order of the interfaces, with commas between.
    pub const ATTACHMENTS: &str = "weft.attachments";
}

/// The attachments that a container's labels name.
pub fn attachments_label(labels: &BTreeMap<String, String>) -> Vec<AttachmentId> {
    let list = labels.get(labels::ATTACHMENTS).map_or("", String::as_str);
    list.split(',').filter_map(|id| id.parse().ok()).collect()
}

/// The host's resolv.conf, or nothing.
pub(crate) fn host_resolv_conf() -> String {
    fs::read_to_string(RESOLV_CONF).unwrap_or_default()
}

/// The container's name for the runtime.
pub(super) fn container_id(task: TaskId) -> ContainerId {
    ContainerId::new(task.to_string()).expect("64 hex digits are an ID")
}

/// The configuration of a task's container. `endpoints` are its attachments, in order.
pub(super) fn config(task: &Task, endpoints: &[&EndpointItem]) -> Result<ContainerConfig, Error> {
    let mut config = of_spec(container_id(task.id), &task.container);
    config.name = task.container_name();
    config.resolv_conf = ResolvConf::new(&host_resolv_conf(), &overrides(task)).text();
    config.hosts = hosts_text(task, config.effective_hostname(), endpoints);
    config.labels = container_labels(task);
    Ok(config)
}

/// What a spec says of a container, without its name, its networks and its files in /etc.
pub(crate) fn of_spec(id: ContainerId, spec: &ContainerSpec) -> ContainerConfig {
    let directory = spec.image.strip_prefix("rootfs:").unwrap_or(&spec.image);
    let image = Image::Rootfs(PathBuf::from(directory));
    let mut config = ContainerConfig::new(id, image, spec.args.clone());
    config.env.clone_from(&spec.env);
    if !spec.workdir.is_empty() {
        config.cwd = PathBuf::from(&spec.workdir);
    }
    config.hostname.clone_from(&spec.hostname);
    config.stop_grace = spec.stop_grace;
    config.stop_signal = spec.stop_signal.unwrap_or(libc::SIGTERM);
    config.limits = limits(spec.limits);
    for mount in &spec.mounts {
        add_mount(&mut config, mount);
    }
    config.user.clone_from(&spec.user);
    config.tty = spec.tty;
    // The input ends with the client that feeds it, as of `run -i`.
    (config.open_stdin, config.stdin_once) = (spec.open_stdin, spec.open_stdin);
    config.cap_add.clone_from(&spec.cap_add);
    config.cap_drop.clone_from(&spec.cap_drop);
    config.privileged = spec.privileged;
    config.sysctls.clone_from(&spec.sysctls);
    config.read_only = spec.read_only;
    config.init = spec.init;
    config.labels.clone_from(&spec.labels);
    config
}

fn add_mount(config: &mut ContainerConfig, mount: &Mount) {
    match mount {
        Mount::Bind { source, target, access, missing } => config.mounts.push(BindMount {
            source: PathBuf::from(source),
            target: PathBuf::from(target),
            access: match access {
                SpecAccess::ReadOnly => Access::ReadOnly,
                SpecAccess::ReadWrite => Access::ReadWrite,
            },
            missing: match missing {
                Missing::Refuse => MissingSource::Refuse,
                Missing::Make => MissingSource::MakeDirectory,
            },
        }),
        Mount::Tmpfs { target, size, mode } => {
            let mut tmpfs = Tmpfs::new(target);
            tmpfs.options.extend(size.map(|size| format!("size={size}")));
            tmpfs.options.extend(mode.map(|mode| format!("mode={mode:o}")));
            config.tmpfs.push(tmpfs);
        }
    }
}

fn limits(limits: SpecLimits) -> Limits {
    let some = |value: u64| (value > 0).then_some(value);
    Limits {
        memory: some(limits.memory),
        cpu_millis: some(limits.nano_cpus / 1_000_000).and_then(|n| u32::try_from(n).ok()),
        pids: some(limits.pids).and_then(|n| u32::try_from(n).ok()),
    }
}

fn overrides(task: &Task) -> Overrides {
    Overrides {
        nameservers: task.container.dns.clone(),
        search: task.container.dns_search.clone(),
        options: task.container.dns_options.clone(),
    }
}

/// What the container's resolver asks with.
pub(super) fn resolving(task: &Task) -> Resolving {
    let host = host_resolv_conf();
    let servers = &task.container.dns;
    let upstreams: Vec<SocketAddr> = if servers.is_empty() {
        super::upstreams(&host)
    } else {
        servers.iter().map(|server| SocketAddr::new(*server, DNS_PORT)).collect()
    };
    Resolving { upstreams, ndots: ResolvConf::new(&host, &overrides(task)).ndots() }
}

/// The same for a container of an earlier run: servers that the user set are named in the comments
/// of the file that it was given.
pub(super) fn resolving_of(own: &str, host: &str) -> Resolving {
    let overridden = own
        .lines()
        .filter_map(|line| line.strip_prefix("# ExtServers: ["))
        .flat_map(|rest| rest.trim_end_matches(']').split_whitespace())
        .filter_map(|server| server.parse().ok())
        .map(|server| SocketAddr::new(server, DNS_PORT))
        .collect::<Vec<_>>();
    let upstreams = if overridden.is_empty() { super::upstreams(host) } else { overridden };
    Resolving { upstreams, ndots: None }
}

fn hosts_text(task: &Task, hostname: &str, endpoints: &[&EndpointItem]) -> String {
    let extra: Vec<_> = task
        .container
        .hosts
        .iter()
        .map(|(name, address)| HostEntry { address: *address, names: vec![name.clone()] })
        .collect();
    let own: Vec<_> = endpoints
        .iter()
        .flat_map(|endpoint| endpoint.addresses.iter())
        .map(|address| HostEntry { address: *address, names: vec![hostname.to_owned()] })
        .collect();
    let v6 = own.iter().any(|entry| entry.address.is_ipv6());
    hosts(&extra, &own, if v6 { Ipv6::Enabled } else { Ipv6::Disabled })
}

fn container_labels(task: &Task) -> BTreeMap<String, String> {
    let mut labels = task.container.labels.clone();
    let attachments: Vec<_> = task.attachments.iter().map(ToString::to_string).collect();
    labels.extend([
        (labels::SERVICE_ID.to_owned(), task.service.to_string()),
        (labels::SERVICE_NAME.to_owned(), task.service_name.clone()),
        (labels::TASK_NAME.to_owned(), task.name()),
        (labels::ATTACHMENTS.to_owned(), attachments.join(",")),
    ]);
    labels
}
