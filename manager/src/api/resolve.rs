//! Finding objects as users name them: by ID, by name, or by the beginning of an ID.

use std::sync::Arc;

use tonic::{Code, Status};
use weft_model::{
    Network, Node, NodeId, Rejected, Service, State, Task, object::RemovedNode, spec::escape,
};
use weft_proto::convert::status::{hinted, refused};

/// Most candidates that an error names.
const CANDIDATES_SHOWN: usize = 5;
/// Most characters of a wrong name that an error repeats.
pub(crate) const NAME_SHOWN: usize = 64;

/// What can be looked for.
struct Kind {
    word: &'static str,
}

/// One object as a candidate: its full ID and its names.
struct Candidate<'a, T> {
    id: String,
    names: Vec<String>,
    /// Whether it is preferred to others of the same name.
    live: bool,
    object: &'a Arc<T>,
}

/// A network by name, ID or unique beginning of an ID.
pub(crate) fn network(state: &State, text: &str) -> Result<Arc<Network>, Status> {
    let all = state.networks().map(|network| Candidate {
        id: network.id.to_string(),
        names: vec![network.spec.name.clone()],
        live: true,
        object: network,
    });
    find(&Kind { word: "network" }, text, all.collect())
}

/// A service by name, ID or unique beginning of an ID.
pub(crate) fn service(state: &State, text: &str) -> Result<Arc<Service>, Status> {
    let all = state.services().map(|service| Candidate {
        id: service.id.to_string(),
        names: vec![service.spec.name.clone()],
        live: true,
        object: service,
    });
    find(&Kind { word: "service" }, text, all.collect())
}

/// A node by host name, ID or unique beginning of an ID; `asked` is the one that "self" means.
pub(crate) fn node(state: &State, text: &str, asked: Option<NodeId>) -> Result<Arc<Node>, Status> {
    if let Some(own) = asked.filter(|_| text == "self").and_then(|own| state.node(own)) {
        return Ok(Arc::clone(own));
    }
    let all = state.nodes().map(|node| Candidate {
        id: node.id.to_string(),
        names: vec![node.description.hostname.clone()],
        live: true,
        object: node,
    });
    find(&Kind { word: "node" }, text, all.collect())
}

/// A node that was removed and still holds something, in the same ways.
pub(crate) fn removed_node(state: &State, text: &str) -> Result<Arc<RemovedNode>, Status> {
    let all = state.removed_nodes().map(|node| Candidate {
        id: node.id.to_string(),
        names: vec![node.hostname.clone()],
        live: true,
        object: node,
    });
    find(&Kind { word: "removed node" }, text, all.collect())
}

/// A task by name (`web.1`; the live one counts before those of the history), by container name, ID
/// or unique beginning of an ID.
pub(crate) fn task(state: &State, text: &str) -> Result<Arc<Task>, Status> {
    let all = state.tasks().map(|task| Candidate {
        id: task.id.to_string(),
        names: vec![task.name(), task.container_name()],
        live: task.is_live(),
        object: task,
    });
    find(&Kind { word: "task" }, text, all.collect())
}

fn find<T>(kind: &Kind, text: &str, all: Vec<Candidate<'_, T>>) -> Result<Arc<T>, Status> {
    let by_id = all.iter().find(|candidate| candidate.id.eq_ignore_ascii_case(text));
    if let Some(found) = by_id {
        return Ok(Arc::clone(found.object));
    }
    let named = |candidate: &&Candidate<'_, T>| {
        candidate.names.iter().any(|name| name.eq_ignore_ascii_case(text))
    };
    let by_name: Vec<_> = all.iter().filter(named).collect();
    let live: Vec<_> = by_name.iter().copied().filter(|candidate| candidate.live).collect();
    if let Some(found) = only(kind, text, if live.is_empty() { by_name } else { live })? {
        return Ok(found);
    }
    // The empty text begins every ID and means none.
    let lower = text.to_ascii_lowercase();
    let begins =
        |candidate: &&Candidate<'_, T>| !lower.is_empty() && candidate.id.starts_with(&lower);
    let by_prefix: Vec<_> = all.iter().filter(begins).collect();
    only(kind, text, by_prefix)?.ok_or_else(|| {
        let (kind, name) = (kind.word.to_owned(), shown(text));
        refused(&Rejected::NotFound { kind, name })
    })
}

/// The one candidate, none, or an error that names them all.
fn only<T>(
    kind: &Kind,
    text: &str,
    found: Vec<&Candidate<'_, T>>,
) -> Result<Option<Arc<T>>, Status> {
    match &found[..] {
        [] => Ok(None),
        [one] => Ok(Some(Arc::clone(one.object))),
        many => {
            let names = many.iter().take(CANDIDATES_SHOWN).map(|candidate| {
                let name = candidate.names.first().map_or("", String::as_str);
                format!("{name} ({})", &candidate.id[..weft_model::id::SHORT])
            });
            let mut names = names.collect::<Vec<_>>().join(", ");
            if many.len() > CANDIDATES_SHOWN {
                names += &format!(" and {} more", many.len() - CANDIDATES_SHOWN);
            }
            let message = format!("{} {} is ambiguous: {names}", kind.word, shown(text));
            Err(hinted(Code::InvalidArgument, message, Some("give more digits of the ID")))
        }
    }
}

/// The text as it was given if it is harmless, else escaped and cut.
fn shown(text: &str) -> String {
    let harmless = text.len() <= NAME_SHOWN && text.bytes().all(|byte| byte.is_ascii_graphic());
    if harmless && !text.is_empty() { text.to_owned() } else { escape(text, NAME_SHOWN) }
}
