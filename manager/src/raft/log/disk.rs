//! The log on a disk, in the chunk files of `raft-log`.
//!
//! Every record carries a checksum. A torn last record is cut off when the log is opened; damage
//! anywhere else stops the opening. One flush thread of the library writes and syncs; after its
//! first error it never syncs again, because the kernel may have dropped the pages it failed to
//! write, and every later append fails.

use std::cmp::Ordering;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::codeq::{Decode, Encode};
use raft_log::{Config, RaftLog, Types};
use tokio::sync::oneshot;

use super::{Done, LogSummary};
use crate::raft::files;
use crate::raft::types::{LogId, Vote, log_id};

/// Entries kept in memory for replication, by number and by size. The library's own defaults are
/// 100,000 and 1 GiB.
const CACHE_ENTRIES: usize = 4096;
const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// A chunk is the unit in which purged log is given back to the file system.
const CHUNK_BYTES: usize = 16 * 1024 * 1024;
/// Buffer for reading a chunk at the start.
const READ_BUFFER_BYTES: usize = 1024 * 1024;
/// Written but not yet synced bytes; a writer waits above it.
const QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// How long a sync waits for company. Zero would turn grouping off (measured: 131,000 appends a
/// second at 50 µs, 4,700 at zero).
const GROUP_WAIT: Duration = Duration::from_micros(50);
/// Longest payload believed when reading; a damaged length must not allocate the memory away.
const MAX_PAYLOAD_BYTES: u32 = 64 * 1024 * 1024;

/// The log in one directory. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct DiskLog(Arc<Mutex<RaftLog<Records>>>);

impl DiskLog {
    /// Opens the log in `dir`, makes it if there is none.
    ///
    /// # Errors
    /// When the directory is in use, or what it holds is damaged anywhere but at its torn end.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        files::make_private_dir(dir)?;
        let mut config = Config::new(dir.display());
        config.log_cache_max_items = Some(CACHE_ENTRIES);
        config.log_cache_capacity = Some(CACHE_BYTES);
        config.wal.chunk_max_size = Some(CHUNK_BYTES);
        config.wal.read_buffer_size = Some(READ_BUFFER_BYTES);
        config.wal.flush_queue_max_bytes = Some(QUEUE_BYTES);
        config.wal.flush_batch_wait = Some(GROUP_WAIT);
        config.wal.truncate_incomplete_record = Some(true);
        let log = RaftLog::open(Arc::new(config))?;
        files::make_files_private(dir)?;
        Ok(DiskLog(Arc::new(Mutex::new(log))))
    }

    /// A handle that does not keep the log open.
    pub(crate) fn weak(&self) -> WeakLog {
        WeakLog(Arc::downgrade(&self.0))
    }

    pub(super) fn summary(&self) -> io::Result<LogSummary> {
        let log = self.lock()?;
        let state = log.log_state();
        let id = |id: Option<&(u64, u64)>| id.map(|(term, index)| log_id(*term, *index));
        Ok(LogSummary {
            vote: state.vote().map(|vote| vote.0),
            committed: id(state.committed()),
            purged: id(state.purged()),
            last: id(state.last()),
        })
    }

    pub(super) async fn read(
        &self,
        from: u64,
        to: u64,
        limit: usize,
    ) -> io::Result<Vec<(LogId, Bytes)>> {
        let this = self.clone();
        // Old entries are read from the disk, which must not hold up the runtime's threads.
        let task = tokio::task::spawn_blocking(move || this.read_blocking(from, to, limit));
        task.await.map_err(io::Error::other)?
    }

    fn read_blocking(&self, from: u64, to: u64, limit: usize) -> io::Result<Vec<(LogId, Bytes)>> {
        let mut found = Vec::new();
        if from >= to {
            return Ok(found);
        }
        let log = self.lock()?;
        let mut size = 0_usize;
        for entry in log.read(from, to) {
            let ((term, index), RawPayload(bytes)) = entry?;
            size = size.saturating_add(bytes.len());
            found.push((log_id(term, index), bytes));
            if size >= limit {
                break;
            }
        }
        Ok(found)
    }

    pub(super) async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        self.write_and_sync(|log| log.save_vote(RawVote(vote)).map(drop)).await
    }

    /// Notes the commit point; the next sync takes it along.
    pub(super) fn save_committed(&self, committed: LogId) -> io::Result<()> {
        let mut log = self.lock()?;
        let raw = raw_id(committed);
        let state = log.log_state();
        // A snapshot can move the commit point past the log before the log is purged up to it.
        if state.committed() >= Some(&raw) || state.last() < Some(&raw) {
            return Ok(());
        }
        log.commit(raw)?;
        log.flush(false, None)
    }

    pub(super) fn append(&self, entries: Vec<(LogId, Bytes)>, done: Done) -> io::Result<()> {
        let mut log = self.lock()?;
        log.append(entries.into_iter().map(|(id, bytes)| (raw_id(id), RawPayload(bytes))))?;
        log.flush(true, Some(WhenSynced(done)))
    }

    pub(super) async fn truncate_after(&self, keep: Option<LogId>) -> io::Result<()> {
        let first_cut = keep.map_or(0, |id| id.index + 1);
        let cut = move |log: &mut RaftLog<Records>| {
            let after_last = log.log_state().last().map_or(0, |(_, index)| index + 1);
            // The library's log refuses to cut where nothing is.
            if first_cut >= after_last { Ok(()) } else { log.truncate(first_cut).map(drop) }
        };
        self.write_and_sync(cut).await
    }

    pub(super) async fn purge(&self, upto: LogId) -> io::Result<()> {
        self.write_and_sync(|log| log.purge(raw_id(upto)).map(drop)).await
    }

    async fn write_and_sync(
        &self,
        write: impl FnOnce(&mut RaftLog<Records>) -> io::Result<()>,
    ) -> io::Result<()> {
        let (tell, told) = oneshot::channel();
        {
            let mut log = self.lock()?;
            write(&mut log)?;
            // The receiver is gone only when the caller no longer wants to know.
            let done: Done = Box::new(move |result| drop(tell.send(result)));
            log.flush(true, Some(WhenSynced(done)))?;
        }
        told.await.map_err(|_| io::Error::other("the log writer has stopped"))?
    }

    fn lock(&self) -> io::Result<MutexGuard<'_, RaftLog<Records>>> {
        // A panic inside the library can leave its tables half changed.
        self.0.lock().map_err(|_: PoisonError<_>| io::Error::other("the log writer panicked"))
    }
}

/// Tells whether a log is still open.
#[derive(Clone, Debug)]
pub(crate) struct WeakLog(Weak<Mutex<RaftLog<Records>>>);

impl WeakLog {
    pub(crate) fn is_in_use(&self) -> bool {
        self.0.strong_count() > 0
    }
}

fn raw_id(id: LogId) -> (u64, u64) {
    (id.leader_id.term, id.index)
}

/// The record types of the library's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Records;

impl Types for Records {
    /// Term and index.
    type LogId = (u64, u64);
    type LogPayload = RawPayload;
    type Vote = RawVote;
    type Callback = WhenSynced;
    type UserData = ();

    fn log_index(log_id: &(u64, u64)) -> u64 {
        log_id.1
    }

    fn payload_size(payload: &RawPayload) -> u64 {
        payload.0.len() as u64
    }
}

struct WhenSynced(Done);

impl raft_log::Callback for WhenSynced {
    fn send(self, result: io::Result<()>) {
        (self.0)(result);
    }
}

/// Reads a vote or an entry as the log has it on the disk, and writes it again.
pub(crate) fn again(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    match bytes.split_first() {
        Some((0, rest)) => RawVote::decode(rest)?.encode(&mut out)?,
        Some((_, rest)) => RawPayload::decode(rest)?.encode(&mut out)?,
        None => return Err(io::ErrorKind::UnexpectedEof.into()),
    };
    Ok(out)
}

/// A vote as term, node, and whether a majority granted it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RawVote(Vote);

impl PartialOrd for RawVote {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.0.partial_cmp(&other.0)
    }
}

impl Encode for RawVote {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        let mut n = self.0.leader_id.term.encode(&mut w)?;
        n += self.0.leader_id.voted_for.encode(&mut w)?;
        n += self.0.committed.encode(&mut w)?;
        Ok(n)
    }
}

impl Decode for RawVote {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        let (term, node) = (u64::decode(&mut r)?, u64::decode(&mut r)?);
        let mut vote = Vote::new(term, node);
        vote.committed = bool::decode(&mut r)?;
        Ok(RawVote(vote))
    }
}

/// An encoded payload behind its length, and the length behind its own checksum: a flipped bit in
/// a length looks like a record that reaches beyond the end, which is what a torn one looks like,
/// and all that follows would be cut off as if it had never been synced.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RawPayload(Bytes);

impl Encode for RawPayload {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        let len = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        if len > MAX_PAYLOAD_BYTES {
            let message = format!("log entry of {len} bytes, limit {MAX_PAYLOAD_BYTES}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let mut n = len.encode(&mut w)?;
        n += crc32fast::hash(&len.to_be_bytes()).encode(&mut w)?;
        w.write_all(&self.0)?;
        Ok(n + self.0.len())
    }
}

impl Decode for RawPayload {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        let (len, check) = (u32::decode(&mut r)?, u32::decode(&mut r)?);
        if len > MAX_PAYLOAD_BYTES || check != crc32fast::hash(&len.to_be_bytes()) {
            let message = format!("log entry with a damaged length of {len} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let mut bytes = Vec::new();
        // Growing while reading: a damaged length costs no more memory than the file has bytes.
        let got = r.by_ref().take(u64::from(len)).read_to_end(&mut bytes)?;
        if got < len as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(RawPayload(Bytes::from(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_survives(body: Vec<u8>, term: u64, node: u64, committed: bool) {
            let payload = RawPayload(Bytes::from(body));
            let mut bytes = Vec::new();
            let n = payload.encode(&mut bytes).expect("encodes");
            prop_assert_eq!(n, bytes.len());
            prop_assert_eq!(RawPayload::decode(bytes.as_slice()).expect("decodes"), payload);
            bytes.pop();
            prop_assert!(RawPayload::decode(bytes.as_slice()).is_err());

            let mut vote = Vote::new(term, node);
            vote.committed = committed;
            let mut bytes = Vec::new();
            RawVote(vote).encode(&mut bytes).expect("encodes");
            prop_assert_eq!(RawVote::decode(bytes.as_slice()).expect("decodes"), RawVote(vote));
        }

        #[test]
        fn random_records_do_not_panic(bytes: Vec<u8>) {
            let _ = RawPayload::decode(bytes.as_slice());
            let _ = RawVote::decode(bytes.as_slice());
        }
    }
}
