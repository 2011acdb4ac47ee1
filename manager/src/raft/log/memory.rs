//! A disk that lives in memory and can lose power.
//!
//! For simulation: what was written is readable at once, what was synced survives
//! [`MemoryDisk::crash`], the rest is gone. A sync takes as long as it is told to, in the
//! runtime's time, and can be made to fail. Whole files are durable when written, as on a real
//! disk after rename and sync.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::{Done, LogSummary};
use crate::raft::types::{LogId, Vote};

/// A disk for one store. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    files: BTreeMap<String, Bytes>,
    /// What the log was at the last sync.
    durable: LogImage,
    /// What readers see: `durable` and all of `unsynced`.
    live: LogImage,
    unsynced: VecDeque<Change>,
    /// Number of the first change in `unsynced`; changes are numbered from 0 on.
    synced_upto: u64,
    sync_takes: Duration,
    sync_fails: bool,
    /// None: there is always room.
    free: Option<u64>,
    /// Counts power cuts and openings: a store from before has no disk any more.
    epoch: u64,
}

#[derive(Clone, Debug, Default)]
struct LogImage {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, (LogId, Bytes)>,
}

#[derive(Clone, Debug)]
enum Change {
    Vote(Vote),
    Append(Vec<(LogId, Bytes)>),
    TruncateFrom(u64),
    Purge(LogId),
    Commit(LogId),
}

impl LogImage {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Vote(vote) => self.vote = Some(vote),
            Change::Append(entries) => {
                self.entries.extend(entries.into_iter().map(|(id, bytes)| (id.index, (id, bytes))));
            }
            Change::TruncateFrom(index) => drop(self.entries.split_off(&index)),
            Change::Purge(id) => {
                self.entries = self.entries.split_off(&(id.index + 1));
                self.purged = self.purged.max(Some(id));
            }
            Change::Commit(id) => self.committed = self.committed.max(Some(id)),
        }
    }

    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, (id, _))| *id).max(self.purged)
    }
}

impl MemoryDisk {
    /// Cuts the power: everything not synced is lost, and a store still running on this disk
    /// gets errors from now on.
    pub fn crash(&self) {
        let mut platter = self.lock();
        platter.epoch += 1;
        platter.live = platter.durable.clone();
        platter.synced_upto += platter.unsynced.len() as u64;
        platter.unsynced.clear();
    }

    /// How long a sync takes from now on.
    pub fn set_sync_time(&self, takes: Duration) {
        self.lock().sync_takes = takes;
    }

    /// Whether syncs fail from now on.
    pub fn set_sync_fails(&self, fails: SyncFails) {
        self.lock().sync_fails = matches!(fails, SyncFails::Yes);
    }

    /// How many bytes are free from now on, for whoever looks before writing.
    pub fn set_free(&self, bytes: u64) {
        self.lock().free = Some(bytes);
    }

    pub(crate) fn free(&self) -> u64 {
        self.lock().free.unwrap_or(u64::MAX)
    }

    /// An independent disk with the durable content of this one, as a backup would have it.
    pub fn image(&self) -> MemoryDisk {
        let platter = self.lock();
        MemoryDisk(Arc::new(Mutex::new(Platter {
            files: platter.files.clone(),
            durable: platter.durable.clone(),
            live: platter.durable.clone(),
            sync_takes: platter.sync_takes,
            ..Platter::default()
        })))
    }

    pub(crate) fn read_file(&self, name: &str) -> io::Result<Option<Bytes>> {
        Ok(self.lock().files.get(name).cloned())
    }

    pub(crate) fn write_file(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        self.lock().files.insert(name.to_owned(), bytes);
        Ok(())
    }

    pub(crate) fn remove_file(&self, name: &str) -> io::Result<()> {
        self.lock().files.remove(name);
        Ok(())
    }

    pub(crate) fn list_files(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().files.keys().cloned().collect())
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        // No operation on the platter can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a sync of a [`MemoryDisk`] fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncFails {
    Yes,
    No,
}

/// The log on a [`MemoryDisk`]; good for one run of one store.
#[derive(Clone, Debug)]
pub(crate) struct MemoryLog {
    disk: MemoryDisk,
    epoch: u64,
}

impl MemoryLog {
    /// Opens the log; whoever had it open before has lost it.
    pub(crate) fn open(disk: &MemoryDisk) -> Self {
        let mut platter = disk.lock();
        platter.epoch += 1;
        MemoryLog { disk: disk.clone(), epoch: platter.epoch }
    }

    pub(super) fn summary(&self) -> io::Result<LogSummary> {
        let platter = self.lock()?;
        let LogImage { vote, committed, purged, .. } = platter.live;
        Ok(LogSummary { vote, committed, purged, last: platter.live.last() })
    }

    pub(super) fn read(&self, from: u64, to: u64, limit: usize) -> io::Result<Vec<(LogId, Bytes)>> {
        let mut found = Vec::new();
        if from >= to {
            return Ok(found);
        }
        let platter = self.lock()?;
        let mut size = 0_usize;
        for entry in platter.live.entries.range(from..to).map(|(_, entry)| entry) {
            size = size.saturating_add(entry.1.len());
            found.push(entry.clone());
            if size >= limit {
                break;
            }
        }
        Ok(found)
    }

    pub(super) async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        self.change_and_sync(Change::Vote(vote)).await
    }

    pub(super) fn save_committed(&self, committed: LogId) -> io::Result<()> {
        self.change(Change::Commit(committed)).map(drop)
    }

    pub(super) fn append(&self, entries: Vec<(LogId, Bytes)>, done: Done) -> io::Result<()> {
        let (upto, takes) = self.change(Change::Append(entries))?;
        if takes.is_zero() {
            done(self.sync(upto));
            return Ok(());
        }
        let this = self.clone();
        // The task ends by itself after one sync; there is no owner to outlive.
        tokio::spawn(async move {
            tokio::time::sleep(takes).await;
            done(this.sync(upto));
        });
        Ok(())
    }

    pub(super) async fn truncate_after(&self, keep: Option<LogId>) -> io::Result<()> {
        let from = keep.map_or(0, |id| id.index + 1);
        self.change_and_sync(Change::TruncateFrom(from)).await
    }

    pub(super) async fn purge(&self, upto: LogId) -> io::Result<()> {
        self.change_and_sync(Change::Purge(upto)).await
    }

    async fn change_and_sync(&self, change: Change) -> io::Result<()> {
        let (upto, takes) = self.change(change)?;
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        self.sync(upto)
    }

    /// Writes a change and gives the number after it, and how long its sync takes.
    fn change(&self, change: Change) -> io::Result<(u64, Duration)> {
        let mut platter = self.lock()?;
        platter.live.apply(change.clone());
        platter.unsynced.push_back(change);
        Ok((platter.synced_upto + platter.unsynced.len() as u64, platter.sync_takes))
    }

    /// Makes all changes before number `upto` durable.
    fn sync(&self, upto: u64) -> io::Result<()> {
        let mut platter = self.lock()?;
        if platter.sync_fails {
            return Err(io::Error::other("the memory disk was told to fail its syncs"));
        }
        while platter.synced_upto < upto {
            let Some(change) = platter.unsynced.pop_front() else { break };
            platter.durable.apply(change);
            platter.synced_upto += 1;
        }
        Ok(())
    }

    fn lock(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let platter = self.disk.lock();
        if platter.epoch == self.epoch {
            Ok(platter)
        } else {
            Err(io::Error::other("the memory disk lost power or was opened again"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::log_id;

    fn entry(index: u64) -> (LogId, Bytes) {
        (log_id(1, index), Bytes::from(format!("entry {index}")))
    }

    #[tokio::test(start_paused = true)]
    async fn an_unsynced_tail_is_lost_and_a_synced_one_is_not() {
        let disk = MemoryDisk::default();
        disk.set_sync_time(Duration::from_millis(10));
        let log = MemoryLog::open(&disk);
        let (tell, told) = tokio::sync::oneshot::channel();
        log.append(vec![entry(1)], Box::new(move |r| tell.send(r).expect("heard")))
            .expect("writes");
        assert_eq!(log.read(0, 9, usize::MAX).expect("reads").len(), 1, "readable at once");
        told.await.expect("called").expect("synced");
        log.append(vec![entry(2)], Box::new(|r| assert!(r.is_err(), "power was cut")))
            .expect("writes");
        disk.crash();
        assert!(log.summary().is_err(), "a store from before the cut has no disk");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let log = MemoryLog::open(&disk);
        assert_eq!(log.read(0, 9, usize::MAX).expect("reads"), [entry(1)]);
    }

    #[tokio::test]
    async fn a_failed_sync_is_told_and_keeps_nothing() {
        let disk = MemoryDisk::default();
        let log = MemoryLog::open(&disk);
        disk.set_sync_fails(SyncFails::Yes);
        assert!(log.save_vote(Vote::new(3, 1)).await.is_err());
        disk.crash();
        assert_eq!(MemoryLog::open(&disk).summary().expect("reads"), LogSummary::default());
    }
}
