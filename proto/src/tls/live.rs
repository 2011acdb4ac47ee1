//! The identity in use, which can be swapped while connections are open.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use thiserror::Error;
use tokio::sync::watch;

use super::identity::Identity;
use super::peer::Peer;
use super::verify::Trust;

/// The identity that the next handshake uses. Clones share it.
#[derive(Clone)]
pub struct LiveIdentity(Arc<Inner>);

struct Inner {
    current: ArcSwap<Identity>,
    changed: watch::Sender<()>,
    clock: Arc<dyn TimeProvider>,
}

/// A new identity is not one of the same node.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "identity of node {found_node} in cluster {found_cluster} cannot replace that of {node} in {cluster}"
)]
pub struct OtherNode {
    /// The node that runs.
    pub node: String,
    /// The cluster it is in.
    pub cluster: String,
    /// The node of the refused identity.
    pub found_node: String,
    /// The cluster of the refused identity.
    pub found_cluster: String,
}

impl LiveIdentity {
    /// Uses the system's clock to judge certificates.
    pub fn new(identity: Identity) -> Self {
        Self::with_clock(identity, Arc::new(DefaultTimeProvider))
    }

    /// Judges certificates by `clock`, in all configurations made from this identity.
    pub fn with_clock(identity: Identity, clock: Arc<dyn TimeProvider>) -> Self {
        let (changed, _) = watch::channel(());
        Self(Arc::new(Inner { current: ArcSwap::from_pointee(identity), changed, clock }))
    }

    /// The identity as it is now.
    pub fn current(&self) -> Identity {
        Identity::clone(&self.0.current.load())
    }

    /// Who we are now.
    pub fn subject(&self) -> Peer {
        self.0.current.load().subject().clone()
    }

    /// Makes the next handshake, on either side, use `identity`. Open connections go on with the
    /// old one.
    ///
    /// The role may change (promotion, demotion); node and cluster may not.
    pub fn replace(&self, identity: Identity) -> Result<(), OtherNode> {
        let (old, new) = (self.subject(), identity.subject());
        if (&old.node_id, &old.cluster_id) != (&new.node_id, &new.cluster_id) {
            return Err(OtherNode {
                node: old.node_id,
                cluster: old.cluster_id,
                found_node: new.node_id.clone(),
                found_cluster: new.cluster_id.clone(),
            });
        }
        self.0.current.store(Arc::new(identity));
        self.0.changed.send_replace(());
        Ok(())
    }

    /// Wakes after each [`LiveIdentity::replace`], for those who must redial or save.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    pub(super) fn clock(&self) -> Arc<dyn TimeProvider> {
        self.0.clock.clone()
    }

    pub(super) fn trust(&self) -> Trust {
        self.0.current.load().trust().clone()
    }
}

impl fmt::Debug for LiveIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LiveIdentity").field(&self.subject()).finish()
    }
}

impl ResolvesServerCert for LiveIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current.load().certified())
    }
}

impl ResolvesClientCert for LiveIdentity {
    fn resolve(
        &self,
        _root_hints: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current.load().certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
