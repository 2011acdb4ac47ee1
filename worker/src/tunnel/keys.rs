//! The private halves of this node's keys on its disk: a file for each generation. They never leave the
//! node, and nothing prints them.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rand::{TryRng as _, rngs::SysRng};
use weft_overlay::wire::Key;

/// The directory below the state directory.
const DIRECTORY: &str = "wireguard";
/// What the name of a file ends in while it is written; the name before it is the generation's.
const UNFINISHED: &str = "new";
/// Changes when the form of a file does.
const MAGIC: &[u8; 8] = b"weftkey1";

/// Why a key could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep WireGuard keys in {path}")]
pub struct KeyError {
    /// The file or directory.
    pub path: PathBuf,
    /// What went wrong.
    #[source]
    pub source: io::Error,
}

/// The directory of the keys.
#[derive(Clone, Debug)]
pub(super) struct Files {
    directory: PathBuf,
}

impl Files {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { directory: state_dir.join(DIRECTORY) }
    }

    /// All keys, by generation. In the place of one that is damaged is a new one, which the managers take
    /// for a beginning.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn load(&self) -> Result<BTreeMap<u64, Key>, KeyError> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(source) => return Err(self.error(source)),
        };
        let mut keys = BTreeMap::new();
        for entry in entries {
            let path = entry.map_err(|source| self.error(source))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Ok(generation) = name.parse() {
                keys.insert(generation, self.load_one(generation)?);
            } else if path.extension().is_some_and(|ending| ending == UNFINISHED) {
                // Nobody was told of it.
                fs::remove_file(&path).map_err(|source| KeyError { path, source })?;
            }
        }
        Ok(keys)
    }

    fn load_one(&self, generation: u64) -> Result<Key, KeyError> {
        let path = self.path(generation);
        let bytes = fs::read(&path).map_err(|source| KeyError { path: path.clone(), source })?;
        if let Some(key) = parse(&bytes) {
            return Ok(key);
        }
        tracing::error!(
            path = %path.display(),
            generation,
            "a WireGuard key is damaged; a new one is made, and links are set up anew"
        );
        self.make(generation)
    }

    /// Makes a key, in place of any there is of that generation. It is on the disk.
    ///
    /// # Errors
    /// When the disk, or the source of randomness, refuses.
    pub(super) fn make(&self, generation: u64) -> Result<Key, KeyError> {
        let path = self.path(generation);
        self.write(&path).map_err(|source| KeyError { path, source })
    }

    fn write(&self, path: &Path) -> io::Result<Key> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let key = draw()?;
        let next = path.with_extension(UNFINISHED);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(MAGIC)?;
        file.write_all(&crc32fast::hash(&key.0).to_be_bytes())?;
        file.write_all(&key.0)?;
        file.sync_data()?;
        fs::rename(&next, path)?;
        File::open(&self.directory)?.sync_all()?;
        Ok(key)
    }

    /// Forgets a key; none is a success.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn forget(&self, generation: u64) -> Result<(), KeyError> {
        let path = self.path(generation);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(KeyError { path, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Forgets all.
    ///
    /// # Errors
    /// As [`Self::forget`].
    pub(super) fn erase(&self) -> Result<(), KeyError> {
        match fs::remove_dir_all(&self.directory) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.error(source)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn path(&self, generation: u64) -> PathBuf {
        self.directory.join(generation.to_string())
    }

    fn error(&self, source: io::Error) -> KeyError {
        KeyError { path: self.directory.clone(), source }
    }
}

pub(crate) fn parse(bytes: &[u8]) -> Option<Key> {
    let (sum, key) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
    let key = <[u8; 32]>::try_from(key).ok()?;
    (crc32fast::hash(&key) == u32::from_be_bytes(*sum)).then_some(Key(key))
}

/// A private key in the form that the kernel gives it back in (RFC 7748, section 5: of the random bytes
/// five bits are fixed).
fn draw() -> io::Result<Key> {
    let mut key = [0; 32];
    SysRng.try_fill_bytes(&mut key).map_err(io::Error::other)?;
    key[0] &= 0b1111_1000;
    key[31] &= 0b0111_1111;
    key[31] |= 0b0100_0000;
    Ok(Key(key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_come_back_and_only_root_may_look() {
        let state = tempfile::tempdir().unwrap();
        let files = Files::new(state.path());
        assert!(files.load().unwrap().is_empty());
        let (one, two) = (files.make(1).unwrap(), files.make(2).unwrap());
        assert_ne!(one, two);
        assert_eq!(files.load().unwrap(), BTreeMap::from([(1, one), (2, two)]));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&files.directory), 0o700);
        assert_eq!(mode(&files.path(1)), 0o600);
        files.forget(1).unwrap();
        files.forget(1).unwrap();
        assert_eq!(files.load().unwrap(), BTreeMap::from([(2, two)]));
        files.erase().unwrap();
        assert!(files.load().unwrap().is_empty());
    }

    #[test]
    fn in_place_of_a_damaged_key_is_a_new_one_and_an_unfinished_one_is_gone() {
        let state = tempfile::tempdir().unwrap();
        let files = Files::new(state.path());
        let kept = files.make(6).unwrap();
        files.make(7).unwrap();
        let whole = fs::read(files.path(7)).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert_eq!(parse(&damaged), None, "byte {at}");
            assert_eq!(parse(&whole[..at]), None, "cut at {at}");
        }
        fs::write(files.path(7), &whole[1..]).unwrap();
        fs::write(files.path(8).with_extension(UNFINISHED), &whole).unwrap();
        let loaded = files.load().unwrap();
        assert_eq!(loaded.keys().copied().collect::<Vec<_>>(), [6, 7]);
        assert_eq!(loaded[&6], kept);
        assert_ne!(Some(loaded[&7]), parse(&whole));
        assert_eq!(files.load().unwrap(), loaded);
        assert_eq!(fs::read_dir(&files.directory).unwrap().count(), 2);
    }
}
