//! Services.

use weft_model::{
    NetworkId, Service, State, TaskState,
    object::UpdateStatus,
    spec::{
        EndpointMode, FailureAction, Invalid, Mode, NetworkUse, Placement, RestartCondition,
        RestartPolicy, ServiceSpec, UpdateConfig, UpdateOrder,
    },
};

use super::{container, network, value};
use crate::v1;

/// The only way to prefer nodes.
const SPREAD: &str = "spread=node.labels.";

/// The user's words, for the wire; networks are named by ID.
pub fn spec(spec: &ServiceSpec) -> v1::ServiceSpec {
    v1::ServiceSpec {
        name: spec.name.clone(),
        labels: value::map(spec.labels.clone()),
        container: Some(container::spec(&spec.container)),
        mode: Some(mode(spec.mode)),
        networks: spec.networks.iter().map(usage).collect(),
        endpoint_mode: endpoint_mode(spec.endpoint_mode).into(),
        restart: Some(restart(&spec.restart)),
        placement: Some(placement(&spec.placement)),
        update: Some(update(&spec.update)),
    }
}

/// The user's words, from the wire. `resolve` finds a network by name, ID or prefix.
///
/// # Errors
/// The first field that cannot be read, or what `resolve` says.
pub fn spec_of<E: From<Invalid>>(
    wire: &v1::ServiceSpec,
    mut resolve: impl FnMut(&str) -> Result<NetworkId, E>,
) -> Result<ServiceSpec, E> {
    let container = wire.container.as_ref();
    let container = container.ok_or_else(|| Invalid::new("image", "", "an image is needed"))?;
    let mut networks = Vec::new();
    for usage in &wire.networks {
        let network = resolve(&usage.network)?;
        networks.push(NetworkUse { network, aliases: usage.aliases.clone() });
    }
    Ok(ServiceSpec {
        name: wire.name.clone(),
        labels: value::map(wire.labels.clone()),
        container: container::spec_of(container)?,
        mode: mode_of(wire.mode.as_ref()),
        networks,
        endpoint_mode: endpoint_mode_of(wire.endpoint_mode)?,
        restart: restart_of(wire.restart.as_ref())?,
        placement: placement_of(wire.placement.as_ref())?,
        update: update_of(wire.update.as_ref())?,
        force_update: 0,
    })
}

fn usage(usage: &NetworkUse) -> v1::NetworkAttachmentSpec {
    v1::NetworkAttachmentSpec { network: usage.network.to_string(), aliases: usage.aliases.clone() }
}

fn mode(mode: Mode) -> v1::ServiceMode {
    use v1::service_mode::{Global, Mode as Wire, Replicated};
    let mode = match mode {
        Mode::Replicated { replicas } => Wire::Replicated(Replicated { replicas }),
        Mode::Global => Wire::Global(Global {}),
    };
    v1::ServiceMode { mode: Some(mode) }
}

/// One replica if nothing is said, as in Docker.
fn mode_of(wire: Option<&v1::ServiceMode>) -> Mode {
    use v1::service_mode::Mode as Wire;
    match wire.and_then(|wire| wire.mode.as_ref()) {
        Some(Wire::Replicated(replicated)) => Mode::Replicated { replicas: replicated.replicas },
        Some(Wire::Global(_)) => Mode::Global,
        None => Mode::Replicated { replicas: 1 },
    }
}

fn endpoint_mode(mode: EndpointMode) -> v1::EndpointMode {
    match mode {
        EndpointMode::Vip => v1::EndpointMode::Vip,
        EndpointMode::Dnsrr => v1::EndpointMode::Dnsrr,
    }
}

fn endpoint_mode_of(wire: i32) -> Result<EndpointMode, Invalid> {
    match v1::EndpointMode::try_from(wire) {
        Ok(v1::EndpointMode::Unspecified | v1::EndpointMode::Vip) => Ok(EndpointMode::Vip),
        Ok(v1::EndpointMode::Dnsrr) => Ok(EndpointMode::Dnsrr),
        Err(_) => Err(Invalid::new("--endpoint-mode", wire, "must be vip or dnsrr")),
    }
}

fn restart(policy: &RestartPolicy) -> v1::RestartPolicy {
    let condition = match policy.condition {
        RestartCondition::Any => v1::RestartCondition::Any,
        RestartCondition::OnFailure => v1::RestartCondition::OnFailure,
        RestartCondition::None => v1::RestartCondition::None,
    };
    v1::RestartPolicy {
        condition: condition.into(),
        delay: Some(value::duration(policy.delay)),
        max_attempts: policy.max_attempts,
        window: None,
    }
}

fn restart_of(wire: Option<&v1::RestartPolicy>) -> Result<RestartPolicy, Invalid> {
    let default = RestartPolicy::default();
    let Some(wire) = wire else { return Ok(default) };
    if value::span("--restart-window", wire.window.as_ref())?.is_some_and(|span| !span.is_zero()) {
        let reason = "not available: attempts count as long as they follow each other";
        return Err(Invalid::new("--restart-window", "", reason));
    }
    let condition = match v1::RestartCondition::try_from(wire.condition) {
        Ok(v1::RestartCondition::Unspecified) => default.condition,
        Ok(v1::RestartCondition::Any) => RestartCondition::Any,
        Ok(v1::RestartCondition::OnFailure) => RestartCondition::OnFailure,
        Ok(v1::RestartCondition::None) => RestartCondition::None,
        Err(_) => {
            let reason = "must be any, on-failure or none";
            return Err(Invalid::new("--restart-condition", wire.condition, reason));
        }
    };
    let delay = value::span("--restart-delay", wire.delay.as_ref())?.unwrap_or(default.delay);
    Ok(RestartPolicy { condition, delay, max_attempts: wire.max_attempts })
}

fn placement(placement: &Placement) -> v1::Placement {
    v1::Placement {
        constraints: placement.constraints.iter().map(ToString::to_string).collect(),
        max_replicas_per_node: placement.max_replicas_per_node,
        preferences: placement.spread.iter().map(|label| format!("{SPREAD}{label}")).collect(),
    }
}

fn placement_of(wire: Option<&v1::Placement>) -> Result<Placement, Invalid> {
    let Some(wire) = wire else { return Ok(Placement::default()) };
    let constraints = wire.constraints.iter().map(|text| text.parse());
    let spread = wire.preferences.iter().map(|text| {
        let label = text.strip_prefix(SPREAD).filter(|label| !label.is_empty());
        label
            .map(str::to_owned)
            .ok_or_else(|| Invalid::new("--placement-pref", text, "must be spread=node.labels.KEY"))
    });
    Ok(Placement {
        constraints: constraints.collect::<Result<_, _>>()?,
        max_replicas_per_node: wire.max_replicas_per_node,
        spread: spread.collect::<Result<_, _>>()?,
    })
}

fn update(config: &UpdateConfig) -> v1::UpdateConfig {
    let order = match config.order {
        UpdateOrder::StopFirst => v1::UpdateOrder::StopFirst,
        UpdateOrder::StartFirst => v1::UpdateOrder::StartFirst,
    };
    let failure_action = match config.failure_action {
        FailureAction::Pause => v1::FailureAction::Pause,
        FailureAction::Continue => v1::FailureAction::Continue,
        FailureAction::Rollback => v1::FailureAction::Rollback,
    };
    v1::UpdateConfig {
        parallelism: config.parallelism,
        delay: Some(value::duration(config.delay)),
        order: order.into(),
        failure_action: failure_action.into(),
    }
}

fn update_of(wire: Option<&v1::UpdateConfig>) -> Result<UpdateConfig, Invalid> {
    let default = UpdateConfig::default();
    let Some(wire) = wire else { return Ok(default) };
    let order = match v1::UpdateOrder::try_from(wire.order) {
        Ok(v1::UpdateOrder::Unspecified | v1::UpdateOrder::StopFirst) => UpdateOrder::StopFirst,
        Ok(v1::UpdateOrder::StartFirst) => UpdateOrder::StartFirst,
        Err(_) => {
            let reason = "must be stop-first or start-first";
            return Err(Invalid::new("--update-order", wire.order, reason));
        }
    };
    let failure_action = match v1::FailureAction::try_from(wire.failure_action) {
        Ok(v1::FailureAction::Unspecified | v1::FailureAction::Pause) => FailureAction::Pause,
        Ok(v1::FailureAction::Continue) => FailureAction::Continue,
        Ok(v1::FailureAction::Rollback) => FailureAction::Rollback,
        Err(_) => {
            let reason = "must be pause, continue or rollback";
            return Err(Invalid::new("--update-failure-action", wire.failure_action, reason));
        }
    };
    let delay = value::span("--update-delay", wire.delay.as_ref())?.unwrap_or(default.delay);
    Ok(UpdateConfig { parallelism: wire.parallelism, delay, order, failure_action })
}

/// A service for the wire, with how many of its tasks run.
pub fn service(state: &State, service: &Service) -> v1::Service {
    let live = || state.tasks_of(service.id).filter(|task| task.is_live());
    let running = live().filter(|task| task.status.state == TaskState::Running).count();
    let desired = match service.spec.mode {
        Mode::Replicated { replicas } => replicas as usize,
        // One on each node that it may be on: the orchestrator has made a task for each.
        Mode::Global => live().count(),
    };
    let vips = service.vips.iter().map(|(id, addresses)| v1::VirtualIp {
        network_id: id.to_string(),
        addresses: state
            .network(*id)
            .map(|network| network::with_prefixes(network, addresses))
            .unwrap_or_default(),
    });
    v1::Service {
        id: service.id.to_string(),
        meta: Some(value::meta(&service.meta)),
        spec: Some(spec(&service.spec)),
        previous_spec: service.previous.as_deref().map(spec),
        virtual_ips: vips.collect(),
        update_status: service.update.as_ref().map(update_status),
        running_tasks: u32::try_from(running).unwrap_or(u32::MAX),
        desired_tasks: u32::try_from(desired).unwrap_or(u32::MAX),
        spec_version: service.spec_version,
        stuck: None,
    }
}

fn update_status(status: &UpdateStatus) -> v1::UpdateStatus {
    v1::UpdateStatus {
        state: status.state.word().to_owned(),
        started_at: Some(value::timestamp(status.started)),
        completed_at: status.completed.map(value::timestamp),
        message: status.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::container::tests::any_spec as any_container;
    use proptest::prelude::*;
    use std::time::Duration;
    use weft_model::spec::ContainerSpec;

    fn any_use() -> impl Strategy<Value = NetworkUse> {
        (any::<[u8; 32]>(), prop::collection::vec("[a-z]{1,8}", 0..3))
            .prop_map(|(id, aliases)| NetworkUse { network: NetworkId::from_bytes(id), aliases })
    }

    fn any_update() -> impl Strategy<Value = UpdateConfig> {
        use {FailureAction as F, UpdateOrder as O};
        (
            any::<u32>(),
            0..10_u64.pow(12),
            prop::sample::select(vec![O::StopFirst, O::StartFirst]),
            prop::sample::select(vec![F::Pause, F::Continue, F::Rollback]),
        )
            .prop_map(|(parallelism, nanos, order, failure_action)| UpdateConfig {
                parallelism,
                delay: Duration::from_nanos(nanos),
                order,
                failure_action,
            })
    }

    fn any_restart() -> impl Strategy<Value = RestartPolicy> {
        use RestartCondition as C;
        (prop::sample::select(vec![C::Any, C::OnFailure, C::None]), 0..10_u64.pow(12), any::<u32>())
            .prop_map(|(condition, nanos, max_attempts)| RestartPolicy {
                condition,
                delay: Duration::from_nanos(nanos),
                max_attempts,
            })
    }

    fn any_placement() -> impl Strategy<Value = Placement> {
        let constraints = vec!["node.role==manager", "node.labels.Zone!=b", "node.ip==10.0.0.0/8"];
        (
            prop::sample::subsequence(constraints, 0..3),
            any::<u32>(),
            prop::collection::vec("[a-z]{1,8}", 0..3),
        )
            .prop_map(|(constraints, max_replicas_per_node, spread)| Placement {
                constraints: constraints.iter().map(|text| text.parse().unwrap()).collect(),
                max_replicas_per_node,
                spread,
            })
    }

    proptest! {
        #[test]
        fn a_spec_comes_back(
            container in any_container(),
            mode in prop_oneof![
                any::<u32>().prop_map(|replicas| Mode::Replicated { replicas }),
                Just(Mode::Global),
            ],
            dnsrr in any::<bool>(),
            networks in prop::collection::vec(any_use(), 0..3),
            restart in any_restart(),
            placement in any_placement(),
            update in any_update(),
        ) {
            let endpoint_mode = if dnsrr { EndpointMode::Dnsrr } else { EndpointMode::Vip };
            let given = ServiceSpec {
                mode, networks, endpoint_mode, restart, placement, update,
                ..ServiceSpec::replicated("web", 1, container)
            };
            let parse = |text: &str| {
                text.parse().map_err(|_| Invalid::new("network", text, "not an ID"))
            };
            prop_assert_eq!(spec_of(&spec(&given), parse), Ok(given));
        }
    }

    #[test]
    fn what_cannot_be_read_names_its_field() {
        let cases: [(&str, fn(&mut v1::ServiceSpec)); 6] = [
            ("image", |s| s.container = None),
            ("--endpoint-mode", |s| s.endpoint_mode = 7),
            ("--restart-condition", |s| s.restart.as_mut().unwrap().condition = 9),
            ("--update-order", |s| s.update.as_mut().unwrap().order = 9),
            ("--placement-pref", |s| {
                s.placement.as_mut().unwrap().preferences = vec!["spread=node.id".into()];
            }),
            ("constraint", |s| s.placement.as_mut().unwrap().constraints = vec!["x".into()]),
        ];
        for (field, spoil) in cases {
            let mut wire = spec(&ServiceSpec::replicated("w", 1, ContainerSpec::new("i", &[])));
            spoil(&mut wire);
            let none = |_: &str| Err(Invalid::new("network", "", ""));
            assert_eq!(spec_of(&wire, none).unwrap_err().field, field);
        }
    }
}
