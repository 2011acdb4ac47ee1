//! What the node remembers of its cluster. The file is the commit point: a node with it is a member,
//! a node without it is none, whatever else lies in the directory.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use weft_model::{ClusterId, NodeId, spec::Role};
use weft_proto::tls::{Identity, store};

/// The file.
const FILE: &str = "member.json";
/// Directory of the certificate and its key.
const IDENTITY: &str = "identity";
/// Directory of the replicated store, on a manager.
const RAFT: &str = "raft";

/// What a member knows of itself without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// This node.
    pub node: NodeId,
    /// The cluster.
    pub cluster: ClusterId,
    /// Its number there.
    pub number: u64,
    /// What it was when it last looked.
    pub role: Role,
    /// Where others reach it.
    pub address: SocketAddr,
    /// Where its overlays' outer packets come from and go to.
    pub data_path: IpAddr,
    /// Where managers were when it last looked.
    pub managers: Vec<SocketAddr>,
}

/// Where membership is kept.
#[derive(Clone, Debug)]
pub struct Home {
    state_dir: PathBuf,
}

impl Home {
    /// In this state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned() }
    }

    /// Directory of the replicated store.
    pub fn raft(&self) -> PathBuf {
        self.state_dir.join(RAFT)
    }

    /// Directory of the certificate.
    pub fn identity(&self) -> PathBuf {
        self.state_dir.join(IDENTITY)
    }

    /// The membership and the certificate, if the node is a member.
    ///
    /// # Errors
    /// A file that cannot be read, or a member without its certificate.
    pub fn load(&self) -> anyhow::Result<Option<(Member, Identity)>> {
        let text = match fs::read(self.state_dir.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let member: Member = serde_json::from_slice(&text)?;
        let identity = store::load(&self.identity())?
            .ok_or_else(|| anyhow::anyhow!("the node's certificate is missing"))?;
        Ok(Some((member, identity)))
    }

    /// Keeps the membership, whole or not at all.
    ///
    /// # Errors
    /// When the disk refuses; what was kept before is then still there.
    pub fn save(&self, member: &Member) -> io::Result<()> {
        let path = self.state_dir.join(FILE);
        let next = path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(&serde_json::to_vec_pretty(member)?)?;
        file.sync_all()?;
        fs::rename(&next, &path)?;
        File::open(&self.state_dir)?.sync_all()
    }

    /// Forgets the cluster: first that the node is a member, then everything else.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn erase(&self) -> anyhow::Result<()> {
        gone(fs::remove_file(self.state_dir.join(FILE)))?;
        File::open(&self.state_dir)?.sync_all()?;
        self.clear()
    }

    /// Removes what a node that is no member may have left of a join or leave that was cut short.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn clear(&self) -> anyhow::Result<()> {
        self.erase_raft()?;
        gone(fs::remove_dir_all(self.identity()))?;
        Ok(())
    }

    /// Removes the replicated store.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn erase_raft(&self) -> io::Result<()> {
        gone(fs::remove_dir_all(self.raft()))
    }
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
