//! Small whole files of a store: identity, what is remembered of the peers, snapshots.
//!
//! A file is written beside its place, synced, renamed, and the directory synced: after a power
//! cut there is the old file or the new one, never half of one. The same operations on memory
//! serve the simulation.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::log::memory::MemoryDisk;

/// Only the daemon reads the store: it holds the cluster's secrets.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Ends the name of a file that is still being written.
const UNFINISHED: &str = ".tmp";
/// Ends the name of a file's twin, whose blocks the next content goes to.
const TWIN: &str = ".twin";

/// A flat directory.
#[derive(Clone, Debug)]
pub(crate) enum Files {
    Disk(PathBuf),
    Memory(MemoryDisk),
}

impl Files {
    /// Opens the directory, makes it if it is missing, and removes unfinished files.
    pub(crate) fn open(self) -> io::Result<Self> {
        if let Files::Disk(dir) = &self {
            make_private_dir(dir)?;
            for name in list_dir(dir)?.iter().filter(|name| name.ends_with(UNFINISHED)) {
                fs::remove_file(dir.join(name))?;
            }
        }
        Ok(self)
    }

    /// What messages call this place.
    pub(crate) fn place(&self, name: &str) -> String {
        match self {
            Files::Disk(dir) => dir.join(name).display().to_string(),
            Files::Memory(_) => format!("memory/{name}"),
        }
    }

    /// The content of a file, `None` when there is none of this name.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Bytes>> {
        match self {
            Files::Disk(dir) => match File::open(dir.join(name)) {
                Ok(mut file) => {
                    let mut bytes = Vec::new();
                    file.read_to_end(&mut bytes)?;
                    Ok(Some(Bytes::from(bytes)))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
            Files::Memory(disk) => disk.read_file(name),
        }
    }

    /// Puts a whole file in place; durable when it returns.
    pub(crate) fn write(&self, name: &str, bytes: &Bytes) -> io::Result<()> {
        match self {
            Files::Disk(dir) => {
                let unfinished = dir.join(format!("{name}{UNFINISHED}"));
                let mut file = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(FILE_MODE)
                    .open(&unfinished)?;
                file.write_all(bytes)?;
                file.sync_all()?;
                fs::rename(&unfinished, dir.join(name))?;
                sync_dir(dir)
            }
            Files::Memory(disk) => disk.write_file(name, bytes.clone()),
        }
    }

    /// As [`Self::write`], on a disk without a free block too: over the file's twin, if
    /// [`Self::keep_twin`] has made one, and then the two change names.
    pub(crate) fn write_over_twin(&self, name: &str, bytes: &Bytes) -> io::Result<()> {
        match self {
            Files::Disk(dir) if dir.join(twin_of(name)).exists() => {
                // Some file systems cannot exchange names, or never write over a block.
                exchange(dir, name, bytes).or_else(|_| self.write(name, bytes))
            }
            Files::Disk(_) | Files::Memory(_) => self.write(name, bytes),
        }
    }

    /// Sees to it that a file has a twin.
    pub(crate) fn keep_twin(&self, name: &str) -> io::Result<()> {
        match self {
            Files::Disk(dir) if !dir.join(twin_of(name)).exists() => match self.read(name)? {
                Some(bytes) => self.write(&twin_of(name), &bytes),
                None => Ok(()),
            },
            Files::Disk(_) | Files::Memory(_) => Ok(()),
        }
    }

    /// Removes a file; one that is gone already is no error.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match self {
            Files::Disk(dir) => match fs::remove_file(dir.join(name)) {
                Ok(()) => sync_dir(dir),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            },
            Files::Memory(disk) => disk.remove_file(name),
        }
    }

    /// The names in the directory, sorted.
    pub(crate) fn list(&self) -> io::Result<Vec<String>> {
        match self {
            Files::Disk(dir) => list_dir(dir),
            Files::Memory(disk) => disk.list_files(),
        }
    }
}

/// Makes `dir` and its parents, readable by nobody else.
pub(crate) fn make_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(DIR_MODE))
}

/// Takes the rights of others off the files another library made in `dir`.
pub(crate) fn make_files_private(dir: &Path) -> io::Result<()> {
    for name in list_dir(dir)? {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(FILE_MODE))?;
    }
    Ok(())
}

fn list_dir(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn twin_of(name: &str) -> String {
    format!("{name}{TWIN}")
}

/// Nobody reads the twin, so it may be torn by a power cut.
fn exchange(dir: &Path, name: &str, bytes: &Bytes) -> io::Result<()> {
    let twin = dir.join(twin_of(name));
    let mut file = OpenOptions::new().write(true).open(&twin)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()?;
    let place = dir.join(name);
    renameat2(AT_FDCWD, &twin, AT_FDCWD, &place, RenameFlags::RENAME_EXCHANGE)?;
    sync_dir(dir)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path().join("store");
        let files = Files::Disk(home.clone()).open().expect("opens");
        for text in ["first, longer", "second"] {
            files.write("a", &Bytes::from(text)).expect("writes");
            assert_eq!(files.read("a").expect("reads"), Some(Bytes::from(text)));
        }
        let mode = |path: &Path| fs::metadata(path).expect("exists").permissions().mode() & 0o777;
        assert_eq!((mode(&home), mode(&home.join("a"))), (DIR_MODE, FILE_MODE));
        assert_eq!(files.list().expect("lists"), ["a"]);
        files.remove("a").expect("removes");
        files.remove("a").expect("removing twice is no error");
        assert_eq!(files.read("a").expect("reads"), None);
    }

    #[test]
    fn a_file_with_a_twin_is_replaced_in_the_blocks_there_are() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let files = Files::Disk(dir.path().into()).open().expect("opens");
        files.write_over_twin("a", &Bytes::from("alone")).expect("writes");
        files.keep_twin("a").expect("writes");
        let inode = |name: &str| fs::metadata(dir.path().join(name)).expect("is there").ino();
        let mut inodes = [inode("a"), inode("a.twin")];
        for text in ["a longer text", "short", "the last"] {
            // Torn by a power cut, for all that anybody knows.
            fs::write(dir.path().join("a.twin"), "gar").expect("writes");
            files.write_over_twin("a", &Bytes::from(text)).expect("writes");
            assert_eq!(files.read("a").expect("reads"), Some(Bytes::from(text)));
            inodes.reverse();
            assert_eq!([inode("a"), inode("a.twin")], inodes, "they have changed names");
            files.keep_twin("a").expect("it has one");
        }
        assert_eq!(files.list().expect("lists"), ["a", "a.twin"]);
    }

    #[test]
    fn an_unfinished_file_is_swept() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("a.tmp"), "half").expect("writes");
        let files = Files::Disk(dir.path().into()).open().expect("opens");
        assert_eq!(files.list().expect("lists"), Vec::<String>::new());
    }
}
