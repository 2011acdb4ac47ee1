//! How a manager whose certificate has expired signs the next one itself.
//!
//! After all machines of a cluster were off for longer than certificates live, no manager has one
//! that the others believe, so there is nobody to ask. But every manager holds the authority's key in
//! its replicated state, and that state says who is a member.
//!
//! What it signs is dated back to the last entry of the log that it has applied. The gate believes a
//! certificate of somebody who is not in the state only if it is newer than the state; one that is
//! made from a state in which its holder still was a manager is older than the entry that removed it,
//! and so it is refused by everybody who has that entry.

use std::time::SystemTime;

use thiserror::Error;
use weft_model::{State, spec::Role};
use weft_proto::tls::{Identity, IssuedError, Peer, issued_by};

use super::{Authority, AuthorityError, Subject, authority::IdentityIssueError};
use crate::clock::system_time;

/// Why a manager may not, or cannot, sign for itself.
#[derive(Debug, Error)]
pub enum OwnError {
    /// The state is empty: this manager has not yet been let in by the others.
    #[error("the replicated state has no cluster yet")]
    NoCluster,
    /// The expired certificate is not of the cluster in the state.
    #[error("the expired certificate is not of this cluster")]
    Certificate(#[from] IssuedError),
    /// The node was removed or demoted, as far as its own state knows.
    #[error("node {node} is not a manager of this cluster")]
    NotManager {
        /// Its ID, as the certificate has it.
        node: String,
    },
    /// The authority in the state cannot be used.
    #[error("the cluster's authority cannot be used")]
    Authority(#[from] AuthorityError),
    /// It was not signed.
    #[error("the certificate was not signed")]
    Issue(#[from] IdentityIssueError),
}

/// The next identity of the manager that has `expired`, if `state` says that its node still is one.
///
/// # Errors
/// [`OwnError`].
pub fn sign_own(state: &State, expired: &Identity, now: SystemTime) -> Result<Identity, OwnError> {
    let cluster = state.cluster().ok_or(OwnError::NoCluster)?;
    let peer = issued_by(&cluster.root_certificate, expired.certificate_der())?;
    if !is_manager(state, &peer) {
        return Err(OwnError::NotManager { node: peer.node_id });
    }
    let authority = Authority::from_pem(&cluster.root_certificate, &cluster.root_key)?;
    let subject = Subject { role: Role::Manager.into(), node_id: peer.node_id };
    let dated = system_time(state.now()).min(now);
    let age = now.duration_since(dated).unwrap_or_default();
    Ok(authority.issue_identity(&subject, cluster.spec.certificate_expiry + age, dated)?)
}

fn is_manager(state: &State, peer: &Peer) -> bool {
    let member = peer.node_id.parse().ok().and_then(|id| state.node(id));
    member.is_some_and(|node| node.spec.role == Role::Manager)
}
