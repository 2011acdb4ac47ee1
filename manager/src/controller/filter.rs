//! The conditions on the node of a task. Each can say, for the user, why it ruled nodes out.

use std::collections::BTreeMap;

use weft_model::{
    Node, Service, Task,
    object::{NodeState, Slot},
    spec::Availability,
};

/// Why a node cannot have a task; the words are what the user reads, behind the number of nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unfit {
    /// Not in touch.
    OutOfTouch,
    /// Not taking tasks.
    Unavailable(&'static str),
    /// A constraint, as the user wrote it.
    Constraint(String),
    /// Has as many as allowed.
    Replicas(u32),
    /// The task is bound to another one.
    NotItsNode,
}

/// Checks one node for one task. `held` is how many tasks of the service the node has.
pub(super) fn check(service: &Service, task: &Task, node: &Node, held: usize) -> Result<(), Unfit> {
    if let Slot::Node(bound) = task.slot
        && bound != node.id
    {
        return Err(Unfit::NotItsNode);
    }
    match node.spec.availability {
        Availability::Active => {}
        Availability::Pause => return Err(Unfit::Unavailable("paused")),
        Availability::Drain => return Err(Unfit::Unavailable("drained")),
    }
    match node.state {
        NodeState::Ready => {}
        NodeState::Unknown | NodeState::Silent | NodeState::Down => return Err(Unfit::OutOfTouch),
    }
    let placement = &service.spec.placement;
    if let Some(broken) = placement.constraints.iter().find(|c| !c.allows(node)) {
        return Err(Unfit::Constraint(broken.to_string()));
    }
    let most = placement.max_replicas_per_node;
    if most > 0 && held >= most as usize {
        return Err(Unfit::Replicas(most));
    }
    Ok(())
}

/// The reasons with their numbers of nodes: `no suitable node (2 nodes drained; 1 node out of
/// touch)`.
pub(super) fn explain(reasons: &BTreeMap<Unfit, usize>) -> String {
    let parts: Vec<_> = reasons
        .iter()
        .filter(|(unfit, _)| **unfit != Unfit::NotItsNode)
        .map(|(unfit, count)| {
            let nodes = if *count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
            match unfit {
                Unfit::OutOfTouch => format!("{nodes} out of touch"),
                Unfit::Unavailable(how) => format!("{nodes} {how}"),
                Unfit::Constraint(constraint) => {
                    format!("scheduling constraint {constraint} not satisfied on {nodes}")
                }
                Unfit::Replicas(most) => {
                    format!("max replicas per node ({most}) reached on {nodes}")
                }
                Unfit::NotItsNode => String::new(),
            }
        })
        .collect();
    if parts.is_empty() {
        "no suitable node (there are no nodes)".to_owned()
    } else {
        format!("no suitable node ({})", parts.join("; "))
    }
}

/// What the user can do about the first of the reasons.
pub(super) fn hint(reasons: &BTreeMap<Unfit, usize>) -> &'static str {
    let can_help = |unfit: &&Unfit| **unfit != Unfit::NotItsNode;
    match reasons.keys().find(can_help) {
        Some(Unfit::OutOfTouch) => "weft node ls: start the daemon on nodes that are down",
        Some(Unfit::Unavailable(_)) => "weft node update --availability active NODE",
        Some(Unfit::Constraint(_)) => "weft node update --label-add KEY=VALUE NODE",
        Some(Unfit::Replicas(_)) => "scale down, add nodes, or raise --replicas-max-per-node",
        Some(Unfit::NotItsNode) | None => "add a node: weft cluster join-token worker",
    }
}
