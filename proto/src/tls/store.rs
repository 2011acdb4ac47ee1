//! The identity on disk: one file in the node's state directory, replaced whole.
//!
//! Certificate, key and roots only make sense together, so they live in one file and one rename
//! switches all three: a crash between any two lines of [`save`] leaves the old identity or the new
//! one. The file is PEM throughout, so that `openssl x509 -in identity.pem` reads it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::identity::{Identity, IdentityError};

/// The file's name within the state directory.
pub const FILE: &str = "identity.pem";
/// Where the next identity is written before it takes the name above.
const NEXT: &str = "identity.pem.next";
/// The line between our own key and chain, and the roots we trust.
const ROOTS_MARK: &str = "# trusted roots\n";
/// Only root reads the key.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// Permission bits that nobody but the owner may have on the file.
const FOREIGN_BITS: u32 = 0o077;
/// Larger than a chain and any set of roots of ours; a larger file is not ours.
const MAX_BYTES: u64 = 256 * 1024;

/// Why the identity could not be loaded or saved.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than the owner can read or write the key.
    #[error("{} has mode {mode:o}, which lets others at the key; wanted is {FILE_MODE:o}", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not one that [`save`] wrote.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with its form.
        reason: &'static str,
    },
    /// The parts of the file do not make an identity.
    #[error("{} holds no usable identity", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with the parts.
        source: IdentityError,
    },
}

/// The points of [`save`] between which a crash may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    MakeDirectory,
    RemoveLeftover,
    Create,
    Write,
    SyncFile,
    Rename,
    SyncDirectory,
}

/// Replaces the identity in `directory` (made with mode 0700 if missing). On return it survives a
/// loss of power.
pub fn save(directory: &Path, identity: &Identity) -> Result<(), StoreError> {
    save_stepwise(directory, identity, &mut |_| Ok(()))
}

/// [`save`], asking before each step; tests answer with an error, as a crash would.
fn save_stepwise(
    directory: &Path,
    identity: &Identity,
    before: &mut dyn FnMut(Step) -> io::Result<()>,
) -> Result<(), StoreError> {
    let (next, target) = (directory.join(NEXT), directory.join(FILE));
    before(Step::MakeDirectory)
        .and_then(|()| make_directory(directory))
        .map_err(failed("make", directory))?;
    before(Step::RemoveLeftover).and_then(|()| remove(&next)).map_err(failed("remove", &next))?;
    let mut file =
        before(Step::Create).and_then(|()| create(&next)).map_err(failed("create", &next))?;
    before(Step::Write)
        .and_then(|()| file.write_all(encode(identity).as_bytes()))
        .map_err(failed("write", &next))?;
    before(Step::SyncFile).and_then(|()| file.sync_all()).map_err(failed("sync", &next))?;
    before(Step::Rename)
        .and_then(|()| fs::rename(&next, &target))
        .map_err(failed("rename", &next))?;
    before(Step::SyncDirectory)
        .and_then(|()| File::open(directory)?.sync_all())
        .map_err(failed("sync", directory))
}

/// Reads the identity back; `None` if there is none yet.
pub fn load(directory: &Path) -> Result<Option<Identity>, StoreError> {
    let path = directory.join(FILE);
    let Some(text) = read(&path)? else { return Ok(None) };
    let damaged = |reason| StoreError::Damaged { path: path.clone(), reason };
    let (own, roots) =
        text.split_once(ROOTS_MARK).ok_or_else(|| damaged("it has no trusted roots"))?;
    Identity::from_pem(own, own, roots)
        .map(Some)
        .map_err(|source| StoreError::Identity { path: path.clone(), source })
}

/// Forgets the identity, as leaving the cluster does. Without one it does nothing.
pub fn erase(directory: &Path) -> Result<(), StoreError> {
    for path in [directory.join(NEXT), directory.join(FILE)] {
        remove(&path).map_err(failed("remove", &path))?;
    }
    match File::open(directory) {
        Ok(opened) => opened.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
    .map_err(failed("sync", directory))
}

fn read(path: &Path) -> Result<Option<String>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let metadata = file.metadata().map_err(failed("read", path))?;
    if metadata.mode() & FOREIGN_BITS != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(StoreError::Exposed { path: path.to_owned(), mode });
    }
    if metadata.len() > MAX_BYTES {
        let reason = "it is larger than any identity";
        return Err(StoreError::Damaged { path: path.to_owned(), reason });
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(failed("read", path))?;
    Ok(Some(text))
}

fn encode(identity: &Identity) -> String {
    [identity.key_pem(), identity.chain_pem(), ROOTS_MARK.to_owned(), identity.roots_pem()].concat()
}

/// Leaves the mode of a directory that exists as the operator made it.
fn make_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)
}

/// `create_new` follows no link, so that a name planted in the directory cannot lead the key
/// elsewhere.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

#[cfg(test)]
mod tests;
