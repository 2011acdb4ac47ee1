//! The container's output on disk.
//!
//! `STATE-DIR/log` is a sequence of records: a header of 16 bytes, little endian (time in ns since
//! 1970: u64, length of the data: u32, stream 1 = stdout or 2 = stderr: u8, three zero bytes), then
//! the data as read from the pipe. A record is written with one `writev`; a reader takes a record
//! cut short at the end of the file as not there yet. When the next record would pass `FILE_LIMIT`,
//! `log` becomes `log.1`, `log.1` becomes `log.2`, and the oldest goes: at most `FILES` files.
//!
//! Inside of the shim a place in the log is the number of bytes before it, counted over the
//! rotations from the beginning of the file that was there when the shim began.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes in one log file before it is rotated.
const FILE_LIMIT: u64 = 8 << 20;
/// Log files of one container, the newest included.
const FILES: usize = 3;
/// Bytes before the data of a record.
pub const HEADER: usize = 16;

pub type Header = [u8; HEADER];

pub struct Log {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    /// Where the files begin that this shim has written to, the newest first.
    begins: [Option<u64>; FILES],
    /// Bytes that could not be written (a full disk): the container goes on, the loss is told in
    /// the status.
    pub lost: u64,
}

/// The header of a record that is made now.
pub fn header(time_ns: u64, stream: u8, data: &[u8]) -> Header {
    let mut header = [0u8; HEADER];
    header[..8].copy_from_slice(&time_ns.to_le_bytes());
    header[8..12].copy_from_slice(&(data.len() as u32).to_le_bytes());
    header[12] = stream;
    header
}

impl Log {
    pub fn open(state_dir: &Path) -> Self {
        let path = state_dir.join("log");
        let file = append(&path).ok();
        let size = file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
        Self { path, file, size, begins: [Some(0), None, None], lost: 0 }
    }

    /// Where the next record goes.
    pub fn end(&self) -> u64 {
        self.begins[0].unwrap_or(0) + self.size
    }

    /// The first place that is still there.
    pub fn first(&self) -> u64 {
        self.begins.iter().flatten().copied().last().unwrap_or(0)
    }

    /// Reads the record at a place: its header and the length of its data.
    pub fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<(Header, usize)> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let holds = |begin: &Option<u64>| begin.is_some_and(|begin| begin <= at);
        let n = self.begins.iter().position(holds).ok_or_else(gone)?;
        let at = at - self.begins[n].ok_or_else(gone)?;
        let file = File::open(numbered(&self.path, n))?;
        let mut header = [0u8; HEADER];
        file.read_exact_at(&mut header, at)?;
        let length = [header[8], header[9], header[10], header[11]];
        let length = u32::from_le_bytes(length) as usize;
        let data = buffer.get_mut(..length).ok_or(io::ErrorKind::InvalidData)?;
        file.read_exact_at(data, at + HEADER as u64)?;
        Ok((header, length))
    }

    /// Writes one record; a failure is counted, never returned, since a container must not stop for
    /// its log.
    pub fn record(&mut self, header: &Header, data: &[u8]) {
        if self.try_record(header, data).is_err() {
            self.lost += data.len() as u64;
        }
    }

    fn try_record(&mut self, header: &Header, data: &[u8]) -> io::Result<()> {
        let whole = (header.len() + data.len()) as u64;
        if self.size + whole > FILE_LIMIT && self.size > 0 {
            self.rotate();
        }
        if self.file.is_none() {
            self.file = Some(append(&self.path)?);
        }
        let Some(file) = self.file.as_mut() else { return Err(io::ErrorKind::NotFound.into()) };
        let written = file.write_vectored(&[IoSlice::new(header), IoSlice::new(data)])? as u64;
        if written == whole {
            self.size += whole;
            return Ok(());
        }
        // A half record would make all that follows unreadable.
        file.set_len(self.size)?;
        Err(io::ErrorKind::WriteZero.into())
    }

    fn rotate(&mut self) {
        for n in (1..FILES).rev() {
            // A missing older file is the normal case before the limit was reached that often.
            let _ = std::fs::rename(numbered(&self.path, n - 1), numbered(&self.path, n));
        }
        let end = self.end();
        self.begins.rotate_right(1);
        self.begins[0] = Some(end);
        self.file = None;
        self.size = 0;
    }
}

fn numbered(path: &Path, n: usize) -> PathBuf {
    if n == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}
