//! This node's own containers and networks: their names, how they are shown, and refusals.

use std::path::Path;

use tonic::{Code, Status, metadata::MetadataValue};
use weft_model::{
    Container, ContainerId, Network, NetworkId, Rejected, State,
    command::Named,
    id::RequestId,
    object::{Endpoint, LastRun, Wanted},
    spec::Scope,
};
use weft_overlay::Mac;
use weft_proto::{
    convert::{
        run::{self, Names, Resolve},
        status::{hint_of, hinted, refused},
        value,
    },
    v1,
};

use super::{describe, refusal};
use crate::{
    container::{EXIT_NOT_STARTED, Found},
    desired::Sorted,
    health::{Health, Probe},
    local::{
        CallError, Local, ProposeError,
        live::{Live, Phase},
        plane, unpublished,
    },
};

/// The metadata entry with the exit code that a command line should give.
const EXIT_CODE: &str = "weft-exit-code";

/// What a caller names a write by; empty is none.
pub(super) fn named(text: &str) -> Result<Option<Named>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let id = RequestId::new(text).ok_or_else(|| {
        let (least, most) = (RequestId::MIN, RequestId::MAX);
        let text = format!("request id: must have {least} to {most} printable characters");
        Status::invalid_argument(text)
    })?;
    Ok(Some(Named::from(id)))
}

/// Names become IDs by the newest state.
pub(super) struct Resolver<'a>(pub &'a State);

impl Resolve for Resolver<'_> {
    type Error = Rejected;

    fn network(&self, text: &str) -> Result<(NetworkId, Scope), Rejected> {
        let own = self.0.network_named(text).map(|network| (network.id, Scope::Local));
        // A whole ID that is none of ours may be one of the cluster's.
        own.or_else(|missed| text.parse().map(|id| (id, Scope::Cluster)).map_err(|_| missed))
    }

    fn container(&self, text: &str) -> Result<ContainerId, Rejected> {
        self.0.container_named(text).map(|container| container.id)
    }
}

/// IDs become names by a state and what the cluster told.
struct Namer<'a> {
    state: &'a State,
    sorted: &'a Sorted<'a>,
}

impl Names for Namer<'_> {
    fn network(&self, id: NetworkId) -> String {
        let own = self.state.network(id).map(|network| network.spec.name.clone());
        let cluster = || self.sorted.networks.get(&id).map(|network| network.name.clone());
        own.or_else(cluster).unwrap_or_else(|| id.to_string())
    }

    fn container(&self, id: ContainerId) -> String {
        self.state.container(id).map_or_else(|| id.to_string(), |c| c.spec.name.clone())
    }
}

/// A refusal as a status.
pub(super) fn status(error: CallError) -> Status {
    match error {
        CallError::Propose(ProposeError::Rejected(rejected)) => refused(&rejected),
        CallError::Propose(error @ ProposeError::Log(_)) => {
            let ProposeError::Log(cause) = &error else { return Status::internal("") };
            Status::internal(format!("{error}: {cause}"))
        }
        CallError::Propose(ProposeError::Ending) => Status::unavailable("the daemon is ending"),
        CallError::Start(failure) => Status::new(Code::FailedPrecondition, failure.message),
        CallError::Runtime(error) => refusal::status(error),
        error @ CallError::NotReady { .. } => Status::deadline_exceeded(error.to_string()),
        // Only what is meant for the user: the rest of the metadata is of another connection.
        CallError::Managers(status) => {
            hinted(status.code(), status.message(), hint_of(&status).as_deref())
        }
        error @ CallError::Facts(_) => Status::internal(error.to_string()),
    }
}

/// The refusal of a start, with the exit code that `weft run` gives for it.
pub(super) fn not_started(error: CallError) -> Status {
    let code = match &error {
        CallError::Start(failure) => failure.exit_code,
        _ => EXIT_NOT_STARTED,
    };
    let mut status = status(error);
    if let Ok(code) = MetadataValue::try_from(code.to_string()) {
        status.metadata_mut().insert(EXIT_CODE, code);
    }
    status
}

/// A container of this node, as the API shows it. `found` is what the runtime has of it.
pub(super) fn container(
    local: &Local,
    container: &Container,
    found: Option<&Found>,
    sorted: &Sorted<'_>,
    state_dir: &Path,
) -> v1::Container {
    let (state, live) = (local.state(), local.live(container.id));
    let spec = &container.spec.container;
    let namer = Namer { state: &state, sorted };
    let mut out = v1::Container {
        id: container.id.to_string(),
        name: container.spec.name.clone(),
        image: spec.image.clone(),
        args: spec.args.clone(),
        env: spec.env.clone(),
        labels: spec.labels.clone().into_iter().collect(),
        hostname: match spec.hostname.as_str() {
            "" => container.id.short(),
            name => name.to_owned(),
        },
        user: spec.user.clone(),
        workdir: spec.workdir.clone(),
        limits: Some(v1::Limits {
            memory_bytes: spec.limits.memory,
            nano_cpus: spec.limits.nano_cpus,
            pids: spec.limits.pids,
        }),
        created_at: Some(value::timestamp(container.meta.created)),
        run: Some(run::spec(&container.spec, &namer)),
        networks: networks(container, &state, sorted),
        exposed: unpublished(container)
            .into_iter()
            .map(|(port, protocol)| format!("{port}/{protocol}"))
            .collect(),
        restart_count: live.restarts,
        health: live.health.as_ref().map(health),
        ..v1::Container::default()
    };
    if let Some(config) = found.and_then(|found| found.config.as_ref()) {
        out.env = config.effective_env();
    }
    describe::add_own_paths(&out.id.clone(), found, state_dir, &mut out);
    add_status(container, &live, &mut out);
    out
}

fn add_status(container: &Container, live: &Live, out: &mut v1::Container) {
    if let Some(last) = &container.last {
        add_last(last, out);
    }
    let word = match live.phase {
        Phase::Up { pid, since } => {
            out.pid = u32::try_from(pid).unwrap_or(0);
            out.started_at = Some(since.into());
            out.finished_at = None;
            out.exit_code = None;
            (out.error, out.oom_killed) = (String::new(), false);
            out.ports = container.ports.iter().map(run::binding).collect();
            "running"
        }
        Phase::Restarting => "restarting",
        Phase::Removing => "removing",
        Phase::Starting => "created",
        Phase::Down if container.wanted == Wanted::Removed => "removing",
        Phase::Down => match &container.last {
            Some(last) if !never_ran(last) => "exited",
            Some(_) | None => "created",
        },
    };
    word.clone_into(&mut out.status);
}

fn add_last(last: &LastRun, out: &mut v1::Container) {
    out.exit_code = Some(last.exit_code);
    out.error.clone_from(&last.error);
    out.oom_killed = last.oom;
    if !never_ran(last) {
        out.started_at = Some(value::timestamp(last.started));
        out.finished_at = Some(value::timestamp(last.finished));
    }
    if out.health.is_none() {
        out.health = last.health.map(|state| run::health(state, 0));
    }
}

/// As in Docker, a container whose command could not be run stays a created one.
fn never_ran(last: &LastRun) -> bool {
    !last.error.is_empty() && (EXIT_NOT_STARTED..=127).contains(&last.exit_code)
}

pub(super) fn health(health: &Health) -> v1::HealthStatus {
    let probe = |probe: &Probe| v1::HealthProbe {
        started_at: Some(probe.started.into()),
        finished_at: Some(probe.finished.into()),
        exit_code: probe.exit_code,
        output: probe.output.clone(),
    };
    let mut out = run::health(health.state, health.failing);
    out.log = health.probes.iter().map(probe).collect();
    out
}

/// In the order of the interfaces.
fn networks(
    container: &Container,
    state: &State,
    sorted: &Sorted<'_>,
) -> Vec<v1::ContainerNetwork> {
    let shown = |endpoint: &Endpoint| network(container, endpoint, state, sorted);
    container.endpoints.iter().filter_map(shown).collect()
}

/// One membership of a container.
pub(super) fn network(
    container: &Container,
    endpoint: &Endpoint,
    state: &State,
    sorted: &Sorted<'_>,
) -> Option<v1::ContainerNetwork> {
    if endpoint.foreign() {
        let mut shown = describe::network(0, endpoint.attachment, sorted)?;
        shown.interface.clone_from(&endpoint.ifname);
        return Some(shown);
    }
    let network = state.network(endpoint.spec.network)?;
    let attachment = state.attachment(endpoint.attachment)?;
    let names = [container.spec.name.clone(), container.id.short()];
    let addresses = plane::prefixed(&attachment.addresses, network);
    Some(v1::ContainerNetwork {
        network_id: network.id.to_string(),
        network_name: network.spec.name.clone(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        gateways: gateways(network, &attachment.addresses),
        mac_address: Mac(attachment.mac).to_string(),
        aliases: names.into_iter().chain(endpoint.spec.aliases.iter().cloned()).collect(),
        interface: endpoint.ifname.clone(),
        endpoint_id: endpoint.attachment.to_string(),
    })
}

fn gateways(network: &Network, addresses: &[std::net::IpAddr]) -> Vec<String> {
    if network.spec.internal {
        return Vec::new();
    }
    let of = |address: &std::net::IpAddr| {
        let subnet = network.subnets.iter().find(|subnet| subnet.cidr.contains(address))?;
        Some(subnet.gateway.to_string())
    };
    addresses.iter().filter_map(of).collect()
}
