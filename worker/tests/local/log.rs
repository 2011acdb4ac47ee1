//! Wherever a crash cuts or tears the log, what comes back is a beginning of what was written, and
//! everything that was acknowledged.

use std::{fs, path::Path};

use tempfile::TempDir;
use weft_model::{State, Time, command::Proposal};
use weft_worker::local::log::{Log, LogError};

fn entry(number: u64) -> Proposal {
    Proposal { now: Time(number * 1000), ..Proposal::default() }
}

/// A file of these records and where each of them ends.
fn written(records: &[&[u64]]) -> (TempDir, Vec<u8>, Vec<u64>) {
    let directory = tempfile::tempdir().expect("a directory of the test's own");
    let (mut log, state) = Log::open(directory.path()).expect("a directory of the test's own");
    assert_eq!(state, State::default());
    let mut ends = vec![length(directory.path())];
    for numbers in records {
        let entries: Vec<_> = numbers.iter().map(|number| entry(*number)).collect();
        log.append(&entries).expect("a directory of the test's own");
        ends.push(length(directory.path()));
    }
    let bytes = fs::read(directory.path().join("log")).expect("a directory of the test's own");
    (directory, bytes, ends)
}

fn length(directory: &Path) -> u64 {
    fs::metadata(directory.join("log")).expect("a directory of the test's own").len()
}

/// What these bytes lead to, and that the log goes on from there.
fn recovered(bytes: &[u8]) -> Result<u64, LogError> {
    let directory = tempfile::tempdir().expect("a directory of the test's own");
    fs::write(directory.path().join("log"), bytes).expect("a directory of the test's own");
    let (mut log, state) = Log::open(directory.path())?;
    let found = state.revision();
    assert_eq!(state.now(), Time(found * 1000), "the entries are those that were written");
    log.append(&[entry(found + 1)]).expect("a directory of the test's own");
    drop(log);
    let (_, state) = Log::open(directory.path())?;
    assert_eq!(state.revision(), found + 1, "what is appended after a tear is kept");
    Ok(found)
}

const RECORDS: [&[u64]; 4] = [&[1], &[2, 3], &[4], &[5, 6, 7]];

/// The entries that were acknowledged when the file was so long.
fn acknowledged(ends: &[u64], length: usize) -> u64 {
    let whole = ends.iter().filter(|end| **end <= length as u64).count().saturating_sub(1);
    RECORDS[..whole].iter().map(|record| record.len() as u64).sum()
}

#[test]
fn every_prefix_gives_what_was_acknowledged() {
    let (_directory, bytes, ends) = written(&RECORDS);
    for cut in 0..=bytes.len() {
        let found = recovered(&bytes[..cut]).unwrap_or_else(|error| panic!("{cut}: {error}"));
        assert_eq!(found, acknowledged(&ends, cut), "cut at {cut}");
    }
}

#[test]
fn a_torn_last_record_is_cut_off_whatever_it_holds() {
    let (_directory, bytes, ends) = written(&RECORDS);
    let last = usize::try_from(ends[ends.len() - 2]).unwrap();
    let before = acknowledged(&ends, last);
    for at in last..bytes.len() {
        let mut torn = bytes.clone();
        torn[at] ^= 0x55;
        assert_eq!(recovered(&torn).unwrap(), before, "byte {at} is another");
        let mut torn = bytes.clone();
        torn[at..].fill(0);
        // The last bytes may be zeros anyway.
        if torn != bytes {
            assert_eq!(recovered(&torn).unwrap(), before, "zeros from byte {at}");
        }
        let mut torn = bytes.clone();
        torn[last..at].fill(0);
        if torn != bytes {
            assert_eq!(recovered(&torn).unwrap(), before, "zeros up to byte {at}");
        }
    }
}

#[test]
fn damage_before_whole_records_is_refused() {
    let (_directory, bytes, ends) = written(&RECORDS);
    let first = usize::try_from(ends[0]).unwrap();
    let last = usize::try_from(ends[ends.len() - 2]).unwrap();
    for at in first..last {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let error = recovered(&damaged).unwrap_err();
        assert!(matches!(error, LogError::Damaged { .. }), "byte {at}: {error}");
    }
    let mut other = bytes;
    other[0] ^= 1;
    assert!(matches!(recovered(&other).unwrap_err(), LogError::Unknown { .. }));
}

#[test]
fn a_rewritten_log_leads_to_the_same_state_and_goes_on() {
    let (directory, _, _) = written(&RECORDS);
    let (mut log, state) = Log::open(directory.path()).unwrap();
    log.rewrite(&state).unwrap();
    log.append(&[entry(8)]).unwrap();
    drop(log);
    // A rewriting that did not come to its end is nothing.
    fs::write(directory.path().join("log.new"), b"half").unwrap();
    let (log, again) = Log::open(directory.path()).unwrap();
    assert_eq!((again.revision(), again.now()), (8, Time(8000)));
    assert!(!directory.path().join("log.new").exists());
    assert!(!log.has_grown());
    let bytes = fs::read(directory.path().join("log")).unwrap();
    let mut kept = 0;
    for cut in 8..bytes.len() {
        // The snapshot was whole before it was renamed into place: without it nothing is known.
        match recovered(&bytes[..cut]) {
            Ok(found) => {
                assert_eq!(found, 7, "cut at {cut}");
                kept += 1;
            }
            Err(error) => {
                assert!(matches!(error, LogError::Damaged { .. }) && kept == 0, "{error}")
            }
        }
    }
    assert!(kept > 0);
}

#[test]
fn it_grows_until_it_is_worth_rewriting() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, mut state) = Log::open(directory.path()).unwrap();
    let mut rewritten = 0;
    for round in 0..200 {
        let entries: Vec<_> = (1..=1000).map(|n| entry(round * 1000 + n)).collect();
        entries.iter().for_each(|entry| drop(state.apply(state.revision() + 1, entry)));
        log.append(&entries).unwrap();
        if log.has_grown() {
            log.rewrite(&state).unwrap();
            rewritten += 1;
            assert!(length(directory.path()) < 10_000);
        }
    }
    assert!(rewritten > 0);
    drop(log);
    assert_eq!(Log::open(directory.path()).unwrap().1, state);
}
