//! The Raft log: votes, entries, and the commit point, on a disk or in memory.
//!
//! [`LogStore`] is what the Raft library sees; behind it are two backends with one set of
//! operations. Both keep the promise the library needs: what `append` returned is readable at
//! once, and its callback runs only when the bytes are durable.

#[cfg(test)]
mod agree;
#[cfg(test)]
mod cuts;
pub(crate) mod disk;
pub(crate) mod memory;

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};

use super::codec;
use super::mark::DurableMark;
use super::types::{Entry, LogId, Payload, TypeConfig, Vote};
use disk::DiskLog;
use memory::MemoryLog;

/// Bytes of entries read for one replication message; at least one entry is always read. It
/// keeps an append message under [`super::wire::MAX_MESSAGE_BYTES`].
const REPLICATION_READ_BYTES: usize = 1024 * 1024;

/// What a log holds besides its entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LogSummary {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    pub(crate) last: Option<LogId>,
}

/// Runs once an append is durable or has failed.
pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

#[derive(Clone, Debug)]
pub(crate) enum Backend {
    Disk(DiskLog),
    Memory(MemoryLog),
}

/// The log of one store. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct LogStore {
    backend: Backend,
    mark: Arc<DurableMark>,
}

impl LogStore {
    /// Takes over a log that was opened and moves its mark to what the log holds.
    pub(crate) fn new(backend: Backend) -> io::Result<Self> {
        let store = LogStore { backend, mark: Arc::new(DurableMark::default()) };
        let summary = store.summary()?;
        if let Some(vote) = summary.vote {
            store.mark.voted(vote.leader_id.term);
        }
        if let Some(last) = summary.last {
            store.mark.flushed(last.leader_id.term, last.index);
        }
        Ok(store)
    }

    /// What of this log is durable.
    pub(crate) fn mark(&self) -> Arc<DurableMark> {
        self.mark.clone()
    }

    pub(crate) fn summary(&self) -> io::Result<LogSummary> {
        match &self.backend {
            Backend::Disk(log) => log.summary(),
            Backend::Memory(log) => log.summary(),
        }
    }

    /// Entries from `from` to before `to`, stopping early once `limit` bytes are read.
    async fn read(&self, from: u64, to: u64, limit: usize) -> io::Result<Vec<Entry>> {
        let raw = match &self.backend {
            Backend::Disk(log) => log.read(from, to, limit).await?,
            Backend::Memory(log) => log.read(from, to, limit)?,
        };
        raw.into_iter().map(|(id, bytes)| decode_entry(id, &bytes)).collect()
    }
}

fn decode_entry(log_id: LogId, bytes: &[u8]) -> io::Result<Entry> {
    let payload = codec::decode::<Payload>("a log entry", bytes).map_err(invalid)?;
    Ok(Entry { log_id, payload })
}

fn encode_entry(entry: &Entry) -> io::Result<(LogId, Bytes)> {
    let bytes = codec::encode("a log entry", &entry.payload).map_err(invalid)?;
    Ok((entry.log_id, Bytes::from(bytes)))
}

pub(crate) fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// First index of `range` and the first one after it.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(at) => *at,
        Bound::Excluded(at) => at.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(at) => at.saturating_add(1),
        Bound::Excluded(at) => *at,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (from, to) = bounds(&range);
        self.read(from, to, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        self.read(from, to, REPLICATION_READ_BYTES).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.summary()?.vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let summary = self.summary()?;
        Ok(LogState { last_purged_log_id: summary.purged, last_log_id: summary.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        match &self.backend {
            Backend::Disk(log) => log.save_vote(*vote).await?,
            Backend::Memory(log) => log.save_vote(*vote).await?,
        }
        self.mark.voted(vote.leader_id.term);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(committed) = committed else { return Ok(()) };
        match &self.backend {
            Backend::Disk(log) => log.save_committed(committed),
            Backend::Memory(log) => log.save_committed(committed),
        }
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.summary()?.committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut raw = Vec::new();
        for entry in entries {
            raw.push(encode_entry(&entry)?);
        }
        let Some((last, _)) = raw.last() else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let (mark, last) = (self.mark.clone(), *last);
        let done: Done = Box::new(move |result| {
            if result.is_ok() {
                mark.flushed(last.leader_id.term, last.index);
            }
            callback.io_completed(result);
        });
        match &self.backend {
            Backend::Disk(log) => log.append(raw, done),
            Backend::Memory(log) => log.append(raw, done),
        }
    }

    async fn truncate_after(&mut self, keep: Option<LogId>) -> Result<(), io::Error> {
        match &self.backend {
            Backend::Disk(log) => log.truncate_after(keep).await,
            Backend::Memory(log) => log.truncate_after(keep).await,
        }
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        match &self.backend {
            Backend::Disk(log) => log.purge(upto).await,
            Backend::Memory(log) => log.purge(upto).await,
        }
    }
}
