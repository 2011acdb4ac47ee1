//! The log file, cut at any byte and flipped at any bit: what is read back is a true beginning of
//! what was written, or nothing is read back at all.

use std::fs;
use std::path::{Path, PathBuf};

use openraft::RaftLogReader;
use openraft::async_runtime::Oneshot;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::alias::OneshotOf;

use super::disk::DiskLog;
use super::{Backend, LogStore};
use crate::raft::types::{Blob, Entry, Payload, TypeConfig, Vote, log_id};

/// Distances between the places tried; prime, so that they fall into records everywhere.
const CUT_STEP: usize = 11;
const FLIP_STEP: usize = 3;
const TERMS: u64 = 3;
const ENTRIES_PER_TERM: u64 = 6;

fn open(dir: &Path) -> std::io::Result<LogStore> {
    LogStore::new(Backend::Disk(DiskLog::open(dir)?))
}

fn log_file(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("entry").path());
    files.filter(|path| path.extension().is_some_and(|end| end == "wal")).max().expect("a log")
}

/// Writes a log of several terms; gives its entries and its bytes.
async fn written(dir: &Path) -> (Vec<Entry>, Vec<u8>) {
    let mut log = open(dir).expect("opens");
    let mut all = Vec::new();
    for term in 1..=TERMS {
        log.save_vote(&Vote::new_committed(term, term)).await.expect("saves");
        for _ in 0..ENTRIES_PER_TERM {
            let index = all.len() as u64 + 1;
            let payload = Payload::Normal(Blob(vec![index as u8; 9].into()));
            let entry = Entry::new(log_id(term, index), payload);
            let (tell, told) = <OneshotOf<TypeConfig> as Oneshot>::channel();
            log.append([entry.clone()], IOFlushed::signal(tell)).await.expect("appends");
            told.await.expect("called").expect("synced");
            all.push(entry);
        }
    }
    drop(log);
    let bytes = fs::read(log_file(dir)).expect("reads");
    (all, bytes)
}

/// Opens a log whose file has these bytes, and gives its vote and entries.
async fn read_back(bytes: &[u8], name: &Path) -> std::io::Result<(Option<Vote>, Vec<Entry>)> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join(name), bytes)?;
    let mut log = open(dir.path())?;
    let entries = log.try_get_log_entries(..).await?;
    Ok((log.summary()?.vote, entries))
}

#[tokio::test]
async fn a_cut_file_is_a_true_beginning() {
    let home = tempfile::tempdir().expect("a directory");
    let (all, bytes) = written(home.path()).await;
    let name = log_file(home.path()).file_name().map(PathBuf::from).expect("a name");
    let mut before = 0;
    for cut in (0..bytes.len()).step_by(CUT_STEP) {
        let (vote, entries) = read_back(&bytes[..cut], &name).await.expect("opens");
        assert_eq!(entries, all[..entries.len()], "cut at {cut}");
        assert!(entries.len() >= before, "cut at {cut}: longer file, shorter log");
        before = entries.len();
        // No entry is ever there without the vote it was written under.
        let term = entries.last().map_or(0, |entry| entry.log_id.leader_id.term);
        assert!(vote.map_or(0, |vote| vote.leader_id.term) >= term, "cut at {cut}");
    }
    assert!(before + 1 >= all.len(), "the last cut costs one entry at most");
}

#[tokio::test]
async fn a_flipped_file_is_refused() {
    let home = tempfile::tempdir().expect("a directory");
    let (all, bytes) = written(home.path()).await;
    let name = log_file(home.path()).file_name().map(PathBuf::from).expect("a name");
    let mut refused = 0;
    for at in (0..bytes.len()).step_by(FLIP_STEP) {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        match read_back(&bad, &name).await {
            Err(_) => refused += 1,
            Ok((_, entries)) => {
                // Only the last record can be taken for a torn one.
                assert_eq!(entries, all[..all.len() - 1], "flipped at {at}");
                assert!(at > bytes.len() * 9 / 10, "flipped at {at} of {}", bytes.len());
            }
        }
    }
    assert!(refused >= bytes.len() / FLIP_STEP * 9 / 10, "only {refused} flips were refused");
}
