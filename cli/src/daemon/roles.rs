//! Worker to manager and back, as the cluster wants it.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use weft_model::spec::Role;

use super::{
    node::{Joined, Node},
    renewal,
};

/// Between tries to become what the cluster wants.
const RETRY: Duration = Duration::from_secs(1);
/// How long the others may take to put a demoted manager out of Raft before its store is closed.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(3);

/// Follows what the cluster wants this node to be, for as long as it is a member.
pub async fn run(node: Weak<Node>) {
    let Some(mut contact) = node.upgrade().map(|node| node.worker().contact()) else { return };
    loop {
        let wanted = contact.borrow_and_update().role;
        let Some(strong) = node.upgrade() else { return };
        let Some(joined) = strong.joined() else { return };
        let managers = contact.borrow().managers.clone();
        if !managers.is_empty()
            && let Err(error) = strong.remember(&joined, |member| member.managers = managers)
        {
            tracing::warn!(%error, "the managers' addresses are not kept");
        }
        let done = match wanted {
            Some(role) if role != joined.member().role => change(&strong, &joined, role).await,
            Some(_) | None => Ok(()),
        };
        drop(strong);
        match done {
            Ok(()) => {
                if contact.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the role cannot be changed yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn change(node: &Arc<Node>, joined: &Arc<Joined>, role: Role) -> anyhow::Result<()> {
    let _changing = node.changing.lock().await;
    match role {
        Role::Manager => {
            renewal::renew(node, joined).await?;
            // A store of an earlier time as manager has another number's promises in it.
            node.home().erase_raft()?;
            let manager = node.open_manager(&joined.member(), &joined.identity).await?;
            node.remember(joined, |member| member.role = Role::Manager)?;
            node.set_manager(Some(manager));
            tracing::info!("this node is a manager now");
        }
        Role::Worker => {
            if let Some(manager) = node.manager() {
                let number = joined.member().number;
                let mut watch = manager.store().watch();
                let removed = async {
                    while manager.store().voters().iter().any(|voter| voter.number == number) {
                        if watch.changed().await.is_err() {
                            return;
                        }
                    }
                };
                // The others go on without its consent if they have to.
                let _ = tokio::time::timeout(REMOVAL_DEADLINE, removed).await;
                node.set_manager(None);
                manager.shutdown().await;
            }
            node.remember(joined, |member| member.role = Role::Worker)?;
            node.home().erase_raft()?;
            renewal::renew(node, joined).await?;
            tracing::info!("this node is a worker now");
        }
    }
    Ok(())
}
