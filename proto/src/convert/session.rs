//! What a worker and its manager say to each other in the model's own terms, which the schema
//! carries as bytes: assignments one way, reports the other.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use weft_model::{Change, TunnelReport, command::TaskReport};

use crate::v1::session_response;

/// Bytes that are not what they should be.
#[derive(Debug, thiserror::Error)]
#[error("the {what} cannot be read")]
pub struct Unreadable {
    /// Which message.
    pub what: &'static str,
    /// What the decoder says.
    pub source: rmp_serde::decode::Error,
}

/// Assignments, or the differences to those sent before.
#[derive(Clone, Debug, PartialEq)]
pub struct AssignmentsUpdate {
    /// Whether these are all assignments, and what is not among them is gone.
    pub complete: bool,
    /// The revision these are differences to; 0 if they are complete.
    pub applies_to: u64,
    /// The revision they lead to.
    pub results_in: u64,
    /// What has changed, or all there is.
    pub changes: Vec<Change>,
}

impl AssignmentsUpdate {
    /// For the wire.
    pub fn to_wire(&self) -> session_response::Assignments {
        session_response::Assignments {
            complete: self.complete,
            applies_to: self.applies_to,
            results_in: self.results_in,
            changes: encode(&self.changes),
        }
    }

    /// From the wire.
    ///
    /// # Errors
    /// [`Unreadable`] when the bytes are not changes, as of another version.
    pub fn from_wire(wire: &session_response::Assignments) -> Result<Self, Unreadable> {
        Ok(Self {
            complete: wire.complete,
            applies_to: wire.applies_to,
            results_in: wire.results_in,
            changes: decode("assignments", &wire.changes)?,
        })
    }
}

/// What a worker saw of its tasks since its last reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reports {
    /// Counts the reports of one session, from 1; `reports_taken` names it back.
    pub number: u64,
    /// In the order of their observation.
    pub reports: Vec<TaskReport>,
}

impl Reports {
    /// For the wire.
    pub fn to_wire(&self) -> Vec<u8> {
        encode(self)
    }

    /// From the wire.
    ///
    /// # Errors
    /// [`Unreadable`] when the bytes are no reports.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, Unreadable> {
        decode("reports", bytes)
    }
}

/// What a node has for encrypted links, as bytes.
pub fn tunnel_to_wire(report: &TunnelReport) -> Vec<u8> {
    encode(report)
}

/// And back.
///
/// # Errors
/// [`Unreadable`] when the bytes are no such report.
pub fn tunnel_from_wire(bytes: &[u8]) -> Result<TunnelReport, Unreadable> {
    decode("tunnel report", bytes)
}

/// Fields go by name, so that a field more does no harm to an older reader.
fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("the model's types have no values that cannot be encoded")
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Unreadable> {
    rmp_serde::from_slice(bytes).map_err(|source| Unreadable { what, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::{
        NodeId, TaskId, TaskState,
        assignments::{Item, Key, NodeItem, TunnelItem},
        spec::Role,
    };

    #[test]
    fn both_ways_come_back_and_damage_is_noticed() {
        let node = NodeItem {
            id: NodeId::from_bytes([3; 32]),
            role: Role::Manager,
            data_path: "10.0.0.1".parse().unwrap(),
            number: 7,
            tunnel: Some(TunnelItem { generations: vec![2, 1] }),
        };
        let task = TaskId::from_bytes([1; 32]);
        let update = AssignmentsUpdate {
            complete: false,
            applies_to: 4,
            results_in: 9,
            changes: vec![Change::Set(Key::Node, Item::Node(node)), Change::Drop(Key::Task(task))],
        };
        assert_eq!(AssignmentsUpdate::from_wire(&update.to_wire()).unwrap(), update);
        let report = TaskReport {
            task,
            state: TaskState::Failed,
            message: "m".into(),
            error: "e".into(),
            exit_code: Some(-1),
            pid: 7,
            released: true,
            unhealthy: true,
        };
        let reports = Reports { number: 2, reports: vec![report] };
        let bytes = reports.to_wire();
        assert_eq!(Reports::from_wire(&bytes).unwrap(), reports);
        assert!(Reports::from_wire(&bytes[..bytes.len() - 1]).is_err());
    }
}
