//! One running store: everything of this folder put together.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::{Config, ReadPolicy, SnapshotPolicy};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::codec;
use super::errors::{self, Lead};
use super::fence::{Boot, Refusal};
use super::hub::Hub;
use super::identity::Draws;
use super::inbox::Inbox;
use super::machine::{MachineStore, View};
use super::network::Network;
use super::parts::{LOG_DIR, LogInUse, Opened, Parts};
use super::room::{Room, Space, majority_has_room};
use super::runtime::seeded;
use super::supervise::{self, Signals};
use super::types::{Blob, Raft, StoredMembership};
use super::wire::MAX_PROPOSAL_BYTES;
use crate::store::{
    Backend, FatalError, Leadership, Machine, OpenError, Proposals, ProposeError, ReadError,
    StoreConfig, Transport,
};

/// Entries in one append message at most; their bytes are bounded when they are read.
const ENTRIES_PER_MESSAGE: u64 = 300;
/// Purged entries collected before the log file is touched.
const PURGE_BATCH: u64 = 256;
/// How long `shutdown` waits for the library to let go of the log files.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
const CLOSE_POLL: Duration = Duration::from_millis(2);

/// A running store. [`crate::store::Store`] is the handle to it.
pub(crate) struct Engine<M: Machine> {
    pub(super) config: StoreConfig,
    pub(super) raft: Raft<M>,
    pub(super) hub: Arc<Hub>,
    pub(super) view: Arc<View<M>>,
    pub(super) signals: Arc<Signals>,
    inbox: Inbox<M>,
    slots: Semaphore,
    closed: AtomicBool,
    /// Proposals made here, and how many of them failed.
    proposed: [AtomicU64; 2],
    /// Tells whether the library still holds the log files.
    log_in_use: LogInUse,
    /// Background tasks; dropping the engine ends them.
    tasks: Mutex<JoinSet<()>>,
}

impl<M: Machine> Engine<M> {
    pub(crate) async fn open<T: Transport>(
        config: StoreConfig,
        backend: Backend,
        transport: T,
    ) -> Result<Self, OpenError> {
        config.validate()?;
        let mut rng = StdRng::seed_from_u64(config.seed);
        let draws = Draws { incarnation: rng.random(), nonce: rng.random() };
        let opening = {
            let (config, backend) = (config.clone(), backend.clone());
            move || Parts::open(&config, &backend, draws)
        };
        let room = Room::new(&backend, LOG_DIR, config.limits.reserve);
        let parts = match backend {
            Backend::Disk(_) => tokio::task::spawn_blocking(opening)
                .await
                .map_err(|error| OpenError::Raft { reason: error.to_string() })?,
            Backend::Memory(_) => opening(),
        }?;
        Self::start(config, (parts, room), transport, rng.random()).await
    }

    async fn start<T: Transport>(
        config: StoreConfig,
        (parts, room): (Parts, Room),
        transport: T,
        seed: u64,
    ) -> Result<Self, OpenError> {
        let Parts { opened, boot, fence } = parts;
        let Opened { files, snapshots, log, work, log_in_use } = opened;
        let (cluster, mark) = (config.cluster_id.clone(), log.mark());
        let hub = Arc::new(Hub::new(cluster, config.number, boot, room, mark, fence));
        let view = Arc::new(View::default());
        let machine = MachineStore::<M>::new(snapshots, view.clone(), work);
        let network = Network { transport, hub: hub.clone() };
        let options = Arc::new(options(&config)?);
        let raft = seeded(seed, Raft::<M>::build(config.number, options, network, log, machine))
            .await
            .map_err(|error| OpenError::Storage {
                place: files.place(""),
                source: std::io::Error::other(error.to_string()),
            })?;
        seeded(seed, async { raft.run() }).await;
        // Known before the first message is taken, so that no stranger slips in at the start.
        hub.set_membership(restored_membership(&raft, config.deadline).await?);
        let signals = Arc::new(Signals::default());
        let mut tasks = JoinSet::new();
        let about = (config.number, config.timings);
        supervise::start(&mut tasks, &raft, &hub, &signals, (files, work), about);
        Ok(Engine {
            inbox: Inbox::new(raft.clone(), hub.clone()),
            slots: Semaphore::new(config.proposals_in_flight),
            closed: AtomicBool::new(false),
            proposed: Default::default(),
            tasks: Mutex::new(tasks),
            config,
            raft,
            hub,
            view,
            signals,
            log_in_use,
        })
    }

    pub(crate) fn view(&self) -> Arc<M> {
        self.view.state.load_full()
    }

    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.view.applied.subscribe()
    }

    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.signals.leadership.subscribe()
    }

    pub(crate) fn boot(&self) -> Boot {
        self.hub.boot
    }

    pub(crate) fn condemned(&self) -> watch::Receiver<Option<Refusal>> {
        self.hub.condemned()
    }

    pub(crate) async fn handle(&self, from: u64, request: Bytes) -> Bytes {
        self.inbox.handle(from, &request).await
    }

    pub(crate) async fn propose(
        &self,
        proposal: &M::Proposal,
    ) -> Result<(u64, M::Outcome), ProposeError> {
        let [asked, failed] = &self.proposed;
        asked.fetch_add(1, Ordering::Relaxed);
        let result = self.write(proposal).await;
        if result.is_err() {
            failed.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    pub(crate) fn proposals(&self) -> Proposals {
        let [asked, failed] = &self.proposed;
        Proposals { asked: asked.load(Ordering::Relaxed), failed: failed.load(Ordering::Relaxed) }
    }

    async fn write(&self, proposal: &M::Proposal) -> Result<(u64, M::Outcome), ProposeError> {
        let bytes = codec::encode("a proposal", proposal)
            .map_err(|error| ProposeError::Encode { reason: error.to_string() })?;
        let (size, limit) = (bytes.len(), MAX_PROPOSAL_BYTES);
        if size > limit {
            return Err(ProposeError::TooBig { size, limit });
        }
        self.check_room()?;
        let waited = self.config.deadline;
        let until = Instant::now() + waited;
        let overloaded =
            ProposeError::Overloaded { limit: self.config.proposals_in_flight, waited };
        let slot = tokio::time::timeout_at(until, self.slots.acquire())
            .await
            .map_err(|_| overloaded)?
            .map_err(|_| ProposeError::Closed)?;
        let writing = self.raft.client_write(Blob(Bytes::from(bytes)));
        let written = tokio::time::timeout_at(until, writing).await;
        drop(slot);
        let answer = match written {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(errors::propose(error, &self.lead(), waited)),
            Err(_) => {
                let reason = "the majority did not answer in time".to_owned();
                return Err(ProposeError::Unknown { waited, reason });
            }
        };
        let outcome = codec::decode("an outcome", &answer.data.0)
            .map_err(|error| ProposeError::Unknown { waited, reason: error.to_string() })?;
        Ok((answer.log_id.index, outcome))
    }

    /// Refuses what a majority could not keep. Who does not lead leaves that to the leader.
    fn check_room(&self) -> Result<(), ProposeError> {
        let short = self.hub.short_of_room();
        if short.is_empty() || !self.signals.leadership.borrow().is_leader() {
            return Ok(());
        }
        if let Some((free, reserve)) = self.no_room() {
            return Err(ProposeError::NoRoom { free, reserve });
        }
        let voters: Vec<u64> = self.voters().iter().map(|voter| voter.number).collect();
        if majority_has_room(&voters, &short) {
            return Ok(());
        }
        Err(ProposeError::NoRoomElsewhere { managers: short.into_iter().collect() })
    }

    /// Bytes that are free and bytes that should be, while this manager's disk is short of room.
    pub(crate) fn no_room(&self) -> Option<(u64, u64)> {
        let room = &self.hub.room;
        (room.space() != Space::Enough).then(|| (room.free(), room.reserve))
    }

    pub(crate) async fn read_barrier(&self) -> Result<u64, ReadError> {
        let waited = self.config.deadline;
        let barrier = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        match tokio::time::timeout(waited, barrier).await {
            Ok(Ok(_)) => Ok(*self.view.applied.borrow()),
            Ok(Err(error)) => Err(errors::read(error, &self.lead())),
            Err(_) => Err(ReadError::Timeout { waited }),
        }
    }

    pub(crate) async fn fatal(&self) -> FatalError {
        let mut fatal = self.signals.fatal.subscribe();
        let seen = fatal.wait_for(Option::is_some).await.map(|seen| seen.clone());
        match seen {
            Ok(Some(error)) => error,
            // The sender lives as long as `self`, and the condition asked for a value.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    pub(crate) async fn snapshot_now(&self) -> Result<(), FatalError> {
        let triggered = self.raft.trigger().snapshot().await;
        triggered.map_err(|error| FatalError { reason: error.to_string() })
    }

    pub(crate) async fn shutdown(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.signals.closing();
        self.slots.close();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "Raft did not stop cleanly");
        }
        let tasks = self.tasks.lock().map(|mut tasks| std::mem::take(&mut *tasks));
        // The guard in the error of a poisoned lock must not live over the wait.
        let mut tasks = tasks.unwrap_or_default();
        tasks.shutdown().await;
        let until = Instant::now() + CLOSE_DEADLINE;
        while self.log_in_use.is_in_use() && Instant::now() < until {
            tokio::time::sleep(CLOSE_POLL).await;
        }
    }

    /// What the error of a refused call is made from.
    pub(super) fn lead(&self) -> Lead {
        Lead {
            known: self.signals.leadership.borrow().leader.clone(),
            number: self.config.number,
            closed: self.closed.load(Ordering::SeqCst),
            fatal: self.signals.fatal.borrow().clone(),
        }
    }

    /// Runs a change with the configured deadline.
    pub(super) async fn in_time<F: Future>(&self, change: F) -> Result<F::Output, Duration> {
        let waited = self.config.deadline;
        tokio::time::timeout(waited, change).await.map_err(|_| waited)
    }
}

/// The membership the library found in the store. Returns once its metrics show it as well.
async fn restored_membership<M: Machine>(
    raft: &Raft<M>,
    patience: Duration,
) -> Result<Arc<StoredMembership>, OpenError> {
    let found = raft
        .with_raft_state(|state| state.membership_state.effective().clone())
        .await
        .map_err(|error| OpenError::Raft { reason: error.to_string() })?;
    let mut metrics = raft.server_metrics();
    let shown = async {
        while metrics.borrow_and_update().membership_config.log_id() < found.log_id() {
            if metrics.changed().await.is_err() {
                break;
            }
        }
    };
    tokio::time::timeout(patience, shown)
        .await
        .map_err(|_| OpenError::Raft { reason: format!("not running after {patience:?}") })?;
    Ok(found)
}

fn options(config: &StoreConfig) -> Result<Config, OpenError> {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let options = Config {
        cluster_name: config.cluster_id.clone(),
        heartbeat_interval: millis(config.timings.heartbeat),
        election_timeout_min: millis(config.timings.election_min),
        election_timeout_max: millis(config.timings.election_max),
        enable_pre_vote: Some(true),
        // Only once the membership names this very store.
        enable_elect: false,
        // The library would let a restarted leader go on in its old term. Its log may be shorter
        // than what it has committed: a majority of others counts, and its own last entries may
        // have been lost before their sync. It would then use their places again, in the same
        // term, and nobody could tell the two apart. Found by simulation (seed 100).
        enable_leader_restore: Some(false),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.limits.snapshot_after),
        max_in_snapshot_log_to_keep: config.limits.keep,
        replication_lag_threshold: config.limits.keep.max(config.limits.snapshot_after) + 1,
        max_payload_entries: ENTRIES_PER_MESSAGE,
        purge_batch_size: PURGE_BATCH,
        ..Config::default()
    };
    options.validate().map_err(|error| OpenError::Raft { reason: error.to_string() })
}
