//! Snapshots: images of the whole state, as sealed files of their own.
//!
//! A new image is complete on the disk before the one before it is removed. A damaged image is
//! never installed, sent or skipped silently: it stops the store from opening, because the log
//! before it may be gone.

use std::io;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError, Kind};
use super::files::Files;
use super::log::invalid;
use super::types::{Blob, Snapshot, SnapshotMeta};

const SNAPSHOT: Kind = Kind { what: "a snapshot", magic: *b"WEFTSNAP", format: 1 };
const PREFIX: &str = "snapshot-";

/// What a snapshot file holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Image {
    meta: SnapshotMeta,
    /// The encoded state.
    state: Blob,
}

/// Puts an encoded state and its place in the log together.
pub(crate) fn pack(meta: &SnapshotMeta, state: Vec<u8>) -> Result<Bytes, CodecError> {
    let image = Image { meta: meta.clone(), state: Blob(Bytes::from(state)) };
    let body = codec::encode(SNAPSHOT.what, &image)?;
    Ok(Bytes::from(sealed(&body)))
}

/// Puts the seal of a snapshot around an encoded image.
pub(super) fn sealed(body: &[u8]) -> Vec<u8> {
    codec::seal(SNAPSHOT, body)
}

/// Checks a snapshot and takes it apart.
pub(crate) fn unpack(sealed: &[u8]) -> Result<(SnapshotMeta, Bytes), CodecError> {
    let body = codec::unseal(SNAPSHOT, sealed)?;
    let image: Image = codec::decode(SNAPSHOT.what, body)?;
    Ok((image.meta, image.state.0))
}

/// The snapshots of one store.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots {
    files: Files,
}

impl Snapshots {
    pub(crate) fn new(files: Files) -> Self {
        Snapshots { files }
    }

    /// The newest snapshot, checked.
    ///
    /// # Errors
    /// When it cannot be read or is damaged; the error names the file.
    pub(crate) fn newest(&self) -> io::Result<Option<Snapshot>> {
        let Some(name) = self.names()?.pop() else { return Ok(None) };
        let Some(bytes) = self.files.read(&name)? else { return Ok(None) };
        match unpack(&bytes) {
            Ok((meta, _)) => Ok(Some(Snapshot { meta, snapshot: bytes })),
            Err(error) => {
                let message = format!("{}: {error}", self.files.place(&name));
                Err(io::Error::new(io::ErrorKind::InvalidData, message))
            }
        }
    }

    /// Makes `sealed` the newest snapshot and removes the others.
    pub(crate) fn keep(&self, meta: &SnapshotMeta, sealed: &Bytes) -> io::Result<()> {
        let name = name_of(meta);
        // At a start the library installs again what is there already.
        if self.files.read(&name)?.as_ref() != Some(sealed) {
            unpack(sealed).map_err(invalid)?;
            self.files.write(&name, sealed)?;
        }
        for older in self.names()?.iter().filter(|other| **other < name) {
            self.files.remove(older)?;
        }
        Ok(())
    }

    /// Snapshot files, oldest first.
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = self.files.list()?;
        names.retain(|name| name.starts_with(PREFIX));
        names.sort();
        Ok(names)
    }
}

/// The name sorts by index, which is how snapshots of one log are ordered.
fn name_of(meta: &SnapshotMeta) -> String {
    let (index, term) = meta.last_log_id.map_or((0, 0), |id| (id.index, id.leader_id.term));
    format!("{PREFIX}{index:020}-{term:020}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::log_id;

    fn meta(index: u64) -> SnapshotMeta {
        SnapshotMeta { last_log_id: Some(log_id(2, index)), ..SnapshotMeta::default() }
    }

    #[test]
    fn a_new_snapshot_replaces_the_old_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = Files::Disk(dir.path().into()).open().expect("opens");
        let snapshots = Snapshots::new(files.clone());
        assert!(snapshots.newest().expect("reads").is_none());
        for index in [9, 10, 100] {
            let sealed = pack(&meta(index), vec![index as u8; 100]).expect("packs");
            snapshots.keep(&meta(index), &sealed).expect("keeps");
            let newest = snapshots.newest().expect("reads").expect("is there");
            assert_eq!((newest.meta, newest.snapshot), (meta(index), sealed));
            assert_eq!(files.list().expect("lists").len(), 1);
        }
    }

    #[test]
    fn a_flipped_bit_is_never_served() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = Files::Disk(dir.path().into()).open().expect("opens");
        let snapshots = Snapshots::new(files);
        let sealed = pack(&meta(9), vec![7; 64]).expect("packs");
        snapshots.keep(&meta(9), &sealed).expect("keeps");
        let path = dir.path().join(name_of(&meta(9)));
        for at in 0..sealed.len() {
            let mut bad = sealed.to_vec();
            bad[at] ^= 1;
            assert!(snapshots.keep(&meta(10), &Bytes::from(bad.clone())).is_err(), "byte {at}");
            std::fs::write(&path, bad).expect("writes");
            let error = snapshots.newest().expect_err("damaged");
            assert!(error.to_string().contains("snapshot-"), "names the file: {error}");
        }
    }
}
