//! What a service is made from.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{ContainerSpec, Invalid, check_label_count, check_name};
use crate::{constraint::Constraint, id::NetworkId};

/// Most replicas of one service: a mistyped number must not fill the log.
const REPLICAS_MAX: u32 = 10_000;
/// Most networks of one service.
const NETWORKS_MAX: usize = 64;
/// Most aliases on one network.
const ALIASES_MAX: usize = 64;
/// Time before a task is restarted, as in Docker.
const RESTART_DELAY: Duration = Duration::from_secs(5);
/// Longest delay of any kind.
const DELAY_MAX: Duration = Duration::from_secs(24 * 3600);

/// How many tasks, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// So many, anywhere.
    Replicated {
        /// How many.
        replicas: u32,
    },
    /// One on each node.
    Global,
}

/// How a service's name is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndpointMode {
    /// With a virtual address that balances over the tasks.
    #[default]
    Vip,
    /// With the addresses of all tasks.
    Dnsrr,
}

/// A network that the tasks of a service are on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkUse {
    /// The network.
    pub network: NetworkId,
    /// More names for the service there.
    pub aliases: Vec<String>,
}

/// Which ends are followed by a new start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartCondition {
    /// All.
    #[default]
    Any,
    /// Exit codes other than 0.
    OnFailure,
    /// None.
    None,
}

/// When a task that ended is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// Which ends count.
    pub condition: RestartCondition,
    /// From the end to the new start; doubles with each attempt in a row, up to a limit.
    pub delay: Duration,
    /// 0 is without end.
    pub max_attempts: u32,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self { condition: RestartCondition::Any, delay: RESTART_DELAY, max_attempts: 0 }
    }
}

/// Where tasks may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// All must hold.
    pub constraints: Vec<Constraint>,
    /// 0 is no limit.
    pub max_replicas_per_node: u32,
    /// Node labels whose values the tasks are spread over, the first counting most.
    pub spread: Vec<String>,
}

/// What comes first when a task is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateOrder {
    /// The old one ends before the new one starts.
    #[default]
    StopFirst,
    /// The new one runs before the old one ends.
    StartFirst,
}

/// What happens when a task made by an update fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureAction {
    /// The update stops.
    #[default]
    Pause,
    /// It goes on.
    Continue,
    /// The former spec comes back.
    Rollback,
}

/// How tasks are replaced when the spec changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateConfig {
    /// How many at once; 0 is all.
    pub parallelism: u32,
    /// Between one batch that runs and the next.
    pub delay: Duration,
    /// What comes first.
    pub order: UpdateOrder,
    /// What a failure does.
    pub failure_action: FailureAction,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Duration::ZERO,
            order: UpdateOrder::StopFirst,
            failure_action: FailureAction::Pause,
        }
    }
}

/// A user's words on a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Unique, without regard to case; a DNS label.
    pub name: String,
    /// Labels of the service.
    pub labels: BTreeMap<String, String>,
    /// What its tasks are made from.
    pub container: ContainerSpec,
    /// How many.
    pub mode: Mode,
    /// Where its tasks can be reached.
    pub networks: Vec<NetworkUse>,
    /// How its name is answered.
    pub endpoint_mode: EndpointMode,
    /// When tasks are replaced.
    pub restart: RestartPolicy,
    /// Where tasks may be.
    pub placement: Placement,
    /// How changes are rolled out.
    pub update: UpdateConfig,
    /// Raised to replace all tasks though nothing else has changed.
    pub force_update: u64,
}

impl ServiceSpec {
    /// A service of `replicas` tasks with Docker's defaults.
    pub fn replicated(name: &str, replicas: u32, container: ContainerSpec) -> Self {
        Self {
            name: name.to_owned(),
            labels: BTreeMap::new(),
            container,
            mode: Mode::Replicated { replicas },
            networks: Vec::new(),
            endpoint_mode: EndpointMode::Vip,
            restart: RestartPolicy::default(),
            placement: Placement::default(),
            update: UpdateConfig::default(),
            force_update: 0,
        }
    }

    /// Whether tasks made from `other` would be the same as those made from this.
    pub fn makes_same_tasks(&self, other: &Self) -> bool {
        self.container == other.container
            && self.networks == other.networks
            && self.placement == other.placement
            && self.force_update == other.force_update
    }

    /// Checks every field that can be checked without knowing the cluster.
    ///
    /// # Errors
    /// The first field that is not allowed.
    pub fn check(&self) -> Result<(), Invalid> {
        check_name("service name", &self.name)?;
        // `web.1` is a task's name, and `web.net` the service in a network.
        if self.name.contains('.') {
            return Err(Invalid::new("service name", &self.name, "may not contain a dot"));
        }
        check_label_count(&self.labels)?;
        self.container.check()?;
        if let Mode::Replicated { replicas } = self.mode
            && replicas > REPLICAS_MAX
        {
            return Err(Invalid::new("--replicas", replicas, format!("at most {REPLICAS_MAX}")));
        }
        for (field, delay) in
            [("--restart-delay", self.restart.delay), ("--update-delay", self.update.delay)]
        {
            if delay > DELAY_MAX {
                return Err(Invalid::new(field, format!("{} s", delay.as_secs()), "at most 24h"));
            }
        }
        self.check_networks()
    }

    fn check_networks(&self) -> Result<(), Invalid> {
        if self.networks.len() > NETWORKS_MAX {
            let reason = format!("at most {NETWORKS_MAX} networks");
            return Err(Invalid::new("--network", self.networks.len(), reason));
        }
        for (index, usage) in self.networks.iter().enumerate() {
            if self.networks[..index].iter().any(|other| other.network == usage.network) {
                let id = usage.network.short();
                return Err(Invalid::new("--network", id, "is given twice"));
            }
            if usage.aliases.len() > ALIASES_MAX {
                let reason = format!("at most {ALIASES_MAX} aliases");
                return Err(Invalid::new("--network alias", usage.aliases.len(), reason));
            }
            for alias in &usage.aliases {
                check_name("--network alias", alias)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_are_named() {
        let good = || ServiceSpec::replicated("web", 3, ContainerSpec::new("rootfs:/x", &["sh"]));
        assert_eq!(good().check(), Ok(()));
        let network = NetworkId::from_bytes([1; 32]);
        let usage = NetworkUse { network, aliases: vec!["a b".into()] };
        type Spoil = Box<dyn Fn(&mut ServiceSpec)>;
        let cases: Vec<(&str, Spoil)> = vec![
            ("service name", Box::new(|s| s.name = "a.b".into())),
            ("service name", Box::new(|s| s.name = String::new())),
            ("--replicas", Box::new(|s| s.mode = Mode::Replicated { replicas: 10_001 })),
            ("--restart-delay", Box::new(|s| s.restart.delay = Duration::from_secs(86_401))),
            ("--network alias", Box::new(move |s| s.networks.push(usage.clone()))),
            (
                "--network",
                Box::new(move |s| {
                    s.networks = vec![NetworkUse { network, aliases: vec![] }; 2];
                }),
            ),
        ];
        for (field, spoil) in cases {
            let mut spec = good();
            spoil(&mut spec);
            assert_eq!(spec.check().unwrap_err().field, field);
        }
    }
}
