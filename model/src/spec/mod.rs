//! Specs: the user's words, checked on the way in and never edited by the system.

mod container;
mod name;
mod network;
mod node;
mod option;
mod run;
mod security;
mod service;

pub use container::{Access, ContainerSpec, Health, HealthTest, Limits, Missing, Mount};
pub use name::{check_device, check_label_count, check_name, escape};
pub use network::{Driver, NetworkSpec, PoolSpec, Scope};
pub use node::{Availability, NodeSpec, Role};
pub use option::{IpvlanMode, MacvlanMode};
pub use run::{EndpointSpec, Link, NetworkMode, NotAWord, Protocol, PublishSpec, Restart, RunSpec};
pub use service::{
    EndpointMode, FailureAction, Mode, NetworkUse, Placement, RestartCondition, RestartPolicy,
    ServiceSpec, UpdateConfig, UpdateOrder,
};

use serde::{Deserialize, Serialize};

/// A field whose value is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("invalid {field} {value}: {reason}")]
pub struct Invalid {
    /// The field, in the user's words: "network name", "--subnet".
    pub field: String,
    /// The value, escaped and cut to [`Invalid::SHOWN`] characters, in quotes.
    pub value: String,
    /// What is wrong with it, and what is allowed.
    pub reason: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Invalid {
    /// Most characters of a bad value that an error repeats.
    pub const SHOWN: usize = 64;

    /// An error about `field`, which held `value`.
    pub fn new(field: &str, value: impl ToString, reason: impl Into<String>) -> Self {
        Self {
            field: field.to_owned(),
            value: escape(&value.to_string(), Self::SHOWN),
            reason: reason.into(),
            hint: None,
        }
    }

    /// The same error with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
