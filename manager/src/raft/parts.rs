//! What a store is made of before the library runs on it: the files, opened and checked.

use std::path::Path;

use super::fence::{Boot, Fence};
use super::files::Files;
use super::identity::{self, Draws};
use super::log::disk::{DiskLog, WeakLog};
use super::log::memory::MemoryLog;
use super::log::{self, LogStore};
use super::machine::Work;
use super::snapshot::Snapshots;
use crate::store::{Backend, IdentityError, OpenError, StoreConfig};

/// Folder of the log in the store's directory.
pub(super) const LOG_DIR: &str = "log";
/// Folder of the snapshots in the store's directory.
const SNAPSHOT_DIR: &str = "snapshots";

/// The opened files of a store.
pub(super) struct Opened {
    pub(super) files: Files,
    pub(super) snapshots: Snapshots,
    pub(super) log: LogStore,
    pub(super) work: Work,
    pub(super) log_in_use: LogInUse,
}

/// A store that has counted its start.
pub(super) struct Parts {
    pub(super) opened: Opened,
    pub(super) boot: Boot,
    pub(super) fence: Fence,
}

/// Whether the files of a log are still open.
#[derive(Clone, Debug)]
pub(super) enum LogInUse {
    Disk(WeakLog),
    /// A memory disk can always be opened again.
    Never,
}

impl LogInUse {
    pub(super) fn is_in_use(&self) -> bool {
        match self {
            LogInUse::Disk(log) => log.is_in_use(),
            LogInUse::Never => false,
        }
    }
}

impl Opened {
    /// Opens the files. It reads the log back, which takes a while on a disk.
    pub(super) fn open(backend: &Backend) -> Result<Self, OpenError> {
        match backend {
            Backend::Disk(dir) => Self::on_disk(dir),
            Backend::Memory(disk) => {
                let files = Files::Memory(disk.clone());
                let log = log::Backend::Memory(MemoryLog::open(disk));
                let place = files.place("");
                let log =
                    LogStore::new(log).map_err(|source| OpenError::Storage { place, source })?;
                let snapshots = Snapshots::new(files.clone());
                let (work, log_in_use) = (Work::InPlace, LogInUse::Never);
                Ok(Opened { files, snapshots, log, work, log_in_use })
            }
        }
    }

    fn on_disk(dir: &Path) -> Result<Self, OpenError> {
        let storage = |source| OpenError::Storage { place: dir.display().to_string(), source };
        let files = Files::Disk(dir.to_owned()).open().map_err(storage)?;
        let images = Files::Disk(dir.join(SNAPSHOT_DIR)).open().map_err(storage)?;
        let log = DiskLog::open(&dir.join(LOG_DIR)).map_err(storage)?;
        let log_in_use = LogInUse::Disk(log.weak());
        let log = LogStore::new(log::Backend::Disk(log)).map_err(storage)?;
        let (snapshots, work) = (Snapshots::new(images), Work::OnBlockingThreads);
        Ok(Opened { files, snapshots, log, work, log_in_use })
    }

    /// Whether anything was ever written to the log.
    pub(super) fn is_used(&self) -> Result<bool, OpenError> {
        let summary = self.log.summary();
        let place = self.files.place("");
        let summary = summary.map_err(|source| OpenError::Storage { place, source })?;
        Ok(summary.vote.is_some())
    }
}

impl Parts {
    /// Opens the files and counts this start.
    pub(super) fn open(
        config: &StoreConfig,
        backend: &Backend,
        draws: Draws,
    ) -> Result<Self, OpenError> {
        let opened = Opened::open(backend)?;
        let files = &opened.files;
        if !identity::exists(files)? && opened.is_used()? {
            return Err(IdentityError::Missing { path: files.place("identity") }.into());
        }
        let boot = identity::start(files, &config.cluster_id, config.number, draws)?;
        let fence = identity::read_peers(files)?;
        Ok(Parts { opened, boot, fence })
    }
}
