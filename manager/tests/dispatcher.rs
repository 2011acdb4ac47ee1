//! The dispatcher's core on a plain state: no Raft, no gRPC, and a clock that stands still until
//! everybody waits.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};
use weft_manager::{
    ManagerTimings,
    ca::Authority,
    clock::ManualClock,
    dispatcher::{
        Desk, FromWorker, Hello, SessionEnd, Sessions, ToWorker, Welcome, liveness::Liveness,
    },
    manager::{Ledger, new_cluster},
    store::ProposeError,
};
use weft_model::{
    Assignments, ClusterId, Command, Engine, NodeId, Outcome, Proposal, PublicKey, Rotation, State,
    TaskState, Time, TunnelReport,
    assignments::{Item, Key},
    command::{Force, NewNode, TaskReport},
    object::{ClusterSpec, NodeDescription, NodeState},
    spec::{NodeSpec, Role},
};
use weft_proto::convert::session::{AssignmentsUpdate, Reports};

const MANAGER: NodeId = NodeId::from_bytes([1; 32]);
const WORKER: NodeId = NodeId::from_bytes([2; 32]);

/// A state with one manager and one worker that is changed at once.
#[derive(Clone)]
struct Plain {
    state: Arc<Mutex<Arc<State>>>,
    revision: Arc<watch::Sender<u64>>,
    written: Arc<Mutex<Vec<Command>>>,
}

impl Plain {
    fn new() -> Self {
        let plain = Self {
            state: Arc::default(),
            revision: Arc::new(watch::channel(0).0),
            written: Arc::default(),
        };
        let id = ClusterId::from_bytes([7; 32]);
        let authority = Authority::create(&id.to_string(), std::time::SystemTime::now()).unwrap();
        let cluster = new_cluster(id, &authority, ClusterSpec::default(), Time(1));
        let secret = cluster.tokens.worker;
        let node = new_node(MANAGER, Role::Manager);
        plain.write(Command::CreateCluster { cluster: Box::new(cluster), node });
        plain.write(Command::AddNode { node: new_node(WORKER, Role::Worker), secret });
        plain.written.lock().unwrap().clear();
        plain
    }

    fn write(&self, command: Command) {
        let commands = vec![command];
        self.apply(&Proposal { request: None, now: Time(1), commands }).into_result().unwrap();
    }

    fn apply(&self, proposal: &Proposal) -> Outcome {
        let mut held = self.state.lock().unwrap();
        let mut state = State::clone(&held);
        let revision = state.revision() + 1;
        let outcome = state.apply(revision, proposal);
        *held = Arc::new(state);
        drop(held);
        self.written.lock().unwrap().extend(proposal.commands.clone());
        self.revision.send_replace(revision);
        outcome
    }

    fn state_of(&self, node: NodeId) -> NodeState {
        self.view().node(node).unwrap().state
    }
}

impl Ledger for Plain {
    fn view(&self) -> Arc<State> {
        self.state.lock().unwrap().clone()
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    async fn propose(&self, proposal: Proposal) -> Result<(u64, Outcome), ProposeError> {
        let outcome = self.apply(&proposal);
        Ok((self.view().revision(), outcome))
    }
}

fn description(id: NodeId) -> NodeDescription {
    // Both addresses follow from the ID, as no two members may share one.
    let last = if id == MANAGER { 1 } else { 2 };
    NodeDescription {
        hostname: format!("n{last}"),
        address: SocketAddr::from(([10, 0, 0, last], 2377)),
        data_path: [10, 0, 0, last].into(),
        os: "linux".into(),
        architecture: "x86_64".into(),
        engine_version: "0".into(),
        nano_cpus: 1,
        memory: 1,
        used_prefixes: Default::default(),
        certificate_expires: None,
    }
}

fn new_node(id: NodeId, role: Role) -> NewNode {
    let spec = NodeSpec { role, ..NodeSpec::default() };
    NewNode { id, spec, description: description(id) }
}

fn relabel(node: NodeId, value: &str) -> Command {
    let role = if node == MANAGER { Role::Manager } else { Role::Worker };
    let labels = [("l".to_owned(), value.to_owned())].into();
    let spec = NodeSpec { role, labels, ..NodeSpec::default() };
    Command::UpdateNode { id: node, expect: None, spec }
}

/// The worker's end of a session.
struct Worker {
    say: mpsc::Sender<FromWorker>,
    hear: mpsc::Receiver<ToWorker>,
    session: JoinHandle<SessionEnd>,
}

struct Bench {
    ledger: Plain,
    sessions: Sessions,
    desk: Desk<Plain>,
    clock: Arc<ManualClock>,
}

impl Bench {
    fn new() -> Self {
        let (ledger, sessions) = (Plain::new(), Sessions::default());
        let clock = Arc::new(ManualClock::at(Time(1_000)));
        let timings = ManagerTimings::default();
        let desk = Desk::new(ledger.clone(), sessions.clone(), clock.clone(), timings);
        Self { ledger, sessions, desk, clock }
    }

    fn connect(&self, room: usize) -> Worker {
        let (say, inbound) = mpsc::channel(64);
        let (outbound, hear) = mpsc::channel(room);
        let desk = self.desk.clone();
        let session = tokio::spawn(async move { desk.serve(WORKER, inbound, outbound).await });
        Worker { say, hear, session }
    }

    async fn greeted(&self) -> (Worker, Welcome, AssignmentsUpdate) {
        let mut worker = self.connect(16);
        worker.hello("boot").await;
        let Some(ToWorker::Welcome(welcome)) = worker.hear.recv().await else { panic!("welcome") };
        let complete = worker.update().await;
        (worker, welcome, complete)
    }
}

impl Worker {
    async fn hello(&self, boot_id: &str) {
        let hello = Hello {
            description: description(WORKER),
            boot_id: boot_id.to_owned(),
            raft_incarnation: Some("0123".into()),
        };
        self.say.send(FromWorker::Hello(hello)).await.unwrap();
    }

    async fn update(&mut self) -> AssignmentsUpdate {
        match self.hear.recv().await {
            Some(ToWorker::Assignments(update)) => update,
            other => panic!("assignments, not {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_store_of_a_manager_that_has_not_heard_of_its_demotion_is_known_again() {
    let bench = Bench::new();
    let (worker, ..) = bench.greeted().await;
    let store = || bench.ledger.view().node(WORKER).unwrap().raft_incarnation.clone();
    let mut revision = bench.ledger.watch();
    for role in [Role::Manager, Role::Worker, Role::Manager] {
        let spec = NodeSpec { role, ..NodeSpec::default() };
        bench.ledger.write(Command::UpdateNode { id: WORKER, expect: None, spec });
    }
    // It may be about to close the store that it has shown: the end of its session would tell.
    worker.say.send(FromWorker::Heartbeat).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(store(), None);
    bench.clock.advance(Duration::from_secs(15));
    revision.mark_unchanged();
    worker.say.send(FromWorker::Heartbeat).await.unwrap();
    revision.changed().await.unwrap();
    assert_eq!(store().as_deref(), Some("0123"));
}

#[tokio::test(start_paused = true)]
async fn complete_first_and_then_differences_that_follow_each_other() {
    let bench = Bench::new();
    let (mut worker, welcome, complete) = bench.greeted().await;
    assert_eq!(welcome.heartbeat, Duration::from_secs(1));
    assert_eq!(welcome.managers, [(1, MANAGER, "10.0.0.1:2377".to_owned())]);
    assert_eq!(welcome.role, Role::Worker);
    assert!(complete.complete && complete.applies_to == 0);
    assert_eq!(bench.ledger.state_of(WORKER), NodeState::Ready);
    // A worker's word about a Raft store is not taken.
    assert_eq!(bench.ledger.view().node(WORKER).unwrap().raft_incarnation, None);

    let mut known = Assignments::default();
    known.take(complete.changes, complete.results_in);
    for role in [Role::Manager, Role::Worker] {
        let spec = NodeSpec { role, ..NodeSpec::default() };
        bench.ledger.write(Command::UpdateNode { id: WORKER, expect: None, spec });
        let update = worker.update().await;
        assert!(!update.complete);
        assert_eq!(update.applies_to, known.revision);
        known.take(update.changes, update.results_in);
        let Some(Item::Node(own)) = known.items.get(&Key::Node) else { panic!("no node item") };
        assert_eq!(own.role, role);
        assert_eq!(known, bench.ledger.view().assignments(WORKER));
    }
}

#[tokio::test(start_paused = true)]
async fn changes_that_come_together_are_sent_together_and_foreign_ones_not_at_all() {
    let bench = Bench::new();
    let (mut worker, _, complete) = bench.greeted().await;
    worker.say.send(FromWorker::Applied(complete.results_in)).await.unwrap();
    for value in ["a", "b", "c"] {
        bench.ledger.write(relabel(WORKER, value));
    }
    assert!(
        timeout(Duration::from_secs(5), worker.hear.recv()).await.is_err(),
        "labels are not told"
    );
    // Nothing was to be applied, so the node is level with the newest revision.
    assert_eq!(bench.sessions.applied(WORKER), Some(bench.ledger.view().revision()));
    for role in [Role::Manager, Role::Worker, Role::Manager] {
        let spec = NodeSpec { role, ..NodeSpec::default() };
        bench.ledger.write(Command::UpdateNode { id: WORKER, expect: None, spec });
    }
    let update = worker.update().await;
    assert_eq!(update.results_in, bench.ledger.view().revision());
    assert!(timeout(Duration::from_secs(5), worker.hear.recv()).await.is_err());
    assert_eq!(bench.sessions.applied(WORKER), Some(complete.results_in), "not yet applied");
    worker.say.send(FromWorker::Applied(update.results_in)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(bench.sessions.applied(WORKER), Some(update.results_in));
}

#[tokio::test(start_paused = true)]
async fn reports_are_acknowledged_when_written_and_old_news_is_not_written() {
    let bench = Bench::new();
    let (mut worker, _, _) = bench.greeted().await;
    bench.ledger.written.lock().unwrap().clear();
    let report = TaskReport {
        task: weft_model::TaskId::from_bytes([9; 32]),
        state: TaskState::Running,
        message: String::new(),
        error: String::new(),
        exit_code: None,
        pid: 1,
        released: false,
        unhealthy: false,
    };
    for number in 1..=3 {
        let reports = Reports { number, reports: vec![report.clone()] };
        worker.say.send(FromWorker::Reports(reports)).await.unwrap();
    }
    let mut taken = 0;
    while taken < 3 {
        let Some(ToWorker::ReportsTaken(number)) = worker.hear.recv().await else { panic!() };
        assert!(number > taken);
        taken = number;
    }
    assert_eq!(*bench.ledger.written.lock().unwrap(), [], "a task that nobody knows is no news");
}

#[tokio::test(start_paused = true)]
async fn each_way_to_end_says_why() {
    let bench = Bench::new();
    let silent = bench.connect(16);
    assert!(matches!(silent.session.await.unwrap(), SessionEnd::NoHello));
    let rude = bench.connect(16);
    rude.say.send(FromWorker::Heartbeat).await.unwrap();
    assert!(matches!(rude.session.await.unwrap(), SessionEnd::NoHello));

    let (older, _, _) = bench.greeted().await;
    let (newer, _, _) = bench.greeted().await;
    assert!(
        matches!(older.session.await.unwrap(), SessionEnd::Replaced { boot_id } if boot_id == "boot")
    );
    drop(newer.say);
    assert!(matches!(newer.session.await.unwrap(), SessionEnd::Closed));
    assert_eq!(bench.sessions.applied(WORKER), None, "a session that ended is forgotten");

    // Room for the welcome, and nobody takes it.
    let stuck = bench.connect(1);
    stuck.hello("stuck").await;
    assert!(matches!(stuck.session.await.unwrap(), SessionEnd::Lagging { .. }));

    let (member, _, _) = bench.greeted().await;
    bench.ledger.write(Command::RemoveNode { id: WORKER, force: Force::Yes });
    assert!(
        matches!(member.session.await.unwrap(), SessionEnd::NotMember { node } if node == WORKER)
    );
    let stranger = bench.connect(16);
    stranger.hello("again").await;
    assert!(matches!(stranger.session.await.unwrap(), SessionEnd::NotMember { .. }));
}

#[test]
fn silence_is_judged_by_a_table() {
    use NodeState::{Down, Ready, Silent, Unknown};
    let (silent, down) = (Duration::from_secs(3), Duration::from_secs(8));
    let start = Instant::now();
    let at = |millis: u64| start + Duration::from_millis(millis);
    // The state before, when the node was heard, when it is looked at, what becomes of it, and when
    // to look again; all in milliseconds since the leader began.
    let table: [(NodeState, Option<u64>, u64, Option<NodeState>, Option<u64>); 14] = [
        // A new leader gives everybody the full time, whatever was before.
        (Ready, None, 0, None, Some(3_000)),
        (Unknown, None, 2_999, None, Some(3_000)),
        (Ready, None, 3_000, Some(Silent), Some(8_000)),
        (Unknown, None, 3_000, Some(Silent), Some(8_000)),
        (Silent, None, 7_999, None, Some(8_000)),
        (Silent, None, 8_000, Some(Down), None),
        (Down, None, 8_000, None, None),
        (Down, None, 4_000, None, Some(8_000)),
        // Heard: ready at once, and for three seconds more.
        (Ready, Some(5_000), 7_999, None, Some(8_000)),
        (Ready, Some(5_000), 8_000, Some(Silent), Some(13_000)),
        (Silent, Some(5_000), 5_000, Some(Ready), Some(8_000)),
        (Down, Some(20_000), 20_001, Some(Ready), Some(23_000)),
        (Unknown, Some(1), 1, Some(Ready), Some(3_001)),
        (Silent, Some(5_000), 13_000, Some(Down), None),
    ];
    for (before, heard, now, expected, wake) in table {
        let plain = Plain::new();
        // Only the worker counts here.
        let message = String::new();
        plain.write(Command::SetNodeState { id: WORKER, state: before, message });
        let mut liveness = Liveness::new(silent, down);
        liveness.step(&plain.view(), &BTreeMap::new(), start);
        let mut heard_at: BTreeMap<_, _> =
            heard.map(|heard| (WORKER, at(heard))).into_iter().collect();
        // The manager is heard all the time, and wakes nobody before the worker does.
        heard_at.insert(MANAGER, at(now));
        let verdict = liveness.step(&plain.view(), &heard_at, at(now));
        let found = verdict.commands.iter().find_map(|command| match command {
            Command::SetNodeState { id, state, .. } if *id == WORKER => Some(*state),
            _ => None,
        });
        let row = (before, heard, now);
        assert_eq!(found, expected, "{row:?}");
        let of_manager = at(now) + silent;
        let wake = wake.map_or(of_manager, |wake| at(wake).min(of_manager));
        assert_eq!(verdict.wake_at, Some(wake), "{row:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_counts_from_the_last_word_also_after_the_session_has_ended() {
    let bench = Bench::new();
    let (worker, _, _) = bench.greeted().await;
    let heard = bench.sessions.heard().get(&WORKER).copied();
    assert!(heard.is_some());
    drop(worker.say);
    assert!(matches!(worker.session.await.unwrap(), SessionEnd::Closed));
    assert_eq!(bench.sessions.heard().get(&WORKER).copied(), heard);
    bench.sessions.close(WORKER);
    assert_eq!(bench.sessions.heard().get(&WORKER), None, "a node that leaves is not waited for");
}

#[tokio::test(start_paused = true)]
async fn what_a_worker_has_said_of_its_keys_is_written_when_it_is_news() {
    let bench = Bench::new();
    let (worker, _, _) = bench.greeted().await;
    let key = |generation: u64| (generation, PublicKey([u8::try_from(generation).unwrap(); 32]));
    let report = |generations: &[u64]| TunnelReport {
        engine: Engine::Userspace,
        reason: String::new(),
        lanes: 1,
        keys: generations.iter().map(|generation| key(*generation)).collect(),
    };
    let rotation = || {
        let node = bench.ledger.view().node(WORKER).unwrap().clone();
        node.tunnel.clone().map(|tunnel| tunnel.rotation)
    };
    let written = || {
        let written = bench.ledger.written.lock().unwrap();
        written.iter().filter(|command| matches!(command, Command::ReportTunnel { .. })).count()
    };
    // Everybody else waits when this does.
    let pause = || tokio::time::sleep(Duration::from_millis(100));
    worker.say.send(FromWorker::Tunnel(report(&[1, 2]))).await.unwrap();
    worker.say.send(FromWorker::Tunnel(report(&[1, 2]))).await.unwrap();
    pause().await;
    assert_eq!((rotation(), written()), (Some(Rotation::Idle), 1), "repeated");
    let from = Rotation::Idle;
    bench.ledger.write(Command::RotateKey { id: WORKER, generation: 2, from });
    worker.say.send(FromWorker::Tunnel(report(&[2]))).await.unwrap();
    pause().await;
    assert_eq!((rotation(), written()), (Some(Rotation::Wanted), 1), "it says nothing new");
    worker.say.send(FromWorker::Tunnel(report(&[2, 3]))).await.unwrap();
    pause().await;
    assert!(matches!(rotation(), Some(Rotation::Distributed { .. })));
    // It has the next key already when that is wanted, and does not say so again.
    for generation in [2, 3] {
        let from = rotation().unwrap();
        bench.ledger.write(Command::RotateKey { id: WORKER, generation, from });
    }
    worker.say.send(FromWorker::Tunnel(report(&[3, 4]))).await.unwrap();
    pause().await;
    assert_eq!(rotation(), Some(Rotation::Idle));
    bench.ledger.write(Command::RotateKey { id: WORKER, generation: 3, from });
    pause().await;
    assert!(matches!(rotation(), Some(Rotation::Distributed { .. })), "{:?}", rotation());
}
