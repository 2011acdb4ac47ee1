//! Why a command was refused. Whoever reads one of these must know what to do next.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A command that changed nothing, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejected {
    /// No object of that kind has this name or ID.
    #[error("no such {kind}: {name}")]
    NotFound {
        /// "network", "service", ...
        kind: String,
        /// As the caller named it.
        name: String,
    },
    /// Another object of that kind has the name.
    #[error("{kind} {name} already exists (ID {id})")]
    Exists {
        /// "network", "service", ...
        kind: String,
        /// The name both want.
        name: String,
        /// The one that has it.
        id: String,
    },
    /// A network has the name and the other kind of traffic between nodes, which never changes.
    #[error(
        "network {name} already exists (ID {id}) and is {}encrypted",
        if *encrypted { "" } else { "not " }
    )]
    OtherEncryption {
        /// The name both want.
        name: String,
        /// The one that has it.
        id: String,
        /// Whether that one is encrypted.
        encrypted: bool,
    },
    /// Another container of the node has the name.
    #[error("conflict: the container name \"/{name}\" is already in use by container {id}")]
    NameInUse {
        /// The name both want.
        name: String,
        /// The one that has it.
        id: String,
    },
    /// The object has changed since the caller looked.
    #[error("{kind} {name} has changed (version {found}, not {expected})")]
    Stale {
        /// "network", "service", ...
        kind: String,
        /// Name of the object.
        name: String,
        /// Version that the caller saw.
        expected: u64,
        /// Version that it has.
        found: u64,
    },
    /// The object is used by others.
    #[error("{kind} {name} is in use by {}", users.join(", "))]
    InUse {
        /// "network", "node", ...
        kind: String,
        /// Name of the object.
        name: String,
        /// Who uses it, by name.
        users: Vec<String>,
    },
    /// Two prefixes share addresses.
    #[error("subnet {subnet} overlaps {other} of {owner}")]
    Overlap {
        /// What was asked for.
        subnet: IpNet,
        /// What is there.
        other: IpNet,
        /// Whose it is.
        owner: String,
    },
    /// The address cannot be given.
    #[error("address {address} on network {network}: {reason}")]
    Address {
        /// The address.
        address: IpAddr,
        /// Name of the network.
        network: String,
        /// Why not.
        reason: String,
    },
    /// A pool has nothing left.
    #[error("{pool} is exhausted: {detail}")]
    Exhausted {
        /// What ran out.
        pool: String,
        /// How many of each use.
        detail: String,
        /// What to do.
        hint: String,
    },
    /// The state of things forbids it.
    #[error("{what}: {why}")]
    Forbidden {
        /// What was tried.
        what: String,
        /// Why it cannot be.
        why: String,
        /// What to do instead; may be empty.
        hint: String,
    },
    /// A field's value is not allowed.
    #[error("{0}")]
    Invalid(#[from] crate::spec::Invalid),
    /// A write of that name was another one.
    #[error("request id reused with a different request")]
    OtherRequest,
    /// The join token is not valid. One text for every reason that has to do with the secret.
    #[error("the join token is not valid for this cluster")]
    Token,
}

impl Rejected {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { kind, .. } => Some(format!("weft {kind} ls")),
            Self::Exists { .. } => Some("choose another name".to_owned()),
            Self::OtherEncryption { name, encrypted, .. } => {
                let option = if *encrypted { "encrypted=false" } else { "encrypted" };
                Some(format!(
                    "make another network: weft network create -d overlay -o {option} NEW; move each \
                     service: weft service update --network-add NEW --network-rm {name} SERVICE; \
                     then: weft network rm {name}"
                ))
            }
            Self::NameInUse { name, .. } => {
                Some(format!("choose another name, or remove that container: weft rm {name}"))
            }
            Self::Stale { .. } => Some("look at it again and retry".to_owned()),
            Self::InUse { kind, name, .. } => {
                Some(format!("remove its users first: weft {kind} inspect {name}"))
            }
            Self::Overlap { .. } => {
                Some("choose another --subnet, or leave it out to have one chosen".to_owned())
            }
            Self::Address { .. } => Some("leave the address out to have one chosen".to_owned()),
            Self::Exhausted { hint, .. } | Self::Forbidden { hint, .. } => {
                (!hint.is_empty()).then(|| hint.clone())
            }
            Self::Invalid(invalid) => invalid.hint.clone(),
            Self::OtherRequest => Some("give each request an id of its own".to_owned()),
            Self::Token => Some("on a manager: weft cluster join-token worker|manager".to_owned()),
        }
    }
}
