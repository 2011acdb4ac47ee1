//! Watches the library and tells the store: who leads, who is a member, whether it has died.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::{Instant, ServerState};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::fence::Fence;
use super::files::Files;
use super::hub::Hub;
use super::identity;
use super::log::invalid;
use super::machine::Work;
use super::room::Space;
use super::types::{Raft, TypeConfig};
use crate::store::{FatalError, Leadership, Machine, Peer, Role, Timings};

/// How often what is remembered of the peers is written, when it changed. It may be lost by this
/// much: it catches stores that went back by more.
const REMEMBER_EVERY: Duration = Duration::from_secs(2);
/// A leader that no majority has answered for this many leases (`election_max`) does not say any
/// more that it leads; by then the others have another one.
const LOST_AFTER_LEASES: u32 = 2;

/// How often the disk is looked at by a manager that is not asked to write.
const LOOK_AT_ROOM: Duration = Duration::from_secs(1);

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
    about: (u64, Timings),
) {
    tasks.spawn(follow_server(raft.clone(), hub.clone(), signals.clone(), about));
    tasks.spawn(watch_health(raft.clone(), signals.clone()));
    tasks.spawn(stand_down(raft.clone(), hub.clone()));
    tasks.spawn(watch_room(raft.clone(), hub.clone(), signals.clone(), work));
    tasks.spawn(remember(hub.clone(), files, work));
}

/// Keeps leadership and membership current.
async fn follow_server<M: Machine>(
    raft: Raft<M>,
    hub: Arc<Hub>,
    signals: Arc<Signals>,
    (number, timings): (u64, Timings),
) {
    let mut metrics = raft.server_metrics();
    // Losing the majority changes nothing in the library; only the clock tells.
    let mut look_again = tokio::time::interval(timings.heartbeat);
    look_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut leads_since = None;
    loop {
        let now = metrics.borrow_and_update().clone();
        hub.set_membership(now.membership_config.clone());
        // The number may have been another store's: the log of that time names it as a voter, perhaps
        // as the only one, and would have this store, which has just begun to read it, elect itself.
        raft.runtime_config().elect(hub.may_stand());
        let told = if now.state == ServerState::Leader && now.current_leader == Some(number) {
            let since = *leads_since.get_or_insert_with(tokio::time::Instant::now);
            leading(&raft, &now, since.elapsed(), timings.election_max * LOST_AFTER_LEASES)
        } else {
            leads_since = None;
            following(&now)
        };
        signals.leadership.send_if_modified(|seen| {
            let changed = *seen != told;
            *seen = told;
            changed
        });
        tokio::select! {
            biased;
            changed = metrics.changed() => if changed.is_err() { return },
            _ = look_again.tick(), if leads_since.is_some() => {}
        }
    }
}

type ServerMetrics = RaftServerMetrics<TypeConfig>;

/// What a leader tells: that it leads, while a majority has answered within `patience`.
fn leading<M: Machine>(
    raft: &Raft<M>,
    now: &ServerMetrics,
    led_for: Duration,
    patience: Duration,
) -> Leadership {
    let alone = now.membership_config.voter_ids().take(2).count() == 1;
    let acked = raft.metrics().borrow_watched().last_quorum_acked.map(|at| at.elapsed());
    let silent_for = acked.map_or(led_for, |acked| acked.min(led_for));
    if alone || silent_for < patience {
        return Leadership { role: Role::Leader, ..following(now) };
    }
    Leadership { leader: None, role: Role::Follower, ..following(now) }
}

/// What anybody else tells.
fn following(now: &ServerMetrics) -> Leadership {
    let leader = now.current_leader.map(|number| Peer {
        number,
        address: now
            .membership_config
            .get_node(&number)
            .map_or_else(String::new, |record| record.address.clone()),
    });
    // A leader that has learnt of a higher term is none, whatever it still shows.
    let role = match role(now.state) {
        Role::Leader => Role::Follower,
        other @ (Role::Follower | Role::Candidate | Role::Learner | Role::Stopped) => other,
    };
    Leadership { leader, term: now.vote.leader_id.term, role }
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
        raft.runtime_config().elect(hub.may_stand());
        raft.runtime_config().heartbeat(false);
    }
}

/// Tells when the disk is nearly full, and hands the lead to a manager that has room then.
async fn watch_room<M: Machine>(raft: Raft<M>, hub: Arc<Hub>, signals: Arc<Signals>, work: Work) {
    let mut told = Space::Enough;
    let mut every = tokio::time::interval(LOOK_AT_ROOM);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let room = hub.room.clone();
        let looked = work.run(move || Ok((room.space(), room.free(), room.keep_ahead()))).await;
        let Ok((space, free, kept)) = looked else { continue };
        if space != told {
            match space {
                Space::Enough => tracing::info!(free, "the disk has room again"),
                Space::Low | Space::Out => {
                    tracing::error!(free, reserve = hub.room.reserve, "the disk is nearly full");
                }
            }
            told = space;
            if let Err(error) = kept {
                tracing::warn!(%error, "no blocks can be kept for votes");
            }
        }
        let leads = signals.leadership.borrow().is_leader();
        if let Some(to) = successor(&raft, &hub).filter(|_| leads && space != Space::Enough) {
            tracing::warn!(to, "handing the lead to a manager that has room");
            // The engine is gone if it fails, and that is told elsewhere.
            let _ = raft.trigger().transfer_leader(to).await;
        }
    }
}

/// The voter with room that is furthest.
fn successor<M: Machine>(raft: &Raft<M>, hub: &Hub) -> Option<u64> {
    let metrics = raft.metrics().borrow_watched().clone();
    let (short, refusals) = (hub.short_of_room(), hub.refusals());
    let able = |number: &u64| {
        *number != hub.number && !short.contains(number) && !refusals.contains_key(number)
    };
    let matched = metrics.replication.unwrap_or_default();
    let voters = metrics.membership_config.voter_ids().filter(able);
    // One that has answered nothing in this term is not known to be there.
    voters
        .filter_map(|number| Some((matched.get(&number).copied().flatten()?, number)))
        .max()
        .map(|(_, number)| number)
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
