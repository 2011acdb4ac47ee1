//! Nodes: joining, describing, and leaving.

use std::sync::Arc;

use super::{State, expect_version, not_found};
use crate::{
    command::{Applied, Force, NewNode},
    id::{NodeId, TaskId},
    object::{Meta, Node, NodeDescription, NodeState, RemovedNode, Secret},
    rejected::Rejected,
    spec::{NodeSpec, Role, check_label_count},
    task_state::TaskState,
};

impl State {
    pub(super) fn add_node(&mut self, node: &NewNode, secret: Secret) -> Result<Applied, Rejected> {
        let role = self.role_of_token(&secret)?;
        if role != node.spec.role {
            return Err(Rejected::Token);
        }
        self.use_token(&secret)?;
        self.insert_node(node)
    }

    pub(super) fn insert_node(&mut self, new: &NewNode) -> Result<Applied, Rejected> {
        if self.nodes.contains_key(&new.id) || self.removed.contains_key(&new.id) {
            let id = new.id.to_string();
            return Err(Rejected::Exists { kind: "node".to_owned(), name: id.clone(), id });
        }
        self.put_out_departed(&new.description);
        self.check_addresses(new.id, &new.description)?;
        let number = self.has_cluster()?.next_number;
        self.change_cluster(|cluster| cluster.next_number += 1)?;
        let node = Node {
            id: new.id,
            meta: Meta::new(self.now),
            number,
            spec: new.spec.clone(),
            description: new.description.clone(),
            state: NodeState::Unknown,
            since: self.now,
            message: "has not yet spoken".to_owned(),
            left: false,
            raft_incarnation: None,
            tunnel: None,
        };
        self.nodes.insert_mut(new.id, Arc::new(node));
        Ok(Applied::of(new.id))
    }

    /// Two members with one VTEP would get each other's frames.
    fn check_addresses(&self, id: NodeId, new: &NodeDescription) -> Result<(), Rejected> {
        let other = self.nodes().find(|node| {
            node.id != id
                && (node.description.data_path == new.data_path
                    || node.description.address == new.address)
        });
        other.map_or(Ok(()), |other| {
            Err(Rejected::Forbidden {
                what: format!("node {} cannot use address {}", new.hostname, new.data_path),
                why: format!("node {} ({}) has it", other.description.hostname, other.id.short()),
                hint: format!(
                    "if that node is gone: weft node rm --force {}; else give another \
                     --advertise-addr or --data-path-addr",
                    other.id.short()
                ),
            })
        })
    }

    pub(super) fn update_node(
        &mut self,
        id: NodeId,
        expect: Option<u64>,
        spec: &NodeSpec,
    ) -> Result<Applied, Rejected> {
        let node = self.node(id).ok_or_else(|| not_found("node", id))?;
        expect_version("node", &node.description.hostname, expect, node.meta.version)?;
        check_label_count(&spec.labels)?;
        let demoted = node.spec.role == Role::Manager && spec.role == Role::Worker;
        if demoted && self.managers() == 1 {
            return Err(last_manager("demoted", &node.description.hostname));
        }
        if demoted {
            self.keeps_quorum_without(node)?;
        }
        self.change_node(id, |node| {
            node.spec = spec.clone();
            // The store of a manager that was demoted is gone; a new one has a new incarnation.
            if demoted {
                node.raft_incarnation = None;
            }
        })
    }

    /// The managers that stay must be able to agree without those of them that are away.
    fn keeps_quorum_without(&self, leaving: &Node) -> Result<(), Rejected> {
        let staying =
            || self.nodes().filter(|node| node.spec.role == Role::Manager && node.id != leaving.id);
        // One that has not spoken yet has given nobody reason to miss it.
        let missed = |state| matches!(state, NodeState::Silent | NodeState::Down);
        let away: Vec<_> = staying().filter(|node| missed(node.state)).collect();
        let (all, present) = (staying().count(), staying().count() - away.len());
        if present > all / 2 {
            return Ok(());
        }
        let names: Vec<_> = away.iter().map(|node| node.description.hostname.as_str()).collect();
        Err(Rejected::Forbidden {
            what: format!("node {} cannot be demoted", leaving.description.hostname),
            why: format!(
                "of the {all} managers that stay only {present} would be in touch: {} is not",
                names.join(", ")
            ),
            hint: format!(
                "start the daemon there again; or demote that one first: weft node demote {}",
                names.first().unwrap_or(&"NODE")
            ),
        })
    }

    pub(super) fn describe_node(
        &mut self,
        id: NodeId,
        description: &NodeDescription,
        raft_incarnation: Option<&str>,
    ) -> Result<Applied, Rejected> {
        let node = self.node(id).ok_or_else(|| not_found("node", id))?;
        self.check_addresses(id, description)?;
        if let (Some(known), Some(shown)) = (node.raft_incarnation.as_deref(), raft_incarnation)
            && known != shown
        {
            return Err(Rejected::Forbidden {
                what: format!("manager {} is refused", node.description.hostname),
                why: "its Raft store is not the one it had: wiped, rolled back or copied"
                    .to_owned(),
                hint: "demote it and promote it again, or remove it and join anew".to_owned(),
            });
        }
        let same = node.description == *description
            && (raft_incarnation.is_none() || node.raft_incarnation.as_deref() == raft_incarnation);
        if same {
            return Ok(Applied::of(id));
        }
        self.change_node(id, |node| {
            node.description = description.clone();
            if let Some(incarnation) = raft_incarnation {
                node.raft_incarnation = Some(incarnation.to_owned());
            }
        })
    }

    pub(super) fn set_node_state(
        &mut self,
        id: NodeId,
        state: NodeState,
        message: &str,
    ) -> Result<Applied, Rejected> {
        let now = self.now;
        let node = self.node(id).ok_or_else(|| not_found("node", id))?;
        if node.state == state {
            return Ok(Applied::of(id));
        }
        self.change_node(id, |node| {
            node.state = state;
            node.since = now;
            node.message = message.to_owned();
            node.left = false;
        })
    }

    pub(super) fn remove_node(&mut self, id: NodeId, force: Force) -> Result<Applied, Rejected> {
        if force == Force::Yes && self.removed.contains_key(&id) {
            self.put_out(id);
            return Ok(Applied::of(id));
        }
        let node = self.node(id).ok_or_else(|| not_found("node", id))?;
        let name = node.description.hostname.clone();
        if node.spec.role == Role::Manager {
            if self.managers() == 1 {
                return Err(last_manager("removed", &name));
            }
            return Err(Rejected::Forbidden {
                what: format!("node {name} cannot be removed"),
                why: "it is a manager".to_owned(),
                hint: format!("weft node demote {name}"),
            });
        }
        if force == Force::No && node.state != NodeState::Down {
            return Err(Rejected::Forbidden {
                what: format!("node {name} cannot be removed"),
                why: format!("it is {}", node.state.word()),
                hint: format!("on that node: weft cluster leave; or weft node rm --force {name}"),
            });
        }
        if force == Force::Yes || node.left {
            self.put_out(id);
        } else {
            self.put_out_unseen(id);
        }
        Ok(Applied::of(id))
    }

    /// Nothing of the cluster is left on a node, as it says itself.
    pub(super) fn node_cleared(&mut self, id: NodeId) -> Result<Applied, Rejected> {
        if self.removed.contains_key(&id) {
            self.put_out(id);
            return Ok(Applied::of(id));
        }
        self.set_node_state(id, NodeState::Down, "left the cluster")?;
        self.change_node(id, |node| node.left = true)
    }

    /// Puts a node out of which nobody knows what still runs there: its addresses stay held.
    fn put_out_unseen(&mut self, id: NodeId) {
        let Some(node) = self.node(id).cloned() else { return };
        self.nodes.remove_mut(&id);
        let tasks: Vec<_> = self.tasks_on(id).map(|task| task.id).collect();
        tasks.into_iter().for_each(|task| self.orphan(task));
        if self.addresses_held_at(id) == 0 {
            return self.put_out(id);
        }
        let removed = RemovedNode {
            id,
            hostname: node.description.hostname.clone(),
            address: node.description.address,
            data_path: node.description.data_path,
            since: self.now,
        };
        self.removed.insert_mut(id, Arc::new(removed));
    }

    /// A machine that left, or was made anew, and joins again finds its former self down: that one
    /// is out, and what it held is free, for there is one machine at an address.
    fn put_out_departed(&mut self, new: &NodeDescription) {
        let departed: Vec<_> = self
            .nodes()
            .filter(|node| node.state == NodeState::Down && node.spec.role == Role::Worker)
            .filter(|node| node.description.data_path == new.data_path)
            .filter(|node| node.description.address == new.address)
            .map(|node| node.id)
            .collect();
        let removed: Vec<_> = self
            .removed_nodes()
            .filter(|node| node.data_path == new.data_path && node.address == new.address)
            .map(|node| node.id)
            .collect();
        departed.into_iter().chain(removed).for_each(|id| self.put_out(id));
    }

    fn put_out(&mut self, id: NodeId) {
        self.orphan_tasks(id);
        self.free_foreigners_of(id);
        self.nodes.remove_mut(&id);
        self.removed.remove_mut(&id);
    }

    /// The tasks of a node that is gone for good: whatever they held is free.
    fn orphan_tasks(&mut self, node: NodeId) {
        let tasks: Vec<_> = self.tasks_on(node).map(|task| task.id).collect();
        for id in tasks {
            self.release(id);
            self.orphan(id);
        }
    }

    fn orphan(&mut self, id: TaskId) {
        let now = self.now;
        self.change_task(id, |task| {
            if !task.status.state.is_final() {
                task.status.state = TaskState::Orphaned;
                task.status.since = now;
                task.status.message = "its node was removed".to_owned();
            }
        });
    }

    fn managers(&self) -> usize {
        self.nodes().filter(|node| node.spec.role == Role::Manager).count()
    }

    pub(super) fn change_node(
        &mut self,
        id: NodeId,
        change: impl FnOnce(&mut Node),
    ) -> Result<Applied, Rejected> {
        let mut node = Node::clone(self.node(id).ok_or_else(|| not_found("node", id))?);
        change(&mut node);
        node.meta.touch(self.now);
        self.nodes.insert_mut(id, Arc::new(node));
        Ok(Applied::of(id))
    }
}

fn last_manager(verb: &str, name: &str) -> Rejected {
    Rejected::Forbidden {
        what: format!("node {name} cannot be {verb}"),
        why: "it is the last manager".to_owned(),
        hint: "promote another node first: weft node promote NODE".to_owned(),
    }
}
