//! The durable log of this node's own state: one file of checksummed records, a snapshot first.
//!
//! A record is written and synced before anybody hears that its change has happened. A crash can
//! tear only the last record, which is cut off; damage before a whole record is no crash, and is
//! refused rather than forgotten.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use weft_model::{State, command::Proposal};

use crate::failpoint;

/// The file; rewritten to a second one and renamed.
const FILE: &str = "log";
/// How a file begins that has had no snapshot yet; changes when the form of the file does.
const MAGIC: &[u8; 8] = b"weftlog1";
/// How a rewritten file begins. It was whole before it got its name, so its snapshot cannot be torn.
const MAGIC_REWRITTEN: &[u8; 8] = b"weftsnp1";
/// Bytes of a record before its body: length, checksum of the body, checksum of those two.
const HEAD: usize = 12;
/// The file is rewritten when it is longer than this...
const REWRITE_AT: u64 = 1024 * 1024;
/// ...and that many times longer than the snapshot at its beginning.
const REWRITE_GROWTH: u64 = 4;
/// Longest record, so that a damaged length cannot ask for more memory.
const RECORD_MAX: usize = 256 * 1024 * 1024;

/// Why the log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk.
    #[error("{what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Not torn by a crash: whole records follow, or it is the snapshot.
    #[error("{path} is damaged at byte {at}, which no crash can have done")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
    },
    /// Another form of file.
    #[error("{path} was not written by this version")]
    Unknown {
        /// The file.
        path: PathBuf,
    },
    /// After a failed sync nobody knows what is on the disk.
    #[error("{path} takes no more changes until the daemon is restarted: the disk has failed")]
    Broken {
        /// The file.
        path: PathBuf,
    },
}

/// What one record says, when it is read.
#[derive(Deserialize)]
enum Record {
    Snapshot(Box<State>),
    Entries(Vec<Proposal>),
}

/// The same, when it is written.
#[derive(Serialize)]
enum RecordRef<'a> {
    Snapshot(&'a State),
    Entries(&'a [Proposal]),
}

/// The log, open for writing. There is one writer: the daemon holds the lock of its state directory.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    /// Bytes that are whole.
    length: u64,
    /// Of those, the snapshot's.
    snapshot: u64,
    broken: bool,
}

impl Log {
    /// Opens the log in `directory`, which is made, and gives back the state it leads to.
    ///
    /// # Errors
    /// When it cannot be read, or what is there is not the whole truth.
    pub fn open(directory: &Path) -> Result<(Self, State), LogError> {
        let path = directory.join(FILE);
        let at = |what, source| LogError::Io { what, path: path.clone(), source };
        fs::create_dir_all(directory).map_err(|source| at("cannot make", source))?;
        // What a rewriting left that did not come to its end.
        match fs::remove_file(next_of(&path)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(at("cannot clear", source));
            }
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new();
        file.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = file.open(&path).map_err(|source| at("cannot open", source))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|source| at("cannot read", source))?;
        let found = recover(&bytes, &path)?;
        let mut log =
            Self { path, file, length: found.length, snapshot: found.snapshot, broken: false };
        if found.length < bytes.len() as u64 || found.length == 0 {
            log.cut().map_err(|source| log.error("cannot cut off the torn end of", source))?;
        }
        Ok((log, found.state))
    }

    /// Appends entries as one record: after a crash all of them are there, or none.
    ///
    /// # Errors
    /// When the disk refuses; nothing of them is then there.
    pub fn append(&mut self, entries: &[Proposal]) -> Result<(), LogError> {
        if self.broken {
            return Err(LogError::Broken { path: self.path.clone() });
        }
        let record = encode(&RecordRef::Entries(entries))
            .map_err(|source| self.error("cannot write", source))?;
        failpoint!("local.log.append");
        if let Err(source) = self.file.write_all(&record) {
            // What was written of it must not stand before the next one.
            self.broken = self.cut().is_err();
            return Err(self.error("cannot write", source));
        }
        failpoint!("local.log.sync");
        if let Err(source) = self.file.sync_data() {
            self.broken = true;
            return Err(self.error("cannot sync", source));
        }
        failpoint!("local.log.synced");
        self.length += record.len() as u64;
        Ok(())
    }

    /// Whether it is worth rewriting.
    pub fn has_grown(&self) -> bool {
        self.length > REWRITE_AT.max(self.snapshot.saturating_mul(REWRITE_GROWTH))
    }

    /// Replaces the file by one that begins with `state`, to which all entries have led.
    ///
    /// # Errors
    /// When the disk refuses. The former file is then still in force, or nothing more is taken.
    pub fn rewrite(&mut self, state: &State) -> Result<(), LogError> {
        let (file, length) =
            self.write_next(state).map_err(|source| self.error("cannot rewrite", source))?;
        (self.file, self.length, self.snapshot) = (file, length, length);
        let renamed = sync_directory(&self.path);
        // If that fails, a crash may bring the former file back, and what is appended now is lost.
        self.broken = renamed.is_err();
        renamed.map_err(|source| self.error("cannot rewrite", source))
    }

    fn write_next(&self, state: &State) -> io::Result<(File, u64)> {
        let next = next_of(&self.path);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&next)?;
        let record = encode(&RecordRef::Snapshot(state))?;
        file.write_all(MAGIC_REWRITTEN)?;
        file.write_all(&record)?;
        failpoint!("local.log.rewrite.written");
        file.sync_data()?;
        failpoint!("local.log.rewrite.synced");
        fs::rename(&next, &self.path)?;
        failpoint!("local.log.rewrite.renamed");
        Ok((file, (MAGIC_REWRITTEN.len() + record.len()) as u64))
    }

    /// Makes the file end where it is whole.
    fn cut(&mut self) -> io::Result<()> {
        if self.length == 0 {
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(MAGIC)?;
            self.length = MAGIC.len() as u64;
        }
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.sync_all()?;
        sync_directory(&self.path)
    }

    fn error(&self, what: &'static str, source: io::Error) -> LogError {
        LogError::Io { what, path: self.path.clone(), source }
    }
}

fn next_of(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// The name of a file is on the disk when its directory is.
fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn encode(record: &RecordRef<'_>) -> io::Result<Vec<u8>> {
    let mut out = vec![0; HEAD];
    rmp_serde::encode::write_named(&mut out, record).map_err(io::Error::other)?;
    let length = out.len() - HEAD;
    let short = u32::try_from(length).ok().filter(|_| length <= RECORD_MAX);
    let short = short.ok_or_else(|| io::Error::other("a record that is too long"))?;
    let sum = crc32fast::hash(&out[HEAD..]);
    out[..4].copy_from_slice(&short.to_be_bytes());
    out[4..8].copy_from_slice(&sum.to_be_bytes());
    let head = crc32fast::hash(&out[..8]);
    out[8..HEAD].copy_from_slice(&head.to_be_bytes());
    Ok(out)
}

/// The state that the bytes of such a file lead to, and how many of them are whole.
///
/// # Errors
/// As [`Log::open`].
pub fn state_of(bytes: &[u8]) -> Result<(State, u64), LogError> {
    recover(bytes, Path::new(FILE)).map(|found| (found.state, found.length))
}

/// What the bytes of a file lead to.
struct Recovered {
    state: State,
    length: u64,
    snapshot: u64,
}

fn recover(bytes: &[u8], path: &Path) -> Result<Recovered, LogError> {
    let unknown = || LogError::Unknown { path: path.to_owned() };
    let mut found = Recovered { state: State::default(), length: 0, snapshot: 0 };
    if bytes.len() < MAGIC.len() {
        // The very first write was torn.
        let torn = MAGIC.starts_with(bytes) || bytes.iter().all(|byte| *byte == 0);
        return if torn { Ok(found) } else { Err(unknown()) };
    }
    let rewritten = bytes.starts_with(MAGIC_REWRITTEN);
    if !rewritten && !bytes.starts_with(MAGIC) {
        return if bytes.iter().all(|byte| *byte == 0) { Ok(found) } else { Err(unknown()) };
    }
    let mut at = MAGIC.len();
    while let Some(body) = body_at(bytes, at) {
        at += HEAD + body.len();
        // A record with a right checksum that does not parse is of another version.
        match rmp_serde::from_slice(body).map_err(|_| unknown())? {
            Record::Snapshot(state) => {
                (found.state, found.snapshot) = (*state, at as u64);
            }
            Record::Entries(entries) => {
                for entry in &entries {
                    found.state.apply(found.state.revision() + 1, entry);
                }
            }
        }
    }
    found.length = at as u64;
    let lost = rewritten && found.snapshot == 0;
    if lost || (at + 1..bytes.len()).any(|later| body_at(bytes, later).is_some()) {
        return Err(LogError::Damaged { path: path.to_owned(), at: found.length });
    }
    Ok(found)
}

/// The body of the record that begins at `at`, if it is whole.
fn body_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let head = bytes.get(at..at + HEAD)?;
    let number = |from: usize| Some(u32::from_be_bytes(head[from..from + 4].try_into().ok()?));
    if crc32fast::hash(&head[..8]) != number(8)? {
        return None;
    }
    let length = usize::try_from(number(0)?).ok().filter(|length| *length <= RECORD_MAX)?;
    let body = bytes.get(at + HEAD..(at + HEAD).checked_add(length)?)?;
    (crc32fast::hash(body) == number(4)?).then_some(body)
}
