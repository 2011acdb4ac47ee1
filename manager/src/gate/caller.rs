//! Who calls: what the connection proves, and what the state makes of it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tonic::{Code, Status};
use weft_model::{NodeId, State, Time, spec::Role};
use weft_proto::{
    convert::status::{hinted, not_member},
    tls::{self, ConnectionInfo, Peer, UnixConnected},
};

use crate::{ca::authority::BACKDATE, clock::model_time};

/// What the connection of a call proves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credential {
    /// The kernel let the caller open the unix socket, which is the right of administrators.
    Local,
    /// A certificate that the cluster's root signed and that has not expired.
    Certificate {
        /// What it allows.
        holder: Holder,
        /// Node ID, or the name of a client.
        name: String,
        /// The cluster it is of.
        cluster: String,
        /// When it was signed, in whole seconds.
        issued: Time,
        /// The serial number, in lower-case hexadecimal. A manager of before says none.
        #[serde(default)]
        serial: String,
    },
    /// Nothing.
    Nothing,
}

/// What a certificate allows its holder to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holder {
    /// A node that is a manager.
    Manager,
    /// A node that is not.
    Worker,
    /// A program that calls the API.
    Client,
}

/// Where a call came from; every handler finds it in the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// What the caller has proved to the first manager.
    pub credential: Credential,
    /// Where it connected from; none over the unix socket.
    pub source: Option<IpAddr>,
    /// The node that was asked first: "self" means this one.
    pub asked: Option<NodeId>,
}

/// Who calls, as the state sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// An administrator of this node.
    Local,
    /// A node that is a manager by its certificate and by the state.
    Manager(NodeId),
    /// Any other member.
    Worker(NodeId),
    /// A node that was removed and still holds something.
    Removed(NodeId),
    /// A program with a client certificate.
    Client(String),
    /// Somebody without a certificate.
    Anonymous,
}

/// Why a caller is turned away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The method needs a certificate.
    #[error("this method needs a certificate of the cluster")]
    NoCertificate,
    /// The certificate is of another cluster.
    #[error("the certificate is of another cluster")]
    OtherCluster,
    /// The node was removed.
    #[error("node {node} is not a member of this cluster")]
    NotMember {
        /// Its ID, as the certificate has it.
        node: String,
    },
    /// The certificate of a client was revoked.
    #[error("the certificate of client {name} was revoked (serial {serial})")]
    Revoked {
        /// Whose it is.
        name: String,
        /// Its serial number.
        serial: String,
    },
    /// The caller is known and may not.
    #[error("a {caller} may not call {method}")]
    NotAllowed {
        /// Who.
        caller: &'static str,
        /// What.
        method: &'static str,
    },
}

impl Caller {
    /// In words.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Local => "local administrator",
            Self::Manager(_) => "manager",
            Self::Worker(_) => "worker",
            Self::Removed(_) => "removed node",
            Self::Client(_) => "client",
            Self::Anonymous => "caller without a certificate",
        }
    }

    /// The node that calls, if it is one.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Self::Manager(node) | Self::Worker(node) | Self::Removed(node) => Some(*node),
            Self::Local | Self::Client(_) | Self::Anonymous => None,
        }
    }
}

impl Credential {
    /// What the connection of this request has proved.
    pub(super) fn of(extensions: &http::Extensions) -> Self {
        if extensions.get::<UnixConnected>().is_some() {
            return Self::Local;
        }
        let info = extensions.get::<ConnectionInfo>();
        info.and_then(|info| info.peer.as_ref()).map_or(Self::Nothing, Self::of_peer)
    }

    /// What a verified certificate proves.
    pub fn of_peer(peer: &Peer) -> Self {
        let holder = match peer.role {
            tls::Role::Manager => Holder::Manager,
            tls::Role::Worker => Holder::Worker,
            tls::Role::Client => Holder::Client,
        };
        Self::Certificate {
            holder,
            name: peer.node_id.clone(),
            cluster: peer.cluster_id.clone(),
            issued: model_time(peer.not_before + BACKDATE),
            serial: peer.serial.clone(),
        }
    }
}

/// What `credential` counts for. Without a state the certificate alone decides: on a node that is no
/// manager, and on a manager that has not yet been let in.
pub(super) fn judge(
    credential: &Credential,
    own_cluster: Option<&str>,
    state: Option<&State>,
) -> Result<Caller, Denied> {
    let (holder, name, cluster, issued, serial) = match credential {
        Credential::Local => return Ok(Caller::Local),
        Credential::Nothing => return Ok(Caller::Anonymous),
        Credential::Certificate { holder, name, cluster, issued, serial } => {
            (*holder, name, cluster, *issued, serial)
        }
    };
    if own_cluster.is_some_and(|own| own != cluster) {
        return Err(Denied::OtherCluster);
    }
    if holder == Holder::Client {
        let noted = state.and_then(|state| state.client(serial));
        return match noted.filter(|noted| noted.revoked.is_some()) {
            Some(_) => Err(Denied::Revoked { name: name.clone(), serial: serial.clone() }),
            None => Ok(Caller::Client(name.clone())),
        };
    }
    let not_member = || Denied::NotMember { node: name.clone() };
    let id: NodeId = name.parse().map_err(|_| not_member())?;
    let known = state.filter(|state| state.cluster().is_some());
    let role = match known {
        Some(state) => standing(state, id, holder, issued),
        None => Some(role_of(holder)),
    };
    match role {
        Some(Role::Manager) => Ok(Caller::Manager(id)),
        Some(Role::Worker) => Ok(Caller::Worker(id)),
        None if known.is_some_and(|state| state.removed_node(id).is_some()) => {
            Ok(Caller::Removed(id))
        }
        None => Err(not_member()),
    }
}

/// The role that a node's certificate counts for, or none if it is no member.
///
/// A manager's certificate counts for less once the state says worker. A state that is older than
/// the certificate is behind: the leader signed it for what the state will say.
fn standing(state: &State, id: NodeId, holder: Holder, issued: Time) -> Option<Role> {
    let certified = role_of(holder);
    match state.node(id) {
        Some(node) if certified == node.spec.role || issued > node.meta.updated => Some(certified),
        Some(_) => Some(Role::Worker),
        None => (issued > state.now()).then_some(certified),
    }
}

fn role_of(holder: Holder) -> Role {
    match holder {
        Holder::Manager => Role::Manager,
        Holder::Worker | Holder::Client => Role::Worker,
    }
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        let (code, hint) = match &denied {
            Denied::NoCertificate => {
                (Code::Unauthenticated, "use the unix socket, or weft cluster client-cert NAME")
            }
            Denied::OtherCluster => (Code::PermissionDenied, "this address is of another cluster"),
            Denied::NotMember { .. } => return not_member(denied.to_string()),
            Denied::Revoked { name, .. } => {
                let hint = format!("if it should be let in: weft cluster client-cert {name}");
                return hinted(Code::PermissionDenied, denied.to_string(), Some(&hint));
            }
            Denied::NotAllowed { .. } => (Code::PermissionDenied, ""),
        };
        hinted(code, denied.to_string(), Some(hint))
    }
}
