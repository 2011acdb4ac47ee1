//! A node that was removed from its cluster lets go of all that came of it, and says so.
//!
//! Its addresses stay held until it has: they are given to others then. It stays a member in its own
//! eyes, so that its user sees what has happened, until `cluster leave`.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use weft_proto::{
    convert::status::is_not_member,
    tls::{self, HostPort},
    v1::{LeaveClusterRequest, dispatcher_service_client::DispatcherServiceClient},
};

use super::node::{Joined, Node};

/// Between tries to tell it.
const RETRY: Duration = Duration::from_secs(2);
/// How long a manager may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Waits until the managers have said that the node is no member, for as long as it is one.
pub async fn run(node: Weak<Node>, joined: Arc<Joined>) {
    let Some(mut contact) = node.upgrade().map(|node| node.worker().contact()) else { return };
    loop {
        if contact.wait_for(|contact| contact.removed).await.is_err() {
            return;
        }
        let Some(node) = node.upgrade() else { return };
        tracing::error!("this node was removed from its cluster: what it ran there ends");
        while !node.worker().clear().await || !tell(&node, &joined).await {
            tokio::time::sleep(RETRY).await;
        }
        drop(node);
        // Only a manager that takes it in again changes that.
        if contact.wait_for(|contact| !contact.removed).await.is_err() {
            return;
        }
    }
}

/// Says that nothing is left here; true when a manager has heard it, or holds nothing for it.
async fn tell(node: &Node, joined: &Joined) -> bool {
    for manager in node.known_managers() {
        let Ok(address) = manager.to_string().parse::<HostPort>() else { continue };
        let mut client = DispatcherServiceClient::new(tls::channel(&joined.identity, &address));
        let told = client.leave(LeaveClusterRequest { force: false });
        match tokio::time::timeout(DEADLINE, told).await {
            Ok(Ok(_)) => return true,
            Ok(Err(status)) if is_not_member(&status) => return true,
            Ok(Err(status)) => tracing::warn!(%manager, error = status.message(), "not told"),
            Err(_) => tracing::warn!(%manager, "not told in time"),
        }
    }
    false
}
