//! Room on the disk, looked at before anything is written for a caller.
//!
//! The library dies of the first write that fails, and a process that dies of a full disk does not
//! start on it either. So some room is kept back: below [`Room`]'s reserve nothing more is proposed,
//! and what was proposed already, votes, snapshots and the entry that a new leader begins with still
//! fit. Below a part of it a manager takes no more entries from the leader. And whatever else fills
//! the disk, behind the end of the log there are blocks that belong to it, for votes.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};

use super::log::memory::MemoryDisk;
use crate::store::Backend;

/// The part of the reserve below which entries of the leader are refused as well: with the usual
/// reserve it is one chunk of the log.
const FLOOR_PART: u64 = 4;
/// Blocks kept behind the end of the log, in bytes. A vote has about 60.
const AHEAD_BYTES: u64 = 1024 * 1024;
/// `st_blocks` counts in these, whatever the file system's own blocks are (stat(2)).
const STAT_BLOCK_BYTES: u64 = 512;
/// How the log's chunks are named at their end.
const CHUNK: &str = ".wal";

/// How much room a store's disk has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Space {
    /// More than the reserve. A manager of an earlier version says nothing.
    #[default]
    Enough,
    /// Less than the reserve: nothing new is proposed.
    Low,
    /// So little that entries of the leader are refused too.
    Out,
}

/// The disk of one store, and what of it is kept back.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    place: Place,
    /// Bytes.
    pub(crate) reserve: u64,
}

#[derive(Clone, Debug)]
enum Place {
    Disk { dir: PathBuf, log: PathBuf },
    Memory(MemoryDisk),
}

impl Room {
    /// The room of `backend`, whose log is in the folder `log` of it.
    pub(crate) fn new(backend: &Backend, log: &str, reserve: u64) -> Self {
        let place = match backend {
            Backend::Disk(dir) => Place::Disk { dir: dir.clone(), log: dir.join(log) },
            Backend::Memory(disk) => Place::Memory(disk.clone()),
        };
        Room { place, reserve }
    }

    /// Free bytes. A disk that does not tell counts as one with room: its own errors tell more.
    pub(crate) fn free(&self) -> u64 {
        match &self.place {
            Place::Disk { dir, .. } => statvfs(dir).map_or(u64::MAX, |found| {
                found.blocks_available().saturating_mul(found.fragment_size())
            }),
            Place::Memory(disk) => disk.free(),
        }
    }

    pub(crate) fn space(&self) -> Space {
        match self.free() {
            free if free >= self.reserve => Space::Enough,
            free if free >= self.reserve / FLOOR_PART => Space::Low,
            _ => Space::Out,
        }
    }

    /// Sees to it that blocks behind the end of the log belong to it.
    pub(crate) fn keep_ahead(&self) -> io::Result<()> {
        match &self.place {
            Place::Disk { log, .. } => newest_chunk(log)?.map_or(Ok(()), |chunk| ahead_of(&chunk)),
            Place::Memory(_) => Ok(()),
        }
    }
}

/// The file that the log is written to: names count upwards.
fn newest_chunk(log: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    for entry in fs::read_dir(log)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(CHUNK) {
            newest = newest.max(Some(path));
        }
    }
    Ok(newest)
}

fn ahead_of(chunk: &Path) -> io::Result<()> {
    let file: File = OpenOptions::new().write(true).open(chunk)?;
    let about = file.metadata()?;
    // Topped up when half is used.
    if about.blocks() * STAT_BLOCK_BYTES >= about.len() + AHEAD_BYTES / 2 {
        return Ok(());
    }
    let (from, bytes) = (about.len().cast_signed(), AHEAD_BYTES.cast_signed());
    match fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, from, bytes) {
        // A file system that cannot is one that the reserve alone must do for.
        Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a majority of `voters` is left without those that are `short` of room.
pub(crate) fn majority_has_room(voters: &[u64], short: &BTreeSet<u64>) -> bool {
    let able = voters.iter().filter(|voter| !short.contains(voter)).count();
    able * 2 > voters.len()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_log_has_blocks_of_its_own_behind_its_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        fs::create_dir(&log).expect("makes it");
        for name in ["r-000.wal", "r-001.wal", "LOCK"] {
            File::create(log.join(name)).expect("makes it").write_all(b"vote").expect("writes");
        }
        let room = Room::new(&Backend::Disk(dir.path().to_owned()), "log", 1);
        room.keep_ahead().expect("the file system can");
        let about = |name: &str| fs::metadata(log.join(name)).expect("is there");
        assert!(about("r-001.wal").blocks() * STAT_BLOCK_BYTES >= AHEAD_BYTES);
        assert_eq!(about("r-001.wal").len(), 4, "its end stays where it was");
        assert!(about("r-000.wal").blocks() * STAT_BLOCK_BYTES < AHEAD_BYTES);
    }

    #[test]
    fn a_disk_is_low_before_it_is_out() {
        let disk = MemoryDisk::default();
        let room = Room::new(&Backend::Memory(disk.clone()), "log", 100);
        let table = [(u64::MAX, Space::Enough), (100, Space::Enough), (99, Space::Low)];
        for (free, space) in table.into_iter().chain([(25, Space::Low), (24, Space::Out)]) {
            disk.set_free(free);
            assert_eq!(room.space(), space, "{free} bytes");
        }
    }

    #[test]
    fn a_majority_is_more_than_half() {
        let table = [(&[1][..], &[][..], true), (&[1], &[1], false), (&[1, 2, 3], &[2], true)];
        for (voters, short, expected) in
            table.into_iter().chain([(&[1, 2, 3][..], &[2, 3][..], false), (&[1, 2], &[1], false)])
        {
            let short = short.iter().copied().collect();
            assert_eq!(majority_has_room(voters, &short), expected, "{voters:?} {short:?}");
        }
    }
}
