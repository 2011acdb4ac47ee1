//! The engine's process: found again, started anew when it dies, ended without a trace.

use std::{os::unix::net::UnixListener, path::Path, thread, time::Duration};

use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::timeout;
use weft_model::Engine;
use weft_overlay::wire::{Client, Config, Identity, Key, SOCKET};
use weft_worker::tunnel::{
    Choice, Wish,
    process::{Process, ProcessError, Program},
};

/// How long what was killed may take to be back.
const BACK: Duration = Duration::from_secs(1);

fn program() -> Program {
    Program { path: env!("CARGO_BIN_EXE_weft-container-helper").into(), ..Program::default() }
}

fn pid(run_dir: &Path) -> Pid {
    let status = Client::connect(run_dir).expect("it runs").status().expect("it answers");
    Pid::from_raw(status.pid.cast_signed())
}

/// Whether it answers: one that was killed takes connections for a moment yet.
fn answers(run_dir: &Path) -> bool {
    Client::connect(run_dir).is_ok_and(|mut client| client.status().is_ok())
}

fn is_there(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[tokio::test]
async fn it_outlives_who_started_it_and_is_started_anew_when_it_dies() {
    let run = tempfile::tempdir().expect("tempdir");
    let mut first = Process::new(program(), run.path());
    first.ensure().await.expect("it starts");
    let started = pid(run.path());
    first.ensure().await.expect("it runs already");
    drop(first);
    let mut next = Process::new(program(), run.path());
    next.ensure().await.expect("it is found");
    assert_eq!(pid(run.path()), started);
    kill(started, Signal::SIGKILL).expect("it is ours");
    let back = async {
        next.ended().await;
        while next.ensure().await.is_err() || !answers(run.path()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(BACK, back).await.expect("in time");
    let again = pid(run.path());
    assert_ne!(again, started);
    next.stop().await;
    assert!(!is_there(again));
    assert!(Client::connect(run.path()).is_err());
    next.stop().await;
}

#[tokio::test]
async fn one_that_hangs_is_replaced_and_one_that_answers_is_not() {
    let run = tempfile::tempdir().expect("tempdir");
    let mut process = Process::new(program(), run.path());
    process.ensure().await.expect("it starts");
    let started = pid(run.path());
    process.end_if_hung().await;
    assert!(is_there(started));
    kill(started, Signal::SIGSTOP).expect("it is ours");
    process.end_if_hung().await;
    timeout(BACK, async {
        while is_there(started) || process.ensure().await.is_err() || !answers(run.path()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("in time");
    assert_ne!(pid(run.path()), started);
    process.stop().await;
}

#[tokio::test]
async fn one_that_was_never_adopted_is_ended_all_the_same() {
    let run = tempfile::tempdir().expect("tempdir");
    Process::new(program(), run.path()).ensure().await.expect("it starts");
    let started = pid(run.path());
    Process::new(program(), run.path()).stop().await;
    assert!(!is_there(started));
}

#[tokio::test]
async fn one_that_is_just_ending_is_not_adopted() {
    let run = tempfile::tempdir().expect("tempdir");
    let dying = UnixListener::bind(run.path().join(SOCKET)).expect("a socket");
    // It takes the connection and the question, and is gone.
    let death = thread::spawn(move || drop([dying.accept(), dying.accept()]));
    let mut process = Process::new(program(), run.path());
    process.ensure().await.expect("another is started");
    assert!(answers(run.path()));
    process.stop().await;
    death.join().expect("both came");
}

#[tokio::test]
async fn the_lanes_of_an_engine_that_runs_are_kept() {
    // It binds ports, which are nobody else's there.
    unshare(CloneFlags::CLONE_NEWNET).expect("root");
    let run = tempfile::tempdir().expect("tempdir");
    let mut process = Process::new(program(), run.path());
    process.ensure().await.expect("it starts");
    let wish = Wish { engine: Some(Engine::Userspace), lanes: Some(1) };
    let chosen = || Choice::new(wish).expect("it is possible").keeping_lanes(run.path()).lanes;
    assert_eq!(chosen(), 1, "it was told nothing yet");
    let ports = vec![51_820, 51_822, 51_824];
    let identity = Identity { private_key: Key([8; 32]), address: [100, 64, 0, 2].into(), ports };
    let config = Config { identities: vec![identity], ..Config::default() };
    Client::connect(run.path()).expect("it runs").set(config).expect("it takes it");
    assert_eq!(chosen(), 3);
    process.stop().await;
    assert_eq!(chosen(), 1, "nobody sends on lanes of one that has ended");
}

#[tokio::test]
async fn one_that_ends_at_once_is_not_started_all_the_time() {
    let run = tempfile::tempdir().expect("tempdir");
    let mut process = Process::new(Program { path: "/bin/true".into(), words: vec![] }, run.path());
    let said = process.ensure().await.expect_err("it has no socket");
    assert!(matches!(said, ProcessError::Silent), "{said:?}");
    let said = process.ensure().await.expect_err("it was started a moment ago");
    assert!(matches!(said, ProcessError::Waiting), "{said:?}");
    let gone = Program { path: "/nowhere/weft".into(), words: vec![] };
    let said = Process::new(gone, run.path()).ensure().await.expect_err("no such program");
    assert!(matches!(said, ProcessError::Start(_)), "{said:?}");
    assert!(timeout(Duration::from_millis(1), process.ended()).await.is_err(), "none can end");
}
