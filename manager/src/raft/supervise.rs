//! Watches the library and tells the store: who leads, who is a member, whether it has died.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::fence::Fence;
use super::files::Files;
use super::hub::Hub;
use super::identity;
use super::log::invalid;
use super::machine::Work;
use super::types::Raft;
use crate::store::{FatalError, Leadership, Machine, Peer, Role};

/// How often what is remembered of the peers is written, when it changed. It may be lost by this
/// much: it catches stores that went back by more.
const REMEMBER_EVERY: Duration = Duration::from_secs(2);

/// What the tasks here tell.
#[derive(Debug)]
pub(crate) struct Signals {
    pub(crate) leadership: watch::Sender<Leadership>,
    pub(crate) fatal: watch::Sender<Option<FatalError>>,
    closing: AtomicBool,
}

impl Default for Signals {
    fn default() -> Self {
        Signals {
            leadership: watch::Sender::new(Leadership::default()),
            fatal: watch::Sender::new(None),
            closing: AtomicBool::new(false),
        }
    }
}

impl Signals {
    /// From now on a stopped engine is what was asked for.
    pub(crate) fn closing(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    fn died(&self, reason: String) {
        self.leadership.send_modify(|now| {
            now.role = Role::Stopped;
            now.leader = None;
        });
        if !self.closing.load(Ordering::SeqCst) {
            tracing::error!(reason, "Raft has died");
            self.fatal.send_replace(Some(FatalError { reason }));
        }
    }
}

/// Starts the tasks.
pub(crate) fn start<M: Machine>(
    tasks: &mut JoinSet<()>,
    raft: &Raft<M>,
    hub: &Arc<Hub>,
    signals: &Arc<Signals>,
    (files, work): (Files, Work),
    number: u64,
) {
    tasks.spawn(follow_server(raft.clone(), hub.clone(), signals.clone(), number));
    tasks.spawn(watch_health(raft.clone(), signals.clone()));
    tasks.spawn(stand_down(raft.clone(), hub.clone()));
    tasks.spawn(remember(hub.clone(), files, work));
}

/// Keeps leadership and membership current.
async fn follow_server<M: Machine>(
    raft: Raft<M>,
    hub: Arc<Hub>,
    signals: Arc<Signals>,
    number: u64,
) {
    let mut metrics = raft.server_metrics();
    loop {
        let now = metrics.borrow_and_update().clone();
        hub.set_membership(now.membership_config.clone());
        let address = |n: &u64| now.membership_config.get_node(n).map(|r| r.address.clone());
        let leader = now
            .current_leader
            .map(|leader| Peer { number: leader, address: address(&leader).unwrap_or_default() });
        let role = role(now.state);
        // A leader that has learnt of a higher term is none, whatever it still shows.
        let role = match (role, &leader) {
            (Role::Leader, Some(peer)) if peer.number != number => Role::Follower,
            (role, _) => role,
        };
        let told = Leadership { leader, term: now.vote.leader_id.term, role };
        signals.leadership.send_if_modified(|seen| {
            let changed = *seen != told;
            *seen = told;
            changed
        });
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

fn role(state: ServerState) -> Role {
    match state {
        ServerState::Leader => Role::Leader,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Learner => Role::Learner,
        ServerState::Shutdown => Role::Stopped,
    }
}

/// Tells when the engine has died.
async fn watch_health<M: Machine>(raft: Raft<M>, signals: Arc<Signals>) {
    let mut metrics = raft.metrics();
    loop {
        let state = metrics.borrow_and_update().running_state.clone();
        if let Err(error) = state {
            return signals.died(error.to_string());
        }
        if metrics.changed().await.is_err() {
            return signals.died("its task is gone".to_owned());
        }
    }
}

/// Stops a condemned store from standing for election. It cannot vote either: every message to
/// it is refused.
async fn stand_down<M: Machine>(raft: Raft<M>, hub: Arc<Hub>) {
    let mut condemned = hub.condemned();
    if condemned.wait_for(Option::is_some).await.is_ok() {
        raft.runtime_config().elect(false);
        raft.runtime_config().heartbeat(false);
    }
}

/// Writes down what is remembered of the peers.
async fn remember(hub: Arc<Hub>, files: Files, work: Work) {
    let mut written = Fence::default();
    let mut every = tokio::time::interval(REMEMBER_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let now = hub.fence();
        if now == written {
            continue;
        }
        let (files, fence) = (files.clone(), now.clone());
        match work.run(move || identity::write_peers(&files, &fence).map_err(invalid)).await {
            Ok(()) => written = now,
            Err(error) => tracing::warn!(%error, "memory of the peers not written"),
        }
    }
}
