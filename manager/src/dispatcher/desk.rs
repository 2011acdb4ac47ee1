//! One session from its hello to its end.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::{self, error::TryRecvError},
    time::{Instant, sleep_until, timeout},
};
use weft_model::{
    Assignments, Command, NodeId, Proposal, State, TunnelReport, command::TaskReport,
    object::NodeState, spec::Role,
};
use weft_proto::convert::session::{AssignmentsUpdate, Reports};

use super::{FromWorker, Hello, SessionEnd, Sessions, ToWorker, Welcome, sessions::Registered};
use crate::{
    clock::Clock,
    manager::{Ledger, ManagerTimings},
};

/// How long a worker may take to say hello.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// How long a worker may take nothing although there is something for it.
const LAG_MAX: Duration = Duration::from_secs(10);
/// How long after a node's last change its store is taken for the one it shows: by then one that has
/// heard of its demotion has closed it, which takes seconds, and shows none or another one.
const STORE_SETTLES: Duration = Duration::from_secs(15);
/// Most reports in one entry of the log: with their texts cut they stay far below its limit.
const REPORTS_MAX: usize = 100;
/// Most characters of a report's text; the state keeps no more either.
const TEXT_MAX: usize = 1_000;

/// What serves sessions.
#[derive(Clone)]
pub struct Desk<L> {
    ledger: L,
    sessions: Sessions,
    clock: Arc<dyn Clock>,
    timings: ManagerTimings,
}

impl<L: Ledger> Desk<L> {
    /// A desk that writes to `ledger` and notes its sessions in `sessions`.
    pub fn new(
        ledger: L,
        sessions: Sessions,
        clock: Arc<dyn Clock>,
        timings: ManagerTimings,
    ) -> Self {
        Self { ledger, sessions, clock, timings }
    }

    /// Serves the session of `node`, whose identity the caller has checked, until it ends.
    pub async fn serve(
        &self,
        node: NodeId,
        mut inbound: mpsc::Receiver<FromWorker>,
        outbound: mpsc::Sender<ToWorker>,
    ) -> SessionEnd {
        let hello = match timeout(HELLO_WAIT, inbound.recv()).await {
            Ok(Some(FromWorker::Hello(hello))) => hello,
            Ok(Some(
                FromWorker::Heartbeat
                | FromWorker::Applied(_)
                | FromWorker::Reports(_)
                | FromWorker::Tunnel(_),
            ))
            | Err(_) => return SessionEnd::NoHello,
            Ok(None) => return SessionEnd::Closed,
        };
        let registered = self.sessions.open(node, &hello.boot_id, Instant::now());
        let session = Session {
            desk: self,
            node,
            registered,
            sent: None,
            taken: None,
            tunnel: None,
            store: None,
            dirty_since: Some(Instant::now()),
        };
        match session.run(hello, inbound, outbound).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn write(&self, commands: Vec<Command>) -> Result<(), SessionEnd> {
        let proposal = Proposal { request: None, now: self.clock.now(), commands };
        let (_, outcome) = self.ledger.propose(proposal).await?;
        outcome.into_result().map(drop).map_err(SessionEnd::Refused)
    }
}

struct Session<'a, L> {
    desk: &'a Desk<L>,
    node: NodeId,
    registered: Registered,
    /// What the worker was sent last.
    sent: Option<Assignments>,
    /// Number of reports that are in the log and not yet acknowledged.
    taken: Option<u64>,
    /// What the worker has for encrypted links, as it said last.
    tunnel: Option<TunnelReport>,
    /// The Raft store that the worker has shown, if it has one.
    store: Option<String>,
    /// Since when there may be something to send.
    dirty_since: Option<Instant>,
}

impl<L: Ledger> Session<'_, L> {
    async fn run(
        mut self,
        hello: Hello,
        mut inbound: mpsc::Receiver<FromWorker>,
        outbound: mpsc::Sender<ToWorker>,
    ) -> Result<std::convert::Infallible, SessionEnd> {
        self.describe(hello).await?;
        let mut changes = self.desk.ledger.watch();
        let welcome = self.welcome()?;
        outbound.send(ToWorker::Welcome(welcome)).await.map_err(|_| SessionEnd::Closed)?;
        loop {
            let dirty = self.dirty_since;
            // The complete set goes at once; later changes may come in groups.
            let pause = self.sent.as_ref().map_or(Duration::ZERO, |_| self.desk.timings.debounce);
            tokio::select! {
                boot_id = self.registered.replaced() => {
                    return Err(SessionEnd::Replaced { boot_id });
                }
                message = inbound.recv() => {
                    let message = message.ok_or(SessionEnd::Closed)?;
                    self.take(message, &mut inbound).await?;
                }
                changed = changes.changed() => {
                    changed.map_err(|_| SessionEnd::Stopped)?;
                    self.desk.member(self.node)?;
                    self.note_tunnel().await?;
                    self.dirty_since.get_or_insert_with(Instant::now);
                }
                permit = ready(&outbound, dirty, pause), if dirty.is_some() || self.taken.is_some() => {
                    let permit = permit?;
                    if let Some(number) = self.taken.take() {
                        permit.send(ToWorker::ReportsTaken(number));
                    } else {
                        self.dirty_since = None;
                        if let Some(update) = self.update()? {
                            permit.send(ToWorker::Assignments(update));
                        }
                    }
                }
                () = outbound.closed() => return Err(SessionEnd::Closed),
            }
        }
    }

    /// Notes what the worker says of itself, and that it is in touch.
    async fn describe(&mut self, hello: Hello) -> Result<(), SessionEnd> {
        let role = self.desk.member(self.node)?;
        self.store.clone_from(&hello.raft_incarnation);
        // A worker that was a manager until a moment ago may still show its old store.
        let raft_incarnation = hello.raft_incarnation.filter(|_| role == Role::Manager);
        let id = self.node;
        let message = "in touch".to_owned();
        let commands = vec![
            Command::DescribeNode { id, description: hello.description, raft_incarnation },
            Command::SetNodeState { id, state: NodeState::Ready, message },
        ];
        self.desk.write(commands).await
    }

    fn welcome(&self) -> Result<Welcome, SessionEnd> {
        let role = self.desk.member(self.node)?;
        let state = self.desk.ledger.view();
        Ok(Welcome { heartbeat: self.desk.timings.heartbeat, managers: managers(&state), role })
    }

    async fn take(
        &mut self,
        message: FromWorker,
        inbound: &mut mpsc::Receiver<FromWorker>,
    ) -> Result<(), SessionEnd> {
        self.registered.heard(Instant::now(), || self.desk.is_away(self.node));
        match message {
            FromWorker::Hello(hello) => self.describe(hello).await,
            FromWorker::Heartbeat => self.note_store().await,
            FromWorker::Applied(revision) => {
                self.registered.applied(revision);
                Ok(())
            }
            FromWorker::Tunnel(report) => {
                self.tunnel = Some(report);
                self.note_tunnel().await
            }
            FromWorker::Reports(first) => {
                let (reports, after) = gather(first, inbound);
                self.report(reports).await?;
                match after {
                    Some(message) => Box::pin(self.take(message, inbound)).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// Writes what is new in the reports; a worker repeats itself after a broken session.
    async fn report(&mut self, reports: Reports) -> Result<(), SessionEnd> {
        let state = self.desk.ledger.view();
        let news = reports.reports.into_iter().filter(|report| is_news(&state, report));
        let news: Vec<_> = news.map(cut).collect();
        for batch in news.chunks(REPORTS_MAX) {
            let command = Command::Report { node: self.node, reports: batch.to_vec() };
            self.desk.write(vec![command]).await?;
        }
        self.taken = Some(reports.number);
        Ok(())
    }

    /// Writes what the worker has for encrypted links, if that is news: also when the state has come to
    /// want what the worker has said before.
    async fn note_tunnel(&self) -> Result<(), SessionEnd> {
        let Some(report) = &self.tunnel else { return Ok(()) };
        if self.desk.ledger.view().knows_tunnel(self.node, report) {
            return Ok(());
        }
        let command = Command::ReportTunnel { id: self.node, report: report.clone() };
        self.desk.write(vec![command]).await
    }

    /// Notes the store of a manager that was demoted and promoted again before it had heard of either:
    /// the state has forgotten it, and the node has no reason to show it anew.
    async fn note_store(&self) -> Result<(), SessionEnd> {
        let state = self.desk.ledger.view();
        let (Some(node), Some(store)) = (state.node(self.node), &self.store) else { return Ok(()) };
        let forgotten = node.spec.role == Role::Manager && node.raft_incarnation.is_none();
        if !forgotten || self.desk.clock.now().since(node.meta.updated) < STORE_SETTLES {
            return Ok(());
        }
        let (description, raft_incarnation) = (node.description.clone(), Some(store.clone()));
        let id = self.node;
        self.desk.write(vec![Command::DescribeNode { id, description, raft_incarnation }]).await
    }

    /// What the worker does not know yet, if there is anything.
    fn update(&mut self) -> Result<Option<AssignmentsUpdate>, SessionEnd> {
        self.desk.member(self.node)?;
        let next = self.desk.ledger.view().assignments(self.node);
        let update = match &self.sent {
            None => AssignmentsUpdate {
                complete: true,
                applies_to: 0,
                results_in: next.revision,
                changes: Assignments::default().changes_to(&next),
            },
            Some(sent) => AssignmentsUpdate {
                complete: false,
                applies_to: sent.revision,
                results_in: next.revision,
                changes: sent.changes_to(&next),
            },
        };
        if !update.complete && update.changes.is_empty() {
            self.registered.level(next.revision);
            return Ok(None);
        }
        self.registered.sent(next.revision);
        self.sent = Some(next);
        Ok(Some(update))
    }
}

impl<L: Ledger> Desk<L> {
    /// The role of a member.
    fn member(&self, node: NodeId) -> Result<Role, SessionEnd> {
        let state = self.ledger.view();
        state.node(node).map(|node| node.spec.role).ok_or(SessionEnd::NotMember { node })
    }

    fn is_away(&self, node: NodeId) -> bool {
        self.ledger.view().node(node).is_some_and(|node| !node.in_touch())
    }
}

/// Room for one message, once the pause after the first change is over.
async fn ready<'a>(
    outbound: &'a mpsc::Sender<ToWorker>,
    dirty_since: Option<Instant>,
    pause: Duration,
) -> Result<mpsc::Permit<'a, ToWorker>, SessionEnd> {
    if let Some(since) = dirty_since {
        sleep_until(since + pause).await;
    }
    let until = dirty_since.map_or_else(Instant::now, |since| since + pause) + LAG_MAX;
    match tokio::time::timeout_at(until, outbound.reserve()).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) => Err(SessionEnd::Closed),
        Err(_) => Err(SessionEnd::Lagging { waited: LAG_MAX }),
    }
}

/// The reports that have already come after `first`, and what came behind them.
fn gather(
    mut first: Reports,
    inbound: &mut mpsc::Receiver<FromWorker>,
) -> (Reports, Option<FromWorker>) {
    while first.reports.len() < REPORTS_MAX {
        match inbound.try_recv() {
            Ok(FromWorker::Reports(next)) => {
                first.number = next.number;
                first.reports.extend(next.reports);
            }
            Ok(other) => return (first, Some(other)),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
    (first, None)
}

/// The report without the rest of texts that are too long.
fn cut(report: TaskReport) -> TaskReport {
    let cut = |text: String| text.chars().take(TEXT_MAX).collect();
    TaskReport { message: cut(report.message), error: cut(report.error), ..report }
}

fn is_news(state: &State, report: &TaskReport) -> bool {
    state.task(report.task).is_some_and(|task| {
        report.state > task.status.state
            || (report.released && !task.released)
            || (report.unhealthy && !task.status.unhealthy && !task.status.state.is_final())
    })
}

/// The managers, to call when the present one is gone.
pub(crate) fn managers(state: &State) -> Vec<(u64, NodeId, String)> {
    state
        .nodes()
        .filter(|node| node.spec.role == Role::Manager)
        .map(|node| (node.number, node.id, node.description.address.to_string()))
        .collect()
}
