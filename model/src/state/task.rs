//! Tasks and their attachments.

use std::sync::Arc;

use super::{State, not_found};
use crate::{
    command::{Applied, NewAttachment, TaskReport},
    id::{NodeId, ServiceId, TaskId},
    mac,
    object::{Attachment, Holder, Meta, Slot, Stuck, Task, TaskStatus},
    rejected::Rejected,
    task_state::{Desired, TaskState},
    time::Time,
};

/// Most characters of a worker's message that are kept.
const MESSAGE_MAX: usize = 1_000;

impl State {
    pub(super) fn create_task(
        &mut self,
        id: TaskId,
        service: ServiceId,
        slot: Slot,
        attempt: u32,
        start_at: Time,
    ) -> Result<Applied, Rejected> {
        let service = self.service(service).ok_or_else(|| not_found("service", service))?;
        if self.tasks.contains_key(&id) {
            let name = id.to_string();
            return Err(Rejected::Exists { kind: "task".to_owned(), name: name.clone(), id: name });
        }
        let status = TaskStatus {
            state: TaskState::New,
            since: self.now,
            message: "created".to_owned(),
            error: String::new(),
            exit_code: None,
            pid: 0,
            unhealthy: false,
        };
        let task = Task {
            id,
            meta: Meta::new(self.now),
            service: service.id,
            service_name: service.spec.name.clone(),
            slot,
            container: Arc::new(service.spec.container.clone()),
            networks: Arc::new(service.spec.networks.clone()),
            spec_version: service.spec_version,
            node: None,
            desired: Desired::Running,
            status,
            attachments: Vec::new(),
            start_at,
            attempt,
            ran_since: None,
            stuck: None,
            released: true,
        };
        self.tasks.insert_mut(id, Arc::new(task));
        Ok(Applied::of(id))
    }

    pub(super) fn attach(
        &mut self,
        id: TaskId,
        new: &[NewAttachment],
    ) -> Result<Applied, Rejected> {
        let task = self.task(id).ok_or_else(|| not_found("task", id))?.clone();
        if task.status.state != TaskState::New || task.desired != Desired::Running {
            return Err(out_of_turn(&task, "attached"));
        }
        let fits = new.len() == task.networks.len()
            && new.iter().zip(task.networks.iter()).all(|(new, u)| new.network == u.network);
        if !fits {
            return Err(out_of_turn(&task, "attached to other networks than its own"));
        }
        for new in new {
            if self.attachments.contains_key(&new.id) {
                let name = new.id.to_string();
                let kind = "attachment".to_owned();
                return Err(Rejected::Exists { kind, name: name.clone(), id: name });
            }
            self.take_addresses(new.network, &new.addresses)?;
            let attachment = Attachment {
                id: new.id,
                network: new.network,
                holder: Holder::Task(id),
                addresses: new.addresses.clone(),
                mac: mac::derive(&new.addresses),
                node: None,
            };
            self.attachments.insert_mut(new.id, Arc::new(attachment));
        }
        self.change_task(id, |task| {
            task.attachments = new.iter().map(|new| new.id).collect();
            task.stuck = None;
        });
        self.set_task_state(id, TaskState::Pending, "waits for a node");
        Ok(Applied::of(id))
    }

    pub(super) fn assign(&mut self, id: TaskId, node: NodeId) -> Result<Applied, Rejected> {
        let task = self.task(id).ok_or_else(|| not_found("task", id))?.clone();
        self.node(node).ok_or_else(|| not_found("node", node))?;
        if task.status.state != TaskState::Pending || task.desired != Desired::Running {
            return Err(out_of_turn(&task, "assigned"));
        }
        for attachment in &task.attachments {
            if let Some(found) = self.attachment(*attachment) {
                let mut next = Attachment::clone(found);
                next.node = Some(node);
                self.attachments.insert_mut(*attachment, Arc::new(next));
            }
        }
        self.change_task(id, |task| {
            task.node = Some(node);
            task.stuck = None;
            // From now on only the node can say that nothing of the task is left.
            task.released = false;
        });
        self.set_task_state(id, TaskState::Assigned, "assigned to a node");
        Ok(Applied::of(id))
    }

    pub(super) fn explain(
        &mut self,
        id: TaskId,
        stuck: Option<&Stuck>,
    ) -> Result<Applied, Rejected> {
        self.task(id).ok_or_else(|| not_found("task", id))?;
        self.change_task(id, |task| task.stuck = stuck.cloned());
        Ok(Applied::of(id))
    }

    pub(super) fn stop(&mut self, id: TaskId, desired: Desired) -> Result<Applied, Rejected> {
        let task = self.task(id).ok_or_else(|| not_found("task", id))?;
        let unborn = task.node.is_none() && !task.status.state.is_final();
        if desired > task.desired {
            self.change_task(id, |task| {
                task.desired = desired;
                task.stuck = None;
            });
        }
        if unborn {
            self.set_task_state(id, TaskState::Shutdown, "ended before it had a node");
            self.release(id);
        }
        Ok(Applied::of(id))
    }

    /// Reports of a worker are taken for its own tasks only; what is old or foreign is passed over,
    /// for a worker may repeat itself.
    pub(super) fn report(
        &mut self,
        node: NodeId,
        reports: &[TaskReport],
    ) -> Result<Applied, Rejected> {
        self.node(node).ok_or_else(|| not_found("node", node))?;
        for report in reports {
            let own = self.task(report.task).filter(|task| task.node == Some(node));
            let Some(task) = own else { continue };
            if report.state > task.status.state && report.state > TaskState::Assigned {
                let now = self.now;
                self.change_task(report.task, |task| {
                    if report.state == TaskState::Running {
                        task.ran_since = Some(now);
                    }
                    task.status = TaskStatus {
                        state: report.state,
                        since: now,
                        message: report.message.chars().take(MESSAGE_MAX).collect(),
                        error: report.error.chars().take(MESSAGE_MAX).collect(),
                        exit_code: report.exit_code,
                        pid: report.pid,
                        unhealthy: report.unhealthy,
                    };
                });
            } else if report.unhealthy && !task.status.unhealthy && !task.status.state.is_final() {
                self.change_task(report.task, |task| task.status.unhealthy = true);
            }
            if report.released && report.state.is_final() {
                self.release(report.task);
            }
        }
        Ok(Applied::of(node))
    }

    pub(super) fn forget(&mut self, id: TaskId) -> Result<Applied, Rejected> {
        let task = self.task(id).ok_or_else(|| not_found("task", id))?;
        if !task.status.state.is_final() || !task.released {
            return Err(out_of_turn(task, "forgotten"));
        }
        self.tasks.remove_mut(&id);
        Ok(Applied::of(id))
    }

    /// Frees what the task holds: nothing of it is left on any node.
    pub(super) fn release(&mut self, id: TaskId) {
        let Some(task) = self.task(id).cloned() else { return };
        for attachment in &task.attachments {
            if let Some(found) = self.attachment(*attachment).cloned() {
                self.attachments.remove_mut(attachment);
                self.rest_addresses(found.network, &found.addresses);
            }
        }
        if !task.released || !task.attachments.is_empty() {
            self.change_task(id, |task| {
                task.released = true;
                task.attachments.clear();
            });
        }
    }

    fn set_task_state(&mut self, id: TaskId, state: TaskState, message: &str) {
        let now = self.now;
        self.change_task(id, |task| {
            task.status.state = state;
            task.status.since = now;
            task.status.message = message.to_owned();
        });
    }

    pub(super) fn change_task(&mut self, id: TaskId, change: impl FnOnce(&mut Task)) {
        if let Some(found) = self.task(id) {
            let mut task = Task::clone(found);
            change(&mut task);
            task.meta.touch(self.now);
            self.tasks.insert_mut(id, Arc::new(task));
        }
    }
}

fn out_of_turn(task: &Task, what: &str) -> Rejected {
    Rejected::Forbidden {
        what: format!("task {} cannot be {what}", task.name()),
        why: format!("it is {} and wanted {:?}", task.status.state, task.desired),
        hint: String::new(),
    }
}
