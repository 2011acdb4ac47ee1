//! The container's output on disk.
//!
//! `STATE-DIR/log` is a sequence of records: a header of 16 bytes, little endian (time in ns since
//! 1970: u64, length of the data: u32, stream 1 = stdout or 2 = stderr: u8, three zero bytes), then
//! the data as read from the pipe. A record is written with one `writev`; a reader takes a record
//! cut short at the end of the file as not there yet. When the next record would pass `FILE_LIMIT`,
//! `log` becomes `log.1`, `log.1` becomes `log.2`, and the oldest goes: at most `FILES` files.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};

/// Bytes in one log file before it is rotated.
const FILE_LIMIT: u64 = 8 << 20;
/// Log files of one container, the newest included.
const FILES: usize = 3;

pub struct Log {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    /// Bytes that could not be written (a full disk): the container goes on, the loss is told in
    /// the status.
    pub lost: u64,
}

impl Log {
    pub fn open(state_dir: &Path) -> Self {
        let path = state_dir.join("log");
        let file = append(&path).ok();
        let size = file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
        Self { path, file, size, lost: 0 }
    }

    /// Writes one record; a failure is counted, never returned, since a container must not stop for
    /// its log.
    pub fn record(&mut self, time_ns: u64, stream: u8, data: &[u8]) {
        if self.try_record(time_ns, stream, data).is_err() {
            self.lost += data.len() as u64;
        }
    }

    fn try_record(&mut self, time_ns: u64, stream: u8, data: &[u8]) -> io::Result<()> {
        let mut header = [0u8; 16];
        header[..8].copy_from_slice(&time_ns.to_le_bytes());
        header[8..12].copy_from_slice(&(data.len() as u32).to_le_bytes());
        header[12] = stream;
        let whole = (header.len() + data.len()) as u64;
        if self.size + whole > FILE_LIMIT && self.size > 0 {
            self.rotate();
        }
        if self.file.is_none() {
            self.file = Some(append(&self.path)?);
        }
        let Some(file) = self.file.as_mut() else { return Err(io::ErrorKind::NotFound.into()) };
        let written = file.write_vectored(&[IoSlice::new(&header), IoSlice::new(data)])? as u64;
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
            let from = if n == 1 { self.path.clone() } else { numbered(&self.path, n - 1) };
            // A missing older file is the normal case before the limit was reached that often.
            let _ = std::fs::rename(from, numbered(&self.path, n));
        }
        self.file = None;
        self.size = 0;
    }
}

fn numbered(path: &Path, n: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}
