//! Going on with one manager after the majority is lost for good.
//!
//! The closed log gets one more entry: a membership of this manager alone. Raft takes the last
//! membership in a log as the one in force, so at its next start the manager elects itself and
//! commits all it has. It belongs to a new cluster then; to the managers that were given up it is a
//! stranger, and they to it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use openraft::Membership;
use openraft::async_runtime::Oneshot;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::alias::OneshotOf;

use super::identity;
use super::log::LogStore;
use super::parts::Opened;
use super::types::{Entry, NodeRecord, Payload, TypeConfig, Vote, log_id};
use crate::store::{Backend, OpenError, RecoverError, StoreConfig};

/// See [`crate::store::Store::recover`].
pub(crate) async fn recover(
    config: StoreConfig,
    backend: Backend,
    address: String,
) -> Result<(), RecoverError> {
    config.validate().map_err(OpenError::from)?;
    let opened = match backend {
        Backend::Disk(_) => tokio::task::spawn_blocking(move || Opened::open(&backend))
            .await
            .map_err(|error| OpenError::Raft { reason: error.to_string() })?,
        Backend::Memory(_) => Opened::open(&backend),
    }?;
    let files = opened.files.clone();
    let (cluster, incarnation) =
        identity::belongs_to(&files, config.number).map_err(OpenError::from)?;
    if cluster == config.cluster_id {
        return Err(RecoverError::SameCluster { cluster });
    }
    let place = files.place("");
    if !opened.is_used()? {
        return Err(RecoverError::Empty { place });
    }
    let record = NodeRecord { address, incarnation };
    // The log first: until the new cluster is written, the whole can be done again.
    append_alone(opened.log, config.number, record)
        .await
        .map_err(|source| RecoverError::Write { place, source })?;
    identity::move_to(&files, &config.cluster_id, config.number).map_err(OpenError::from)?;
    Ok(())
}

/// Appends a membership of `number` alone, in a term of its own.
async fn append_alone(mut log: LogStore, number: u64, record: NodeRecord) -> io::Result<()> {
    let summary = log.summary()?;
    let term = summary.vote.map_or(0, |vote| vote.leader_id.term) + 1;
    let index = summary.last.map_or(0, |id| id.index) + 1;
    let nodes = BTreeMap::from([(number, record)]);
    let alone = Membership::new(vec![BTreeSet::from([number])], nodes).map_err(io::Error::other)?;
    log.save_vote(&Vote::new(term, number)).await?;
    let (tell, told) = <OneshotOf<TypeConfig> as Oneshot>::channel();
    let entry = Entry::new(log_id(term, index), Payload::Membership(alone));
    log.append([entry], IOFlushed::signal(tell)).await?;
    told.await.map_err(|_| io::Error::other("the log writer has stopped"))?
}
