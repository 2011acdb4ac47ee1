//! Which container a word means. Pure.

use std::time::SystemTime;

use tonic::{Code, Status};
use weft_proto::convert::status::hinted;

use crate::{
    container::{Found, Phase},
    tasks::labels,
};

/// Names that an ambiguous word is answered with at most.
const NAMES_SHOWN: usize = 8;

/// What a container can be found by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub id: &'a str,
    /// `web.1.<task ID>`
    pub name: &'a str,
    /// `web.1`; empty if it is of no service.
    pub task: &'a str,
    pub life: Life,
    pub created: Option<SystemTime>,
}

/// Whether a container runs: of several with one task name, the one that does is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Running,
    Still,
}

impl<'a> Candidate<'a> {
    pub fn of(found: &'a Found) -> Self {
        let id = found.id.as_str();
        let config = found.config.as_ref();
        let task = config.and_then(|config| config.labels.get(labels::TASK_NAME));
        Self {
            id,
            name: config.map_or(id, |config| config.name.as_str()),
            task: task.map_or("", String::as_str),
            life: match found.status.phase {
                Phase::Running => Life::Running,
                Phase::Created | Phase::Starting | Phase::Exited(_) | Phase::Failed { .. } => {
                    Life::Still
                }
            },
            created: found.status.created,
        }
    }
}

/// Why no container was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Missed {
    #[error("no container was named")]
    Unnamed,
    #[error("no such container: {text}")]
    Unknown { text: String },
    #[error("{text:?} may be any of {count} containers: {shown}")]
    Ambiguous { text: String, count: usize, shown: String },
}

impl Missed {
    pub fn status(&self) -> Status {
        let (code, hint) = match self {
            Self::Unnamed => (Code::InvalidArgument, None),
            Self::Unknown { .. } => (Code::NotFound, Some("weft ps -a")),
            Self::Ambiguous { .. } => (Code::InvalidArgument, Some("weft ps -a --no-trunc")),
        };
        hinted(code, self.to_string(), hint)
    }
}

/// The place of the container that is meant: the whole name or ID before the task's name, and that
/// before the beginning of an ID.
pub(super) fn find(text: &str, all: &[Candidate<'_>]) -> Result<usize, Missed> {
    if text.is_empty() {
        return Err(Missed::Unnamed);
    }
    let places = |matches: &dyn Fn(&Candidate<'_>) -> bool| -> Vec<usize> {
        (0..all.len()).filter(|at| matches(&all[*at])).collect()
    };
    let whole = places(&|one| one.name == text || one.id == text);
    if !whole.is_empty() {
        return only(text, all, &whole);
    }
    let named = places(&|one| one.task == text);
    let running: Vec<usize> =
        named.iter().copied().filter(|at| all[*at].life == Life::Running).collect();
    if !running.is_empty() {
        return only(text, all, &running);
    }
    if let Some(newest) = named.into_iter().max_by_key(|at| all[*at].created) {
        return Ok(newest);
    }
    only(text, all, &places(&|one| one.id.starts_with(text)))
}

fn only(text: &str, all: &[Candidate<'_>], places: &[usize]) -> Result<usize, Missed> {
    match places {
        [] => Err(Missed::Unknown { text: text.to_owned() }),
        [one] => Ok(*one),
        several => {
            let mut names: Vec<&str> =
                several.iter().take(NAMES_SHOWN).map(|at| all[*at].name).collect();
            if several.len() > NAMES_SHOWN {
                names.push("...");
            }
            let shown = names.join(", ");
            Err(Missed::Ambiguous { text: text.to_owned(), count: several.len(), shown })
        }
    }
}

#[cfg(test)]
mod tests;
