//! The node's certificate, renewed while it is in force.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use tonic::Status;
use weft_manager::{ca::sign_own, manager::Manager};
use weft_model::Time;
use weft_proto::{
    convert::status::is_not_member,
    tls::{HostPort, Identity, LiveIdentity, NodeKey, anonymous_channel, channel, renew_at, store},
    v1::{
        RenewCertificateRequest, RenewCertificateResponse, RenewExpiredCertificateRequest,
        join_service_client::JoinServiceClient,
    },
};

use super::{
    membership::Home,
    node::{Joined, Node},
};

/// Between tries, when no manager renews it.
const RETRY: Duration = Duration::from_secs(30);
/// How long a manager may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often the wall clock is looked at. Sleeping for the whole time would be wrong on a machine
/// that was suspended, or whose clock was set: the runtime's time stands still or goes on then.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// When the certificate in force ends.
pub fn expires(identity: &LiveIdentity) -> Time {
    let end = identity.subject().not_after.duration_since(SystemTime::UNIX_EPOCH);
    Time::default() + end.unwrap_or_default()
}

/// Renews the certificate at some time in the later half of its life, for ever.
pub async fn run(node: Arc<Node>, joined: Arc<Joined>) {
    let node_weak = Arc::downgrade(&node);
    drop(node);
    loop {
        due(&joined.identity).await;
        let Some(node) = node_weak.upgrade() else { return };
        if let Err(error) = renew(&node, &joined).await {
            tracing::warn!(error = format!("{error:#}"), "the certificate is not renewed yet");
            drop(node);
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Waits until the certificate in force is due, whichever that is by then.
async fn due(identity: &LiveIdentity) {
    let mut changes = identity.changes();
    loop {
        changes.mark_unchanged();
        let subject = identity.subject();
        let at = renew_at(subject.not_before, subject.not_after, rand::random_range(0.0..1.0));
        loop {
            let wait = at.duration_since(SystemTime::now()).unwrap_or_default();
            if wait.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(wait.min(LOOK_EVERY)) => {}
                // Renewed for another reason.
                _ = changes.changed() => break,
            }
        }
    }
}

/// Gets a certificate with the role that the cluster gives the node now. One that has expired is
/// shown as data, and its key proves whose it is; a manager signs its own then.
pub async fn renew(node: &Arc<Node>, joined: &Arc<Joined>) -> anyhow::Result<()> {
    let present = joined.identity.current();
    let expired = !present.subject().is_valid_at(SystemTime::now());
    if expired && let Some(manager) = node.manager() {
        match renew_own(node.home(), &manager, &joined.identity) {
            Ok(()) => return Ok(()),
            // It may have been removed or demoted; the others know.
            Err(error) => tracing::warn!(error = format!("{error:#}"), "not signed here"),
        }
    }
    let key = if expired { NodeKey::from_pem(&present.key_pem()) } else { NodeKey::generate() };
    let key = key.context("no key can be made")?;
    let csr = key.csr_der().context("no key can be made")?;
    let mut last = anyhow::anyhow!("no manager's address is known");
    for manager in node.known_managers() {
        let address: HostPort = manager.to_string().parse().context("a manager's address")?;
        let asked = ask(&joined.identity, &address, csr.clone(), expired);
        match tokio::time::timeout(DEADLINE, asked).await {
            Ok(Ok(response)) => return take(node, joined, &key, &response),
            Ok(Err(status)) => {
                if is_not_member(&status) {
                    node.worker().was_removed();
                }
                last = anyhow::anyhow!("manager {manager}: {}", status.message());
            }
            Err(_) => last = anyhow::anyhow!("manager {manager} does not answer"),
        }
    }
    Err(last)
}

/// Has a manager that starts with an expired certificate sign its own, before it has to show it:
/// if all managers were off for too long, there is nobody who could.
pub fn revive(home: &Home, manager: &Manager, identity: &LiveIdentity) {
    if identity.subject().is_valid_at(SystemTime::now()) {
        return;
    }
    if let Err(error) = renew_own(home, manager, identity) {
        tracing::warn!(error = format!("{error:#}"), "the expired certificate stays for now");
    }
}

fn renew_own(home: &Home, manager: &Manager, identity: &LiveIdentity) -> anyhow::Result<()> {
    let next = sign_own(&manager.view(), &identity.current(), SystemTime::now())?;
    keep(home, identity, next)?;
    tracing::info!("this manager's certificate had expired; it has signed the next one itself");
    Ok(())
}

async fn ask(
    identity: &LiveIdentity,
    address: &HostPort,
    csr: Vec<u8>,
    expired: bool,
) -> Result<RenewCertificateResponse, Status> {
    let response = if expired {
        let certificate = identity.current().certificate_der().to_vec();
        let mut client = JoinServiceClient::new(anonymous_channel(identity, address));
        client.renew_expired_certificate(RenewExpiredCertificateRequest { csr, certificate }).await
    } else {
        let mut client = JoinServiceClient::new(channel(identity, address));
        client.renew_certificate(RenewCertificateRequest { csr }).await
    };
    response.map(tonic::Response::into_inner)
}

fn take(
    node: &Node,
    joined: &Joined,
    key: &NodeKey,
    response: &RenewCertificateResponse,
) -> anyhow::Result<()> {
    let identity =
        Identity::from_pem(&response.certificate, &key.pem(), &response.root_certificate)
            .context("the new certificate cannot be used")?;
    keep(node.home(), &joined.identity, identity)
}

fn keep(home: &Home, live: &LiveIdentity, identity: Identity) -> anyhow::Result<()> {
    store::save(&home.identity(), &identity).context("the new certificate cannot be kept")?;
    live.replace(identity).context("the new certificate is another's")
}
