//! The last complete set of assignments, on the node's disk: with no manager alive, names, virtual
//! addresses and links go on, also over a restart of the daemon.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use weft_model::Assignments;

/// The file that holds the set; written whole to a second file and renamed, so that a crash between
/// any two steps leaves the old set or the new one.
const FILE: &str = "assignments";
/// Changes when the form of the file does; an unknown form is no set.
const MAGIC: &[u8; 8] = b"weftasg1";

/// Why the set could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep the assignments in {path}")]
pub struct CacheError {
    /// The file.
    pub path: PathBuf,
    /// What went wrong.
    #[source]
    pub source: io::Error,
}

/// Where the set is kept.
#[derive(Clone, Debug)]
pub struct Cache {
    path: PathBuf,
}

impl Cache {
    /// In this directory, which is there.
    pub fn new(directory: &Path) -> Self {
        Self { path: directory.join(FILE) }
    }

    /// The set kept last, if it is whole. A damaged one counts as none: the managers have it.
    pub fn load(&self) -> Option<Assignments> {
        let bytes = fs::read(&self.path).ok()?;
        let rest = bytes.strip_prefix(MAGIC)?;
        let (sum, body) = rest.split_first_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_be_bytes(*sum) {
            tracing::warn!(path = %self.path.display(), "kept assignments are damaged");
            return None;
        }
        rmp_serde::from_slice(body).ok()
    }

    /// Keeps the set in place of the former one.
    ///
    /// # Errors
    /// When the disk refuses; the former set is then still there.
    pub fn save(&self, assignments: &Assignments) -> Result<(), CacheError> {
        self.write(assignments).map_err(|source| CacheError { path: self.path.clone(), source })
    }

    fn write(&self, assignments: &Assignments) -> io::Result<()> {
        let body = rmp_serde::to_vec_named(assignments).map_err(io::Error::other)?;
        let next = self.path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(MAGIC)?;
        file.write_all(&crc32fast::hash(&body).to_be_bytes())?;
        file.write_all(&body)?;
        file.sync_data()?;
        fs::rename(&next, &self.path)?;
        self.path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }

    /// Forgets the set; the node has left its cluster.
    pub fn erase(&self) {
        // Only a file that is there can be in the way, and the next set replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path());
        assert_eq!(cache.load(), None);
        let set = Assignments { revision: 7, ..Assignments::default() };
        cache.save(&set).unwrap();
        assert_eq!(cache.load(), Some(set));
        let path = directory.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert_eq!(cache.load(), None, "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(cache.load(), None, "cut at {at}");
        }
        cache.erase();
        assert_eq!(cache.load(), None);
    }
}
