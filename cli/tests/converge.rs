//! Waiting for a service: progress from the stream of changes, success, and each way to fail.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used)]

mod fake;

use fake::{Daemon, NOW, Outcome};
use tokio::sync::mpsc::UnboundedSender;
use tonic::Status;
use weft_proto::v1::{watch_response::Object, *};
use weft_proto::well_known::Timestamp;

type Changes = UnboundedSender<Result<WatchResponse, Status>>;

const ID: &str = "5e";

fn service(replicas: u32) -> Service {
    let mode = service_mode::Mode::Replicated(service_mode::Replicated { replicas });
    Service {
        id: ID.into(),
        meta: Some(Meta { version: 7, ..Default::default() }),
        spec: Some(ServiceSpec {
            name: "web".into(),
            mode: Some(ServiceMode { mode: Some(mode) }),
            ..Default::default()
        }),
        spec_version: 1,
        ..Default::default()
    }
}

fn task(id: &str, slot: u32, state: TaskState, error: &str, since: i64) -> Task {
    Task {
        id: id.into(),
        name: format!("web.{slot}"),
        service_id: ID.into(),
        slot,
        spec_version: 1,
        desired_state: DesiredState::Running.into(),
        status: Some(TaskStatus {
            state: state.into(),
            since: Some(Timestamp { seconds: NOW + since, nanos: 0 }),
            error: error.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A task that ended and has been replaced.
fn ended(id: &str, slot: u32, error: &str, since: i64) -> Task {
    let mut task = task(id, slot, TaskState::Failed, error, since);
    task.desired_state = DesiredState::Shutdown.into();
    task
}

fn send(changes: &Changes, kind: WatchKind, object: Option<Object>, revision: u64) {
    changes.send(Ok(WatchResponse { revision, kind: kind.into(), object })).unwrap();
}

fn bookmark(changes: &Changes, revision: u64) {
    send(changes, WatchKind::Bookmark, None, revision);
}

/// A daemon that shows the service and takes the creation.
fn daemon(replicas: u32) -> (Daemon, Changes) {
    let daemon = Daemon::start();
    daemon.fake.state().services = vec![service(replicas)];
    let changes = daemon.fake.watch();
    send(&changes, WatchKind::Created, Some(Object::Service(service(replicas))), 10);
    (daemon, changes)
}

async fn create(daemon: &Daemon) -> Outcome {
    daemon
        .run(&["service", "create", "--name", "web", "--replicas", "2", "rootfs:/", "sleep"])
        .await
}

#[tokio::test]
async fn progress_is_printed_once_for_each_change_and_ends_in_converged() {
    let (daemon, changes) = daemon(2);
    bookmark(&changes, 10);
    for (state, at) in [(TaskState::Pending, 0), (TaskState::Running, 1)] {
        for slot in [1, 2] {
            let task = task(&format!("t{slot}"), slot, state, "", at);
            send(&changes, WatchKind::Updated, Some(Object::Task(task)), 11);
        }
    }
    let found = create(&daemon).await;
    assert_eq!(found.code, 0, "{found:?}");
    assert_eq!(found.out, "5e\n");
    assert_eq!(
        found.err,
        "overall progress: 0 out of 2 tasks\nweb.1: pending\nweb.2: pending\n\
         overall progress: 1 out of 2 tasks\nweb.1: running\n\
         overall progress: 2 out of 2 tasks\nweb.2: running\nverify: Service converged\n"
    );
}

#[tokio::test]
async fn a_task_that_fails_again_and_again_ends_the_wait_with_its_reason() {
    let (daemon, changes) = daemon(1);
    bookmark(&changes, 10);
    for at in 0..3 {
        let ended = ended(&format!("t{at}"), 1, "exec: no such file", at);
        send(&changes, WatchKind::Updated, Some(Object::Task(ended)), 11);
    }
    let found = create(&daemon).await;
    assert_eq!(found.code, 1);
    assert_eq!(found.out, "5e\n");
    assert!(
        found.err.ends_with(
            "error: service web: web.1 failed 3 times: exec: no such file\n\
             hint: weft service ps web\n"
        ),
        "{}",
        found.err
    );
}

#[tokio::test]
async fn a_task_that_failed_once_and_then_runs_is_a_success() {
    let (daemon, changes) = daemon(1);
    bookmark(&changes, 10);
    send(&changes, WatchKind::Updated, Some(Object::Task(ended("t0", 1, "boom", 0))), 11);
    let again = task("t1", 1, TaskState::Preparing, "", 1);
    send(&changes, WatchKind::Created, Some(Object::Task(again)), 12);
    let runs = task("t1", 1, TaskState::Running, "", 2);
    send(&changes, WatchKind::Updated, Some(Object::Task(runs)), 13);
    let found = create(&daemon).await;
    assert_eq!(found.code, 0, "{found:?}");
    assert!(found.err.contains("web.1: preparing (after: boom)\n"), "{}", found.err);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_nobody_can_place_is_given_up_with_the_reason() {
    let (daemon, changes) = daemon(1);
    bookmark(&changes, 10);
    let mut stuck = task("t1", 1, TaskState::Pending, "", 0);
    stuck.stuck = Some(Stuck {
        reason: "no suitable node: 2 nodes drained".into(),
        hint: "weft node update --availability active NODE".into(),
        ..Default::default()
    });
    send(&changes, WatchKind::Created, Some(Object::Task(stuck)), 11);
    let found = create(&daemon).await;
    assert_eq!(found.code, 1);
    assert!(found.err.contains("web.1: pending (no suitable node: 2 nodes drained)\n"));
    assert!(
        found.err.ends_with(
            "error: service web: not converged, and nothing changed for 30s: web.1: no suitable \
             node: 2 nodes drained\nhint: weft node update --availability active NODE\n"
        ),
        "{}",
        found.err
    );
}

#[tokio::test]
async fn a_task_that_ends_while_stability_is_awaited_is_waited_for_again() {
    let (daemon, changes) = daemon(1);
    bookmark(&changes, 10);
    let runs = task("t1", 1, TaskState::Running, "", 0);
    send(&changes, WatchKind::Created, Some(Object::Task(runs)), 11);
    let test = async {
        // Wait until the first run has been seen, then let it fail within the time of stability.
        while daemon.fake.state().resumed.is_empty() {
            tokio::task::yield_now().await;
        }
        send(&changes, WatchKind::Updated, Some(Object::Task(ended("t1", 1, "boom", 1))), 12);
        let again = task("t2", 1, TaskState::Running, "", 2);
        send(&changes, WatchKind::Created, Some(Object::Task(again)), 13);
    };
    let (found, ()) = tokio::join!(create(&daemon), test);
    assert_eq!(found.code, 0, "{found:?}");
    let progress: Vec<&str> =
        found.err.lines().filter(|line| line.starts_with("overall")).collect();
    assert_eq!(
        progress,
        [
            "overall progress: 0 out of 1 tasks",
            "overall progress: 1 out of 1 tasks",
            "overall progress: 0 out of 1 tasks",
            "overall progress: 1 out of 1 tasks"
        ]
    );
}

#[tokio::test]
async fn a_broken_stream_is_resumed_where_it_broke_and_a_lost_one_from_the_start() {
    let (daemon, first) = daemon(1);
    let (second, third) = (daemon.fake.watch(), daemon.fake.watch());
    bookmark(&first, 10);
    let pending = task("t1", 1, TaskState::Pending, "", 0);
    send(&first, WatchKind::Created, Some(Object::Task(pending)), 11);
    first.send(Err(Status::unavailable("the manager stops"))).unwrap();
    second.send(Err(Status::out_of_range("compacted"))).unwrap();
    send(&third, WatchKind::Created, Some(Object::Service(service(1))), 20);
    let runs = task("t1", 1, TaskState::Running, "", 1);
    send(&third, WatchKind::Created, Some(Object::Task(runs)), 20);
    bookmark(&third, 20);
    let found = create(&daemon).await;
    assert_eq!(found.code, 0, "{found:?}");
    assert_eq!(daemon.fake.state().resumed, [0, 11, 0]);
}

#[tokio::test]
async fn a_manager_that_lags_behind_does_not_end_the_wait_early() {
    let daemon = Daemon::start();
    daemon.fake.state().services = vec![service(1)];
    let changes = daemon.fake.watch();
    // The follower still shows the service with one task of two, before the write of version 7.
    let mut old = service(1);
    old.meta = Some(Meta { version: 6, ..Default::default() });
    send(&changes, WatchKind::Created, Some(Object::Service(old)), 9);
    let first = task("t1", 1, TaskState::Running, "", 0);
    send(&changes, WatchKind::Created, Some(Object::Task(first)), 9);
    bookmark(&changes, 9);
    send(&changes, WatchKind::Updated, Some(Object::Service(service(2))), 10);
    let second = task("t2", 2, TaskState::Running, "", 1);
    send(&changes, WatchKind::Created, Some(Object::Task(second)), 11);
    let found = daemon.run(&["service", "scale", "web=2"]).await;
    assert_eq!((found.code, found.out.as_str()), (0, "web scaled to 2\n"), "{found:?}");
    assert!(found.err.contains("overall progress: 2 out of 2 tasks"), "{}", found.err);
}

#[tokio::test]
async fn an_update_that_is_paused_or_rolled_back_is_a_failure() {
    for (state, words) in
        [("paused", "the update is paused: task t2 failed"), ("rollback_completed", "rolled back:")]
    {
        let (daemon, changes) = daemon(1);
        let mut after = service(1);
        after.update_status = Some(UpdateStatus {
            state: state.into(),
            started_at: Some(Timestamp { seconds: NOW, nanos: 0 }),
            message: "task t2 failed".into(),
            ..Default::default()
        });
        send(&changes, WatchKind::Updated, Some(Object::Service(after)), 11);
        bookmark(&changes, 11);
        let found = daemon.run(&["service", "update", "--image", "x", "web"]).await;
        assert_eq!(found.code, 1, "{found:?}");
        assert!(found.err.contains(words), "{}", found.err);
        assert_eq!(found.out, "web\n");
    }
}

#[tokio::test]
async fn a_global_service_without_an_eligible_node_is_no_endless_wait() {
    let daemon = Daemon::start();
    let mut global = service(1);
    if let Some(spec) = &mut global.spec {
        let mode = service_mode::Mode::Global(service_mode::Global {});
        spec.mode = Some(ServiceMode { mode: Some(mode) });
    }
    daemon.fake.state().services = vec![global.clone()];
    let changes = daemon.fake.watch();
    send(&changes, WatchKind::Created, Some(Object::Service(global)), 10);
    bookmark(&changes, 10);
    let found = daemon.run(&["service", "create", "--mode", "global", "rootfs:/"]).await;
    assert_eq!(found.code, 0, "{found:?}");
    assert!(found.err.contains("overall progress: 0 out of 0 tasks"), "{}", found.err);
}

#[tokio::test]
async fn an_update_of_a_global_service_ends_when_each_old_task_is_replaced() {
    let daemon = Daemon::start();
    let mut global = service(1);
    global.spec_version = 2;
    // As counted while both the old and the new tasks ran: more than there are nodes.
    global.desired_tasks = 4;
    if let Some(spec) = &mut global.spec {
        let mode = service_mode::Mode::Global(service_mode::Global {});
        spec.mode = Some(ServiceMode { mode: Some(mode) });
    }
    daemon.fake.state().services = vec![global.clone()];
    let changes = daemon.fake.watch();
    send(&changes, WatchKind::Created, Some(Object::Service(global)), 10);
    let on = |id: &str, node: &str, version: u64| {
        let mut task = task(id, 0, TaskState::Running, "", 0);
        (task.node_id, task.spec_version) = (node.to_owned(), version);
        task.name = format!("web.{node}");
        task
    };
    for task in [on("o1", "n1", 1), on("o2", "n2", 1), on("w1", "n1", 2)] {
        send(&changes, WatchKind::Created, Some(Object::Task(task)), 10);
    }
    bookmark(&changes, 10);
    for id in ["o1", "o2"] {
        let mut old = on(id, if id == "o1" { "n1" } else { "n2" }, 1);
        old.desired_state = DesiredState::Shutdown.into();
        if id == "o2" {
            send(&changes, WatchKind::Created, Some(Object::Task(on("w2", "n2", 2))), 11);
        }
        send(&changes, WatchKind::Updated, Some(Object::Task(old)), 11);
    }
    let found = daemon.run(&["service", "update", "--image", "x", "web"]).await;
    assert_eq!(found.code, 0, "{found:?}");
    let progress: Vec<&str> =
        found.err.lines().filter(|line| line.starts_with("overall")).collect();
    assert_eq!(
        progress,
        ["overall progress: 1 out of 2 tasks", "overall progress: 2 out of 2 tasks"]
    );
}

#[tokio::test]
async fn a_detached_creation_does_not_wait() {
    let daemon = Daemon::start();
    daemon.fake.state().services = vec![service(1)];
    let found = daemon.run(&["service", "create", "-d", "rootfs:/"]).await;
    assert_eq!((found.code, found.out.as_str(), found.err.as_str()), (0, "5e\n", ""));
    assert!(daemon.fake.state().resumed.is_empty());
}

#[tokio::test]
async fn a_removed_service_is_not_waited_for() {
    let (daemon, changes) = daemon(1);
    bookmark(&changes, 10);
    send(&changes, WatchKind::Removed, Some(Object::Service(service(1))), 11);
    let found = create(&daemon).await;
    assert_eq!(found.code, 1);
    assert!(found.err.contains("service web: the service was removed"), "{}", found.err);
}
