//! The health of the node's own containers, as those who look at them see it.

use std::sync::Arc;

use weft_model::{Container, object::HealthState};

use super::{driver::Driver, make};
use crate::health::{self, Checked, Health, Watching};

/// Begins to check a container that has just been started, if it has a health check.
pub(super) fn watch(driver: &Driver, container: &Container) -> Option<Watching> {
    let health = Health::unprobed(HealthState::Starting);
    let checked = Checked {
        runtime: Arc::clone(&driver.local.context.runtime),
        id: make::runtime_id(driver.id),
        health: health.clone(),
    };
    let cell = Arc::clone(&driver.cell);
    let see = move |seen: &Health| {
        cell.see(|live| {
            // None once it has ended.
            if let Some(health) = &mut live.health {
                health.clone_from(seen);
            }
        });
    };
    let watching = health::watch(checked, container.spec.container.health.as_ref(), see)?;
    driver.cell.see(|live| live.health = Some(health));
    Some(watching)
}
