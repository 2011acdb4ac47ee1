//! Reading what `weft-shim` writes: the format and the rotation are in `shim/src/log.rs`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Log files at most, the newest included; the shim's number.
const FILES: usize = 3;
const HEADER: usize = 16;
/// No record is longer than one read of the shim's.
const MAX_RECORD: usize = 1 << 20;
/// How often a follower looks for more.
const FOLLOW_POLL: Duration = Duration::from_millis(50);
/// Records on their way to one reader.
const QUEUE: usize = 64;
/// Bytes read from a file at once.
const CHUNK: usize = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    Stdout,
    Stderr,
}

/// One piece of output as it was read from the container's pipe: not a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    pub time: SystemTime,
    pub stream: OutputStream,
    pub data: Bytes,
}

/// Which part of a log.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogQuery {
    /// Go on until the container has ended.
    pub follow: bool,
    /// The last lines only.
    pub tail: Option<usize>,
    /// Records from this time on.
    pub since: Option<SystemTime>,
}

/// Records in order. Dropping it ends the reading.
#[derive(Debug)]
pub struct LogStream {
    records: mpsc::Receiver<io::Result<LogRecord>>,
}

impl LogStream {
    /// The next record; `None` at the end.
    pub async fn next(&mut self) -> Option<io::Result<LogRecord>> {
        self.records.recv().await
    }
}

/// Starts reading; `ended` resolves when no more will be written.
pub(super) fn stream(
    log: PathBuf,
    query: LogQuery,
    ended: impl Future<Output = ()> + Send + 'static,
) -> LogStream {
    let (sender, records) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        // The only error of a send is that nobody reads any more.
        let _ = pump(Reader::new(log), query, ended, &sender).await;
    });
    LogStream { records }
}

struct NobodyReads;

async fn pump(
    mut reader: Reader,
    query: LogQuery,
    ended: impl Future<Output = ()>,
    sender: &mpsc::Sender<io::Result<LogRecord>>,
) -> Result<(), NobodyReads> {
    let mut past = VecDeque::new();
    let wanted = |record: &LogRecord| query.since.is_none_or(|since| record.time >= since);
    loop {
        let (back, batch) = batch(reader).await;
        reader = back;
        match batch {
            Ok(records) if records.is_empty() => break,
            Ok(records) => match query.tail {
                Some(lines) => {
                    past.extend(records.into_iter().filter(wanted));
                    keep_lines(&mut past, lines);
                }
                None => send(sender, records.into_iter().filter(wanted)).await?,
            },
            Err(error) => return fail(sender, error).await,
        }
    }
    send(sender, past).await?;
    if !query.follow {
        return Ok(());
    }
    tokio::pin!(ended);
    let mut last_look = false;
    loop {
        let (back, batch) = batch(reader).await;
        reader = back;
        let records = match batch {
            Ok(records) => records,
            Err(error) => return fail(sender, error).await,
        };
        if records.is_empty() {
            if last_look {
                return Ok(());
            }
            tokio::select! {
                () = &mut ended => last_look = true,
                () = tokio::time::sleep(FOLLOW_POLL) => {}
                () = sender.closed() => return Err(NobodyReads),
            }
        }
        send(sender, records.into_iter().filter(wanted)).await?;
    }
}

async fn batch(mut reader: Reader) -> (Reader, io::Result<Vec<LogRecord>>) {
    let path = reader.path.clone();
    let read = tokio::task::spawn_blocking(move || {
        let records = reader.batch();
        (reader, records)
    });
    // The task does not panic and is not aborted but with the runtime, when nobody reads this.
    read.await.unwrap_or_else(|error| (Reader::new(path), Err(io::Error::other(error))))
}

async fn send(
    sender: &mpsc::Sender<io::Result<LogRecord>>,
    records: impl IntoIterator<Item = LogRecord>,
) -> Result<(), NobodyReads> {
    for record in records {
        sender.send(Ok(record)).await.map_err(|_| NobodyReads)?;
    }
    Ok(())
}

async fn fail(
    sender: &mpsc::Sender<io::Result<LogRecord>>,
    error: io::Error,
) -> Result<(), NobodyReads> {
    sender.send(Err(error)).await.map_err(|_| NobodyReads)
}

/// Drops from the front what is not among the last `lines` lines; a last line without its end
/// counts as one.
fn keep_lines(records: &mut VecDeque<LogRecord>, lines: usize) {
    let ends = |r: &LogRecord| r.data.iter().filter(|b| **b == b'\n').count();
    let open = records.back().is_some_and(|r| r.data.last() != Some(&b'\n'));
    let total = records.iter().map(ends).sum::<usize>() + usize::from(open);
    let mut surplus = total.saturating_sub(lines);
    while surplus > 0 {
        let Some(first) = records.front_mut() else { return };
        let here = ends(first);
        if here <= surplus {
            // What follows the last line end belongs to the line that goes on in the next record.
            let cut = first.data.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            let rest = first.data.slice(cut..);
            surplus -= here;
            if surplus > 0 || rest.is_empty() {
                records.pop_front();
            } else {
                first.data = rest;
            }
        } else {
            let nth = first.data.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(surplus - 1);
            let cut = nth.map_or(0, |(at, _)| at + 1);
            first.data = first.data.slice(cut..);
            surplus = 0;
        }
    }
    if lines == 0 {
        records.clear();
    }
}

/// Walks the files from the oldest to the newest and goes on where it stopped, also across a
/// rotation.
struct Reader {
    path: PathBuf,
    file: Option<File>,
    pending: Vec<u8>,
}

impl Reader {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, pending: Vec::new() }
    }

    /// The next records; none when there are no more now.
    fn batch(&mut self) -> io::Result<Vec<LogRecord>> {
        loop {
            let Some(file) = self.file.as_mut() else {
                match self.oldest() {
                    Some(oldest) => self.file = Some(oldest),
                    None => return Ok(Vec::new()),
                }
                continue;
            };
            // Looked for before the read: what a file gets before it is rotated away is then read,
            // too.
            let newer = newer_than(&self.path, file.metadata()?.ino());
            let n = file.take(CHUNK as u64).read_to_end(&mut self.pending)?;
            let records = parse(&mut self.pending)?;
            if !records.is_empty() {
                return Ok(records);
            }
            if n == 0 {
                match newer {
                    Some(newer) => {
                        self.file = Some(newer);
                        self.pending.clear();
                    }
                    None => return Ok(Vec::new()),
                }
            }
        }
    }

    fn oldest(&self) -> Option<File> {
        (0..FILES).rev().find_map(|n| File::open(numbered(&self.path, n)).ok())
    }
}

fn newer_than(path: &Path, inode: u64) -> Option<File> {
    let files: Vec<File> =
        (0..FILES).rev().filter_map(|n| File::open(numbered(path, n)).ok()).collect();
    let inodes = files.iter().map(|f| f.metadata().map_or(0, |m| m.ino()));
    // One that was rotated out of existence is older than all.
    let next = inodes.into_iter().position(|i| i == inode).map_or(0, |at| at + 1);
    files.into_iter().nth(next)
}

fn numbered(path: &Path, n: usize) -> PathBuf {
    if n == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// Takes the whole records out of `bytes`.
pub(super) fn parse(bytes: &mut Vec<u8>) -> io::Result<Vec<LogRecord>> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + HEADER) {
        let (time, rest) = header.split_at(8);
        let time = u64::from_le_bytes(time.try_into().unwrap_or_default());
        let length = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        let stream = match rest[4] {
            1 => OutputStream::Stdout,
            2 => OutputStream::Stderr,
            other => return Err(broken(format!("stream {other}"))),
        };
        if length > MAX_RECORD {
            return Err(broken(format!("record of {length} B")));
        }
        let Some(data) = bytes.get(at + HEADER..at + HEADER + length) else { break };
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(time);
        out.push(LogRecord { time, stream, data: Bytes::copy_from_slice(data) });
        at += HEADER + length;
    }
    bytes.drain(..at);
    Ok(out)
}

fn broken(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("log is damaged: {what}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn record(data: &str) -> LogRecord {
        LogRecord {
            time: SystemTime::UNIX_EPOCH,
            stream: OutputStream::Stdout,
            data: Bytes::copy_from_slice(data.as_bytes()),
        }
    }

    fn encoded(data: &[u8]) -> Vec<u8> {
        let mut out = 7u64.to_le_bytes().to_vec();
        out.extend((data.len() as u32).to_le_bytes());
        out.extend([2, 0, 0, 0]);
        out.extend(data);
        out
    }

    proptest! {
        #[test]
        fn the_tail_is_what_tail_says(text in proptest::collection::vec("[ab\n]{1,6}", 0..8), lines in 0usize..6) {
            let mut records: VecDeque<LogRecord> = text.iter().map(|t| record(t)).collect();
            keep_lines(&mut records, lines);
            let got: String = records.iter().map(|r| String::from_utf8_lossy(&r.data).into_owned()).collect();
            let whole = text.concat();
            let all: Vec<&str> = whole.split_inclusive('\n').collect();
            let want = all[all.len().saturating_sub(lines)..].concat();
            prop_assert_eq!(got, want);
        }

        #[test]
        fn a_record_cut_short_waits_for_its_rest(data in proptest::collection::vec(any::<u8>(), 0..40), cut in 0usize..56) {
            let whole = encoded(&data);
            let cut = cut.min(whole.len());
            let mut bytes = whole[..cut].to_vec();
            let first = parse(&mut bytes).expect("good");
            prop_assert_eq!(first.len(), usize::from(cut == whole.len()));
            bytes.extend(&whole[cut..]);
            let second = parse(&mut bytes).expect("good");
            prop_assert_eq!(first.len() + second.len(), 1);
            prop_assert_eq!(&first.iter().chain(&second).next().expect("one").data[..], &data[..]);
        }
    }

    #[test]
    fn a_reader_goes_on_across_rotations() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("log");
        let add = |text: &str| {
            let mut file = File::options().append(true).create(true).open(&path).expect("open");
            file.write_all(&encoded(text.as_bytes())).expect("write");
        };
        let rotate = || {
            let _ = std::fs::rename(numbered(&path, 1), numbered(&path, 2));
            std::fs::rename(&path, numbered(&path, 1)).expect("rename");
        };
        let mut reader = Reader::new(path.clone());
        let mut read = || -> String {
            let mut out = String::new();
            loop {
                let batch = reader.batch().expect("good");
                if batch.is_empty() {
                    return out;
                }
                out.extend(batch.iter().map(|r| String::from_utf8_lossy(&r.data).into_owned()));
            }
        };
        assert_eq!(read(), "");
        add("a");
        rotate();
        add("b");
        assert_eq!(read(), "ab");
        add("c");
        rotate();
        add("d");
        rotate();
        add("e");
        assert_eq!(read(), "cde");
    }

    #[test]
    fn damage_is_told() {
        let mut bytes = encoded(b"x");
        bytes[12] = 9;
        assert!(parse(&mut bytes).is_err());
    }
}
