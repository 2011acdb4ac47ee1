//! What this node was asked to attach, on its disk: written before the managers are asked, so that a
//! crash between any two steps ends in an attachment or in nothing.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use weft_model::AttachmentId;

use super::netns::{Identity, WayOut};

/// The file with all of them; written whole to a second file and renamed.
const FILE: &str = "attachments.json";
/// Most namespaces of others on one node: a bridge takes 1,024 ports, tasks' included.
pub const INTENTS_MAX: usize = 1_000;

/// How far an attachment has come, as far as this node is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The managers are being asked, and may know of it or not.
    Asking,
    /// They know of it.
    Attached,
    /// It is to go.
    Leaving,
}

/// One namespace that is to be on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Of the attachment; drawn here.
    pub id: AttachmentId,
    /// The caller's name for the write; empty if it gave none.
    pub request: String,
    /// What it is found by.
    pub name: String,
    /// Path of the namespace.
    pub netns: PathBuf,
    /// What that path led to.
    pub identity: Identity,
    /// Name of the interface inside.
    pub ifname: String,
    /// Whose its default routes are.
    pub way_out: WayOut,
    /// How far it has come.
    pub phase: Phase,
}

/// All of them, by the ID of their attachment.
pub type Intents = BTreeMap<AttachmentId, Intent>;

/// Why something was not written down.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep {path}: {source}")]
pub struct BookError {
    /// The file.
    pub path: PathBuf,
    /// What went wrong.
    pub source: io::Error,
}

/// The book. What it tells is on the disk.
#[derive(Debug)]
pub struct Book {
    path: PathBuf,
    intents: watch::Sender<Intents>,
    /// Held while the file is written, so that it never falls behind what is told.
    writing: std::sync::Mutex<()>,
}

impl Book {
    /// Opens the book in a directory that is there.
    ///
    /// # Errors
    /// When what is there cannot be read: to go on without it would take attachments for strangers.
    pub fn open(directory: &Path) -> Result<Self, BookError> {
        let path = directory.join(FILE);
        let intents = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Vec<Intent>>(&bytes).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        let intents = intents.map_err(|source| BookError { path: path.clone(), source })?;
        let by_id = intents.into_iter().map(|intent| (intent.id, intent)).collect();
        Ok(Self { path, intents: watch::Sender::new(by_id), writing: std::sync::Mutex::default() })
    }

    /// What is in it, and later changes.
    pub fn read(&self) -> watch::Receiver<Intents> {
        self.intents.subscribe()
    }

    /// One entry.
    pub fn get(&self, id: AttachmentId) -> Option<Intent> {
        self.intents.borrow().get(&id).cloned()
    }

    /// Changes the entries and writes them down before anybody sees them; what `change` answers with
    /// an error is not written. Waits for the disk.
    ///
    /// # Errors
    /// The answer, or when the disk refuses; the entries are then what they were.
    pub fn change<T, E: From<BookError>>(
        &self,
        change: impl FnOnce(&mut Intents) -> Result<T, E>,
    ) -> Result<T, E> {
        // The file is whole also if a holder of the lock panicked.
        let _writing = self.writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut next = self.intents.borrow().clone();
        let answer = change(&mut next)?;
        if next != *self.intents.borrow() {
            self.write(&next).map_err(|source| BookError { path: self.path.clone(), source })?;
            self.intents.send_replace(next);
        }
        Ok(answer)
    }

    /// Moves one entry on from a phase in which it is, or takes it out.
    pub fn advance(&self, id: AttachmentId, from: Phase, to: Option<Phase>) {
        let moved = self.change::<(), BookError>(|intents| {
            if let Some(intent) = intents.get_mut(&id).filter(|intent| intent.phase == from) {
                match to {
                    Some(to) => intent.phase = to,
                    None => {
                        intents.remove(&id);
                    }
                }
            }
            Ok(())
        });
        if let Err(error) = moved {
            tracing::error!(attachment = %id, %error, "not written down");
        }
    }

    fn write(&self, intents: &Intents) -> io::Result<()> {
        let all: Vec<&Intent> = intents.values().collect();
        let text = serde_json::to_vec_pretty(&all).map_err(io::Error::other)?;
        let next = self.path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(&text)?;
        file.sync_data()?;
        fs::rename(&next, &self.path)?;
        self.path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent(number: u8) -> Intent {
        let identity = serde_json::json!({ "device": 4, "inode": number, "boot": "b" });
        Intent {
            id: AttachmentId::from_bytes([number; 32]),
            request: String::new(),
            name: format!("a{number}"),
            netns: "/run/netns/a".into(),
            identity: serde_json::from_value(identity).unwrap(),
            ifname: "eth0".into(),
            way_out: WayOut::Ours,
            phase: Phase::Asking,
        }
    }

    #[test]
    fn what_is_told_is_on_the_disk_and_a_refusal_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let book = Book::open(directory.path()).unwrap();
        let (one, two) = (intent(1), intent(2));
        let put = |intents: &mut Intents| -> Result<(), BookError> {
            intents.insert(one.id, one.clone());
            intents.insert(two.id, two.clone());
            Ok(())
        };
        book.change(put).unwrap();
        let refused = book.change(|intents| {
            intents.clear();
            Err::<(), _>(BookError { path: PathBuf::new(), source: io::ErrorKind::Other.into() })
        });
        assert!(refused.is_err());
        book.advance(one.id, Phase::Asking, Some(Phase::Attached));
        book.advance(one.id, Phase::Asking, None);
        book.advance(two.id, Phase::Asking, None);
        let again = Book::open(directory.path()).unwrap();
        assert_eq!(*again.read().borrow(), *book.read().borrow());
        assert_eq!(again.get(one.id).unwrap().phase, Phase::Attached);
        assert_eq!(again.get(two.id), None);
        fs::write(directory.path().join(FILE), "{").unwrap();
        assert!(Book::open(directory.path()).is_err());
    }
}
