//! Tasks.

use weft_model::{
    State, Task, TaskState,
    object::{Slot, TaskStatus},
    task_state::Desired,
};

use super::{container, network, value};
use crate::v1;

/// A task for the wire, with the names of what it is on.
pub fn task(state: &State, task: &Task) -> v1::Task {
    let node = task.node.and_then(|node| state.node(node));
    let slot = match task.slot {
        Slot::Replica(number) => number,
        Slot::Node(_) => 0,
    };
    // A task that is to start later is looked at again then.
    let retry = (task.start_at > state.now()).then_some(task.start_at);
    v1::Task {
        id: task.id.to_string(),
        meta: Some(value::meta(&task.meta)),
        name: task.name(),
        service_id: task.service.to_string(),
        service_name: task.service_name.clone(),
        slot,
        node_id: task.node.map(|node| node.to_string()).unwrap_or_default(),
        node_hostname: node.map(|node| node.description.hostname.clone()).unwrap_or_default(),
        container: Some(container::spec(&task.container)),
        desired_state: desired(task.desired).into(),
        status: Some(status(&task.status)),
        attachments: attachments(state, task),
        stuck: task.stuck.as_ref().map(|stuck| value::stuck(stuck, retry)),
        spec_version: task.spec_version,
        container_name: task.container_name(),
    }
}

fn attachments(state: &State, task: &Task) -> Vec<v1::TaskAttachment> {
    let held = task.attachments.iter().filter_map(|id| state.attachment(*id));
    held.map(|held| {
        let network = state.network(held.network);
        let usage = task.networks.iter().find(|usage| usage.network == held.network);
        v1::TaskAttachment {
            id: held.id.to_string(),
            network_id: held.network.to_string(),
            network_name: network.map(|network| network.spec.name.clone()).unwrap_or_default(),
            addresses: network
                .map(|network| network::with_prefixes(network, &held.addresses))
                .unwrap_or_default(),
            mac_address: network::mac(held.mac),
            aliases: usage.map(|usage| usage.aliases.clone()).unwrap_or_default(),
        }
    })
    .collect()
}

fn status(status: &TaskStatus) -> v1::TaskStatus {
    v1::TaskStatus {
        state: task_state(status.state).into(),
        since: Some(value::timestamp(status.since)),
        message: status.message.clone(),
        error: status.error.clone(),
        exit_code: status.exit_code,
        pid: status.pid,
    }
}

/// How far a task has come, for the wire.
pub fn task_state(state: TaskState) -> v1::TaskState {
    match state {
        TaskState::New => v1::TaskState::New,
        TaskState::Pending => v1::TaskState::Pending,
        TaskState::Assigned => v1::TaskState::Assigned,
        TaskState::Accepted => v1::TaskState::Accepted,
        TaskState::Preparing => v1::TaskState::Preparing,
        TaskState::Starting => v1::TaskState::Starting,
        TaskState::Running => v1::TaskState::Running,
        TaskState::Complete => v1::TaskState::Complete,
        TaskState::Shutdown => v1::TaskState::Shutdown,
        TaskState::Failed => v1::TaskState::Failed,
        TaskState::Rejected => v1::TaskState::Rejected,
        TaskState::Orphaned => v1::TaskState::Orphaned,
    }
}

/// What is wanted of a task, for the wire.
pub fn desired(desired: Desired) -> v1::DesiredState {
    match desired {
        Desired::Running => v1::DesiredState::Running,
        Desired::Shutdown => v1::DesiredState::Shutdown,
        Desired::Remove => v1::DesiredState::Remove,
    }
}
