//! What the daemon writes down about a container, `STATE/containers/ID/config.json`.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::cgroup::Applied;
use super::layout::Layout;
use super::rootfs::Layer;
use super::{ContainerConfig, Error};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    pub config: ContainerConfig,
    /// Before the groups are made: those that will be, so that none is forgotten.
    pub applied: Applied,
    /// The image's directory, resolved.
    pub image: PathBuf,
    pub layer: Layer,
}

impl Kept {
    /// `None` if there is none, or only a part of one.
    pub(super) fn load(layout: &Layout) -> Result<Option<Self>, Error> {
        match fs::read(layout.config()) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("cannot read", layout.config())(error)),
        }
    }

    /// Replaces the file in one step.
    pub(super) fn save(&self, layout: &Layout) -> Result<(), Error> {
        let path = layout.config();
        let temporary = path.with_extension("json.new");
        let text =
            serde_json::to_vec(self).map_err(|e| Error::io("cannot encode", &path)(e.into()))?;
        fs::write(&temporary, text).map_err(Error::io("cannot write", &temporary))?;
        fs::rename(&temporary, &path).map_err(Error::io("cannot replace", &path))
    }
}
