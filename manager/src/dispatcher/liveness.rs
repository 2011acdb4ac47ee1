//! Who is heard of: a pure function of the state, of when each node was last heard, and of the time.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use weft_model::{Command, Node, NodeId, State, object::NodeState};

/// The memory of one leader.
#[derive(Clone, Debug)]
pub struct Liveness {
    silent: Duration,
    down: Duration,
    /// Since when this leader has known each node: silence counts from then on, so that a new
    /// leader gives everybody the full time.
    known: BTreeMap<NodeId, Instant>,
}

/// What is to be noted, and when to look again though nothing has happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Changes of nodes' states.
    pub commands: Vec<Command>,
    /// The next moment at which somebody's silence becomes too long.
    pub wake_at: Option<Instant>,
}

impl Liveness {
    /// Of a leader that begins now: a node is silent after `silent` and down after `down`.
    pub fn new(silent: Duration, down: Duration) -> Self {
        Self { silent, down, known: BTreeMap::new() }
    }

    /// Judges every node.
    pub fn step(
        &mut self,
        state: &State,
        heard: &BTreeMap<NodeId, Instant>,
        now: Instant,
    ) -> Verdict {
        self.known.retain(|node, _| state.node(*node).is_some());
        let mut verdict = Verdict::default();
        for node in state.nodes() {
            let known = *self.known.entry(node.id).or_insert(now);
            let heard = heard.get(&node.id).copied();
            let (wanted, until) = self.judge(node, known, heard, now);
            if let Some((state, message)) = wanted.filter(|(state, _)| *state != node.state) {
                let id = node.id;
                verdict.commands.push(Command::SetNodeState { id, state, message });
            }
            verdict.wake_at = verdict.wake_at.into_iter().chain(until).min();
        }
        verdict
    }

    /// The state a node should have, if that can be said, and until when the judgement holds.
    fn judge(
        &self,
        node: &Node,
        known: Instant,
        heard: Option<Instant>,
        now: Instant,
    ) -> (Option<(NodeState, String)>, Option<Instant>) {
        if let Some(heard) = heard.filter(|heard| now.duration_since(*heard) < self.silent) {
            let ready = (NodeState::Ready, "in touch".to_owned());
            return (Some(ready), Some(heard + self.silent));
        }
        let last = heard.map_or(known, |heard| heard.max(known));
        let away = now.duration_since(last);
        let words = |limit: Duration| format!("no heartbeat for {} s", limit.as_secs_f32());
        if away >= self.down {
            return (Some((NodeState::Down, words(self.down))), None);
        }
        let until = Some(last + if away >= self.silent { self.down } else { self.silent });
        let silent = match node.state {
            NodeState::Unknown | NodeState::Ready => away >= self.silent,
            // Only a heartbeat brings a node back.
            NodeState::Silent | NodeState::Down => false,
        };
        (silent.then(|| (NodeState::Silent, words(self.silent))), until)
    }
}
