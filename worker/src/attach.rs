//! Namespaces that somebody else owns, on networks of the cluster.
//!
//! An attachment is written down here ([`book`]) before the managers are asked ([`leader`]), comes
//! back in the assignments like any other, and is served by one [`driver`]; [`keeper`] takes the calls. Whatever step a
//! crash interrupts, the two ends meet again: what is written down and not assigned is dropped, what
//! is assigned and not written down is given back.

mod book;
mod driver;
mod ground;
mod keeper;
mod leader;
mod netns;

use std::{collections::BTreeMap, path::PathBuf};

use weft_model::{AttachmentId, object::Holder};

pub use book::{Book, BookError, INTENTS_MAX, Intent, Phase};
pub use ground::{Ground, Held, LiveGround};
pub use keeper::Keeper;
pub use leader::{Ask, Leader};
pub use netns::{Identity, NetnsError, WayOut};
pub(crate) use netns::{check_ifname, way_out};

use crate::{container::ContainerId, desired::LocalSandbox, plumbing::Plumbed, tasks};

/// What an administrator asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Path of the namespace.
    pub netns: PathBuf,
    /// Name or ID of the network.
    pub network: String,
    /// What it is to be found by; the short ID if empty.
    pub name: String,
    /// What else.
    pub aliases: Vec<String>,
    /// The service to answer for; none if empty.
    pub service: String,
    /// Addresses asked for.
    pub addresses: Vec<String>,
    /// Name of the interface inside.
    pub ifname: String,
    /// Names the write for retries; may be empty.
    pub request: String,
}

/// Why something was not attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The namespace is not taken.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// It is on a network already.
    #[error("{path} is attached already as {name}")]
    Twice { path: PathBuf, name: String },
    /// A retry found that the first call did not end well.
    #[error("attachment {name} is going away")]
    Going { name: String },
    /// A limit of this node.
    #[error("{INTENTS_MAX} namespaces are attached here, and no more may be")]
    Full,
    /// Nothing of that name is here.
    #[error("no such attachment on this node: {text}")]
    Unknown { text: String },
    /// Several are meant.
    #[error("attachment {text} is ambiguous: {}", names.join(", "))]
    Ambiguous { text: String, names: Vec<String> },
    /// The node's disk.
    #[error(transparent)]
    Book(#[from] BookError),
    /// The managers refuse, or are not there.
    #[error("{}", .0.message())]
    Managers(tonic::Status),
    /// The kernel does not come to carry it.
    #[error("the attachment was not ready in time: {reason}")]
    NotReady { reason: String },
    /// It goes on, but not now.
    #[error("attachment {name} is not gone yet: {reason}")]
    NotGone { name: String, reason: String },
}

/// The sandboxes of an earlier run: the first look at the kernel must know them.
pub async fn adopted(book: &Book, ground: &dyn Ground) -> BTreeMap<Holder, Plumbed> {
    let intents = book.read().borrow().clone();
    let mut adopted = BTreeMap::new();
    for intent in intents.values() {
        let there = ground.is_there(&intent.netns, &intent.identity);
        if !there || intent.phase == Phase::Asking {
            continue;
        }
        // Without its holder it gets another one, on another port.
        let held = ground.find(&hold_id(intent.id)).await.ok().flatten();
        let port = held.map(|dns| dns.port);
        adopted.insert(Holder::Foreign(intent.id), plumbed(intent, port));
    }
    adopted
}

fn plumbed(intent: &Intent, dns_port: Option<u16>) -> Plumbed {
    let local = LocalSandbox {
        netns: intent.netns.clone(),
        dns_port,
        attachments: vec![intent.id],
        ifname: Some(intent.ifname.clone()),
        default_gateway: intent.way_out == WayOut::Ours,
    };
    Plumbed { local, resolving: tasks::default_resolving() }
}

/// The holder of a namespace, in the words of the shim.
fn hold_id(id: AttachmentId) -> ContainerId {
    ContainerId::new(id.to_string()).expect("64 hex digits are an ID")
}
