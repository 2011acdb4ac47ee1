//! The readers of managers' messages and files, for the fuzzer and the replay of what it found.
//!
//! Each gives what it has read, written again. Files are given without their seals, which bytes from
//! nowhere do not have.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::assembly::Assembly;
use super::codec::{self, CodecError};
use super::fence::{self, Fence};
use super::types::{Blob, Payload, Vote};
use super::wire::{Request, Response, SnapshotPiece};
use super::{identity, log, snapshot};

/// What a reader said.
pub type Read = Result<Vec<u8>, String>;

fn again<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Read {
    let read: T = codec::decode("an input", bytes).map_err(text)?;
    codec::encode("an input", &read).map_err(text)
}

fn text(error: CodecError) -> String {
    error.to_string()
}

/// A message from another manager.
pub fn request(bytes: &[u8]) -> Read {
    if let Ok(request) = codec::decode::<Request>("a message", bytes) {
        // What is remembered of others is bounded, whoever says it.
        let mut memory = Fence::default();
        let _ = memory.admit(request.from, request.shown, Some(request.expected));
        for (number, told) in &request.remembered {
            memory.hear(*number, *told, Some(told.boot.incarnation));
        }
        assert!(memory.all().len() <= fence::MAX_REMEMBERED, "{} managers", memory.all().len());
    }
    again::<Request>(bytes)
}

/// What another manager answers.
pub fn response(bytes: &[u8]) -> Read {
    again::<Response>(bytes)
}

/// An entry of the log.
pub fn entry(bytes: &[u8]) -> Read {
    again::<Payload>(bytes)
}

/// A command in an entry.
pub fn command(bytes: &[u8]) -> Read {
    again::<weft_model::Proposal>(bytes)
}

/// A snapshot as it is on the disk and on the wire.
pub fn snapshot(sealed: &[u8]) -> Read {
    let (meta, state) = snapshot::unpack(sealed).map_err(text)?;
    snapshot::pack(&meta, state.to_vec()).map(|bytes| bytes.to_vec()).map_err(text)
}

/// The same without its seal.
pub fn image(body: &[u8]) -> Read {
    snapshot(&snapshot::sealed(body))
}

/// The file with who this store is, without its seal.
pub fn identity(body: &[u8]) -> Read {
    again::<identity::Identity>(body)
}

/// The file with what is remembered of the others, without its seal.
pub fn peers(body: &[u8]) -> Read {
    again::<Fence>(body)
}

/// A record of the log as it lies on the disk.
pub fn record(bytes: &[u8]) -> Read {
    log::disk::again(bytes).map_err(|error| error.to_string())
}

/// Pieces of snapshots, as number of the sender, number of the transfer, offset, size of the whole, and
/// bytes; gives the wholes that came of them.
pub fn pieces(pieces: &[(u64, u64, u64, u64, Vec<u8>)]) -> Vec<Bytes> {
    let mut assembly = Assembly::default();
    let mut wholes = Vec::new();
    for (from, transfer, offset, total, bytes) in pieces {
        let piece = SnapshotPiece {
            vote: Vote::new_committed(1, 1),
            transfer: *transfer,
            offset: *offset,
            total: *total,
            bytes: Blob(Bytes::copy_from_slice(bytes)),
        };
        wholes.extend(assembly.add(*from, &piece).ok().flatten());
    }
    wholes
}
