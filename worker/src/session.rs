//! The connection to the managers: assignments come, reports and heartbeats go.
//!
//! The protocol is in plain values here; [`grpc`] carries it. A session that ends is opened anew, at
//! another manager if need be, after a short time that grows; what was assigned stays in force
//! meanwhile.

pub mod grpc;
mod keeping;

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use weft_model::{Assignments, TunnelReport, object::NodeDescription, spec::Role};
use weft_proto::convert::session::{AssignmentsUpdate, Reports};

use crate::{
    cache::Cache,
    plumbing::{Assigned, Source, Standing},
    report::ReportBook,
    tunnel::End,
};
use keeping::Keeping;

/// Messages on their way in one direction; a session that is further behind is opened anew.
pub const QUEUE: usize = 64;
/// Time after which a silent manager counts as gone: three heartbeats unanswered by the network are
/// noticed by the connection's own keep-alive before that.
const WELCOME_DEADLINE: Duration = Duration::from_secs(5);
/// First and longest time before another try.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long after a failed try the assignments are written to the disk again.
const KEEP_AGAIN: Duration = Duration::from_secs(2);
/// Most reports in one message.
const REPORTS_MAX: usize = 500;

/// What the worker says.
#[derive(Clone, Debug, PartialEq)]
pub enum ToManager {
    /// The first message.
    Hello {
        /// What this node says of itself.
        description: NodeDescription,
        /// Random for each start of the daemon.
        boot: String,
        /// Of the Raft store, on a manager.
        raft_incarnation: Option<String>,
    },
    /// Still there.
    Heartbeat,
    /// The kernel agrees with the assignments of this revision, and the disk has them.
    Applied(u64),
    /// What was seen of tasks.
    Reports(Reports),
    /// What this node has for encrypted links.
    Tunnel(TunnelReport),
}

/// What the manager says.
#[derive(Clone, Debug, PartialEq)]
pub enum FromManager {
    /// The first message.
    Welcome {
        /// Between heartbeats.
        heartbeat: Duration,
        /// Where managers are.
        managers: Vec<SocketAddr>,
        /// What the cluster wants this node to be.
        role: Role,
        /// Where this node's connection comes from, as the manager sees it.
        seen_from: Option<IpAddr>,
    },
    /// All assignments, or changes to them.
    Assignments(AssignmentsUpdate),
    /// The reports messages up to this number are safe.
    ReportsTaken(u64),
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// In words.
    pub why: String,
    /// Whether the managers have said that this node is no member.
    pub removed: bool,
}

impl From<String> for Ended {
    fn from(why: String) -> Self {
        Self { why, removed: false }
    }
}

/// Both ends of an open session.
pub struct Pipe {
    /// To the manager.
    pub up: mpsc::Sender<ToManager>,
    /// From the manager; ends with the session, with the reason if there was one.
    pub down: mpsc::Receiver<Result<FromManager, Ended>>,
}

/// Opens sessions.
pub trait Dial: Send + Sync + 'static {
    /// Opens a session at one of the managers at these addresses.
    ///
    /// # Errors
    /// Why not.
    fn dial(&mut self, manager: SocketAddr) -> impl Future<Output = Result<Pipe, Ended>> + Send;
}

/// What the rest of the worker sees of the session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// The manager the session is with.
    pub manager: Option<SocketAddr>,
    /// Why there is none, if so.
    pub error: String,
    /// Where managers are, as far as is known.
    pub managers: Vec<SocketAddr>,
    /// What the cluster wants this node to be.
    pub role: Option<Role>,
    /// Whether this node was removed from the cluster, as a manager has said.
    pub removed: bool,
    /// Where this node's connections come from, as the manager of the last session saw it.
    pub seen_from: Option<IpAddr>,
    /// Since when there is none, if so and if there was one, or a try.
    pub lost: Option<Instant>,
}

/// What a session works with.
pub struct Session<D> {
    /// Opens connections.
    pub dial: D,
    /// What this node says of itself; read at each start of a session.
    pub description: watch::Receiver<NodeDescription>,
    /// The incarnation of the Raft store, on a manager.
    pub raft_incarnation: watch::Receiver<Option<String>>,
    /// Random for each start of the daemon.
    pub boot: String,
    /// What was seen of tasks.
    pub reports: Arc<ReportBook>,
    /// This node's end of the encrypted links.
    pub end: watch::Receiver<Arc<End>>,
    /// Where the kernel stands.
    pub standing: watch::Receiver<Standing>,
    /// Where the assignments go.
    pub assigned: watch::Sender<Assigned>,
    /// Where they are kept.
    pub cache: Cache,
    /// Where the state of the contact goes.
    pub contact: watch::Sender<Contact>,
    /// For the order of managers and the back-off.
    pub seed: [u8; 32],
}

impl<D: Dial> Session<D> {
    /// Keeps a session open for ever.
    pub async fn run(mut self) {
        let mut random = StdRng::from_seed(self.seed);
        let mut wait = BACK_OFF.0;
        loop {
            let manager = self.pick(&mut random);
            let began = Instant::now();
            let ended = match manager {
                Some(manager) => self.at(manager).await,
                None => "no manager's address is known".to_owned().into(),
            };
            tracing::debug!(?manager, reason = ended.why, "the session has ended");
            self.contact.send_modify(|contact| {
                contact.manager = None;
                contact.error = ended.why;
                contact.removed |= ended.removed;
                contact.lost.get_or_insert_with(Instant::now);
            });
            wait =
                if began.elapsed() > BACK_OFF.1 { BACK_OFF.0 } else { (wait * 2).min(BACK_OFF.1) };
            let jitter = random.random_range(0.5..1.0);
            tokio::time::sleep(wait.mul_f64(jitter)).await;
        }
    }

    /// Any of the managers, so that no single one that is gone is tried again and again.
    fn pick(&self, random: &mut StdRng) -> Option<SocketAddr> {
        let contact = self.contact.borrow();
        let count = contact.managers.len();
        (count > 0).then(|| contact.managers[random.random_range(0..count)])
    }

    /// One session; returns why it ended.
    async fn at(&mut self, manager: SocketAddr) -> Ended {
        let opening = tokio::time::timeout(WELCOME_DEADLINE, self.dial.dial(manager)).await;
        let pipe = match opening {
            Ok(Ok(pipe)) => pipe,
            Ok(Err(why)) => return why,
            Err(_) => return format!("manager {manager} does not answer").into(),
        };
        match self.serve(manager, pipe).await {
            Ok(()) => "the manager has ended the session".to_owned().into(),
            Err(ended) => ended,
        }
    }

    async fn serve(&mut self, manager: SocketAddr, mut pipe: Pipe) -> Result<(), Ended> {
        let hello = ToManager::Hello {
            description: self.description.borrow_and_update().clone(),
            boot: self.boot.clone(),
            raft_incarnation: self.raft_incarnation.borrow_and_update().clone(),
        };
        send(&pipe, hello).await?;
        let mut reports = self.reports.changes();
        let mut keeping = Keeping::default();
        let mut told = Told::default();
        // Everything that is known is told anew: the last session may have lost some of it.
        self.tell_tunnel(&pipe).await?;
        self.tell_reports(&pipe, &mut told).await?;
        let heartbeat = self.welcome(manager, &mut pipe).await?;
        let mut beat = tokio::time::interval(heartbeat);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut again = tokio::time::interval(KEEP_AGAIN);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = pipe.down.recv() => match message {
                    Some(message) => self.take(message?, &mut keeping)?,
                    None => return Ok(()),
                },
                _ = again.tick(), if keeping.is_owed() => {
                    keeping.keep(&self.cache, &self.assigned.borrow().1);
                }
                _ = beat.tick() => send(&pipe, ToManager::Heartbeat).await?,
                _ = reports.changed() => self.tell_reports(&pipe, &mut told).await?,
                _ = self.end.changed() => self.tell_tunnel(&pipe).await?,
                _ = self.standing.changed() => {}
                // The node has changed: the next session says so.
                _ = self.description.changed() => return Ok(()),
                _ = self.raft_incarnation.changed() => return Ok(()),
            }
            let carried = self.standing.borrow_and_update().revision;
            if let Some(revision) = keeping.acknowledges(carried) {
                send(&pipe, ToManager::Applied(revision)).await?;
            }
        }
    }

    async fn welcome(&self, manager: SocketAddr, pipe: &mut Pipe) -> Result<Duration, Ended> {
        let first = tokio::time::timeout(WELCOME_DEADLINE, pipe.down.recv()).await;
        match first {
            Ok(Some(Ok(FromManager::Welcome { heartbeat, managers, role, seen_from }))) => {
                tracing::info!(%manager, "in session");
                self.contact.send_modify(|contact| {
                    contact.manager = Some(manager);
                    contact.error.clear();
                    contact.removed = false;
                    contact.lost = None;
                    contact.role = Some(role);
                    contact.seen_from = seen_from.or(contact.seen_from);
                    if !managers.is_empty() {
                        contact.managers = managers;
                    }
                });
                Ok(heartbeat)
            }
            Ok(Some(Ok(_))) => Err(format!("manager {manager} speaks out of turn").into()),
            Ok(Some(Err(ended))) => Err(ended),
            Ok(None) => Err(format!("manager {manager} hung up").into()),
            Err(_) => Err(format!("manager {manager} does not answer").into()),
        }
    }

    fn take(&self, message: FromManager, keeping: &mut Keeping) -> Result<(), String> {
        match message {
            FromManager::Welcome { .. } => Err("a second welcome".to_owned()),
            FromManager::Assignments(update) => {
                let mut next = if update.complete {
                    Assignments::default()
                } else {
                    let (source, present) = self.assigned.borrow().clone();
                    if source != Source::Managers || present.revision != update.applies_to {
                        let revision = update.applies_to;
                        return Err(format!("changes to revision {revision} do not fit"));
                    }
                    Assignments::clone(&present)
                };
                next.take(update.changes, update.results_in);
                self.assign(next, keeping);
                Ok(())
            }
            FromManager::ReportsTaken(_) => Ok(()),
        }
    }

    fn assign(&self, assignments: Assignments, keeping: &mut Keeping) {
        let sorted = crate::desired::Sorted::new(&assignments);
        if let Some(cluster) = sorted.cluster.filter(|cluster| !cluster.managers.is_empty()) {
            let managers: Vec<_> = cluster.managers.iter().copied().collect();
            let role = sorted.node.map(|node| node.role);
            self.contact.send_if_modified(|contact| {
                let same = contact.managers == managers && contact.role == role;
                contact.managers = managers;
                contact.role = role;
                !same
            });
        }
        keeping.keep(&self.cache, &assignments);
        self.assigned.send_replace((Source::Managers, Arc::new(assignments)));
    }

    /// A node that could make no key says nothing of its links: it has none.
    async fn tell_tunnel(&mut self, pipe: &Pipe) -> Result<(), String> {
        let report = self.end.borrow_and_update().report();
        if report.keys.is_empty() {
            return Ok(());
        }
        send(pipe, ToManager::Tunnel(report)).await
    }

    async fn tell_reports(&self, pipe: &Pipe, told: &mut Told) -> Result<(), String> {
        let (reports, newest) = self.reports.since(told.newest);
        for part in reports.chunks(REPORTS_MAX) {
            told.messages += 1;
            let reports = Reports { number: told.messages, reports: part.to_vec() };
            send(pipe, ToManager::Reports(reports)).await?;
        }
        told.newest = newest;
        Ok(())
    }
}

/// What one session has told.
#[derive(Default)]
struct Told {
    /// Number of the newest report, in the book.
    newest: u64,
    /// Messages with reports.
    messages: u64,
}

async fn send(pipe: &Pipe, message: ToManager) -> Result<(), String> {
    pipe.up.send(message).await.map_err(|_| "the session has ended".to_owned())
}
