//! Who a store is: made once, counted up at every start.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError, Kind};
use super::fence::{Boot, Fence, Incarnation};
use super::files::Files;

const IDENTITY_FILE: &str = "identity";
const IDENTITY: Kind = Kind { what: "the identity of the store", magic: *b"WEFTIDNT", format: 1 };
const PEERS_FILE: &str = "peers";
const PEERS: Kind = Kind { what: "the memory of the peers", magic: *b"WEFTPEER", format: 1 };

/// The directory belongs to somebody else, or cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("{path}: {reason}")]
    Damaged { path: String, reason: String },
    #[error("{path} belongs to {what} {found}, not to {what} {asked}")]
    Foreign { path: String, what: &'static str, found: String, asked: String },
    #[error("{path} is missing: there is no store, or it was tampered with")]
    Missing { path: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    cluster_id: String,
    number: u64,
    incarnation: Incarnation,
    generation: u64,
}

/// Random numbers for a store that is made or started; drawn by the caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draws {
    pub(crate) incarnation: u64,
    pub(crate) nonce: u64,
}

/// Reads who the store is, or makes it somebody, and counts this start. The count is durable
/// before anything is sent, so that no two starts ever show one number. From the second start on it
/// needs no free block of the disk.
///
/// # Errors
/// [`IdentityError`]; the store must not be used then.
pub(crate) fn start(
    files: &Files,
    cluster_id: &str,
    number: u64,
    draws: Draws,
) -> Result<Boot, IdentityError> {
    let path = files.place(IDENTITY_FILE);
    let mut identity = match read_sealed::<Identity>(files, IDENTITY_FILE, IDENTITY)? {
        Some(identity) => identity,
        None => Identity {
            cluster_id: cluster_id.to_owned(),
            number,
            incarnation: Incarnation(draws.incarnation),
            generation: 0,
        },
    };
    if identity.cluster_id != cluster_id {
        let (found, asked) = (identity.cluster_id, cluster_id.to_owned());
        return Err(IdentityError::Foreign { path, what: "cluster", found, asked });
    }
    if identity.number != number {
        let (found, asked) = (identity.number.to_string(), number.to_string());
        return Err(IdentityError::Foreign { path, what: "manager", found, asked });
    }
    identity.generation += 1;
    let sealed = sealed(files, IDENTITY_FILE, IDENTITY, &identity)?;
    files
        .write_over_twin(IDENTITY_FILE, &sealed)
        .map_err(|source| io_error(files, IDENTITY_FILE, source))?;
    if let Err(error) = files.keep_twin(IDENTITY_FILE) {
        tracing::warn!(%error, "no blocks can be kept for the next start");
    }
    let Identity { incarnation, generation, .. } = identity;
    Ok(Boot { incarnation, generation, nonce: draws.nonce })
}

/// Moves the store to another cluster, and forgets the peers of the old one. The incarnation
/// stays: the log names it, and those who read that log later must not stumble over it.
///
/// # Errors
/// [`IdentityError::Missing`] when there is no store; [`IdentityError::Foreign`] when it is of
/// another manager.
pub(crate) fn move_to(files: &Files, cluster_id: &str, number: u64) -> Result<(), IdentityError> {
    let old = read(files, number)?;
    write_peers(files, &Fence::default())?;
    let identity = Identity { cluster_id: cluster_id.to_owned(), ..old };
    write_sealed(files, IDENTITY_FILE, IDENTITY, &identity)
}

/// The cluster and the incarnation of the store of manager `number`.
///
/// # Errors
/// As [`move_to`].
pub(crate) fn belongs_to(
    files: &Files,
    number: u64,
) -> Result<(String, Incarnation), IdentityError> {
    let identity = read(files, number)?;
    Ok((identity.cluster_id, identity.incarnation))
}

fn read(files: &Files, number: u64) -> Result<Identity, IdentityError> {
    let path = files.place(IDENTITY_FILE);
    let Some(identity) = read_sealed::<Identity>(files, IDENTITY_FILE, IDENTITY)? else {
        return Err(IdentityError::Missing { path });
    };
    if identity.number != number {
        let (found, asked) = (identity.number.to_string(), number.to_string());
        return Err(IdentityError::Foreign { path, what: "manager", found, asked });
    }
    Ok(identity)
}

/// Whether the store was made already.
pub(crate) fn exists(files: &Files) -> Result<bool, IdentityError> {
    let read = files.read(IDENTITY_FILE);
    Ok(read.map_err(|source| io_error(files, IDENTITY_FILE, source))?.is_some())
}

/// What was remembered of the peers. A damaged memory is dropped with a warning: it protects
/// others, and a manager without it is not less safe than a new one.
pub(crate) fn read_peers(files: &Files) -> Result<Fence, IdentityError> {
    match read_sealed(files, PEERS_FILE, PEERS) {
        Ok(fence) => Ok(fence.unwrap_or_default()),
        Err(IdentityError::Damaged { path, reason }) => {
            tracing::warn!(path, reason, "memory of the peers dropped");
            Ok(Fence::default())
        }
        Err(error) => Err(error),
    }
}

/// Keeps what is remembered of the peers.
pub(crate) fn write_peers(files: &Files, fence: &Fence) -> Result<(), IdentityError> {
    write_sealed(files, PEERS_FILE, PEERS, fence)
}

fn read_sealed<T: serde::de::DeserializeOwned>(
    files: &Files,
    name: &str,
    kind: Kind,
) -> Result<Option<T>, IdentityError> {
    let Some(bytes) = files.read(name).map_err(|source| io_error(files, name, source))? else {
        return Ok(None);
    };
    codec::unseal(kind, &bytes)
        .and_then(|body| codec::decode(kind.what, body))
        .map(Some)
        .map_err(|error| damaged(files, name, &error))
}

fn write_sealed<T: Serialize>(
    files: &Files,
    name: &str,
    kind: Kind,
    value: &T,
) -> Result<(), IdentityError> {
    let sealed = sealed(files, name, kind, value)?;
    files.write(name, &sealed).map_err(|source| io_error(files, name, source))
}

fn sealed<T: Serialize>(
    files: &Files,
    name: &str,
    kind: Kind,
    value: &T,
) -> Result<Bytes, IdentityError> {
    let body = codec::encode(kind.what, value).map_err(|error| damaged(files, name, &error))?;
    Ok(Bytes::from(codec::seal(kind, &body)))
}

fn io_error(files: &Files, name: &str, source: std::io::Error) -> IdentityError {
    IdentityError::Io { path: files.place(name), source }
}

fn damaged(files: &Files, name: &str, error: &CodecError) -> IdentityError {
    IdentityError::Damaged { path: files.place(name), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: Draws = Draws { incarnation: 7, nonce: 1 };

    fn files() -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().expect("a directory");
        let files = Files::Disk(dir.path().into()).open().expect("opens");
        (dir, files)
    }

    #[test]
    fn every_start_counts_and_the_name_stays() {
        let (_dir, files) = files();
        let first = start(&files, "c", 1, DRAWS).expect("starts");
        let second =
            start(&files, "c", 1, Draws { incarnation: 8, nonce: 2 }).expect("starts again");
        assert_eq!((first.incarnation, first.generation), (Incarnation(7), 1));
        assert_eq!((second.incarnation, second.generation), (Incarnation(7), 2));
    }

    #[test]
    fn another_cluster_or_number_is_refused() {
        let (_dir, files) = files();
        start(&files, "c", 1, DRAWS).expect("starts");
        assert!(matches!(start(&files, "d", 1, DRAWS), Err(IdentityError::Foreign { .. })));
        assert!(matches!(start(&files, "c", 2, DRAWS), Err(IdentityError::Foreign { .. })));
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let (dir, files) = files();
        start(&files, "c", 1, DRAWS).expect("starts");
        let path = dir.path().join(IDENTITY_FILE);
        let good = std::fs::read(&path).expect("reads");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, bad).expect("writes");
            let got = start(&files, "c", 1, DRAWS);
            assert!(matches!(got, Err(IdentityError::Damaged { .. })), "byte {at}: {got:?}");
        }
    }
}
