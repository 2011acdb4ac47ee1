//! A container's output, as it was and as it comes.

use std::time::SystemTime;

use tonic::{Code, Streaming};
use weft_proto::v1::{AgentLogsRequest, ContainerLogsRequest, LogRecord, LogStream};
use weft_worker::container::Runtime;

use crate::{
    lab::{block_on, eventually},
    place::Place,
};

fn whole(container: &str) -> ContainerLogsRequest {
    ContainerLogsRequest { container: container.to_owned(), ..ContainerLogsRequest::default() }
}

/// Everything that comes: standard output and standard error.
async fn read(mut records: Streaming<LogRecord>) -> (String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    while let Some(record) = records.message().await.expect("record") {
        let text = String::from_utf8_lossy(&record.data).into_owned();
        match record.stream() {
            LogStream::Stdout => out.push_str(&text),
            LogStream::Stderr => err.push_str(&text),
            LogStream::Unspecified => panic!("neither"),
        }
        assert!(record.time.is_some());
    }
    (out, err)
}

#[test]
fn both_streams_the_tail_and_the_part_since() {
    block_on(async {
        let place = Place::new("apilogs");
        let mut client = place.containers.clone();
        let script = "for n in 1 2 3 4; do echo line$n; done; echo oops >&2";
        let config = place.task("", "web.1", &["sh", "-c", script]);
        let id = config.id.clone();
        place.lab.run(config).await;
        let stream = client.logs(whole("web.1")).await.expect("logs").into_inner();
        let all = "line1\nline2\nline3\nline4\n";
        assert_eq!(read(stream).await, (all.to_owned(), "oops\n".to_owned()));
        for (tail, out, err) in [(0, "", ""), (2, "line4\n", "oops\n"), (u64::MAX, all, "oops\n")] {
            let request = ContainerLogsRequest { tail: Some(tail), ..whole(id.as_str()) };
            let stream = client.logs(request).await.expect("logs").into_inner();
            assert_eq!(read(stream).await, (out.to_owned(), err.to_owned()), "tail {tail}");
        }
        let later =
            ContainerLogsRequest { since: Some(SystemTime::now().into()), ..whole("web.1") };
        let stream = client.logs(later).await.expect("logs").into_inner();
        assert_eq!(read(stream).await, (String::new(), String::new()));
        let status = client.logs(whole("db.1")).await.expect_err("unknown");
        assert_eq!(status.code(), Code::NotFound);
    });
}

#[test]
fn a_follower_sees_what_comes_up_to_the_end() {
    block_on(async {
        let place = Place::new("apifollow");
        let script = "echo one; while [ ! -e /tmp/go ]; do sleep 0.02; done; echo two";
        let config = place.task("", "web.1", &["sh", "-c", script]);
        let (id, pid) = place.lab.started(config).await;
        let request = ContainerLogsRequest { follow: true, ..whole("web.1") };
        let mut client = place.containers.clone();
        let mut stream = client.logs(request).await.expect("logs").into_inner();
        let first = stream.message().await.expect("record").expect("one");
        assert_eq!(first.data, b"one\n");
        std::fs::write(format!("/proc/{pid}/root/tmp/go"), "").expect("go");
        assert_eq!(read(stream).await, ("two\n".to_owned(), String::new()));
        // It ended because the container did.
        place.lab.embedded.wait(&id).await.expect("wait");
    });
}

#[test]
fn a_manager_reads_the_output_of_a_task() {
    block_on(async {
        let place = Place::new("apiagent");
        let config = place.task("", "web.1", &["sh", "-c", "echo a; echo b"]);
        let task = config.id.to_string();
        place.lab.run(config).await;
        let mut agent = place.agent.clone();
        let request = AgentLogsRequest { task_id: task, follow: true, tail: Some(1), since: None };
        let stream = agent.logs(request).await.expect("logs").into_inner();
        assert_eq!(read(stream).await.0, "b\n");
        for (task_id, code) in
            [("ab".repeat(32), Code::NotFound), ("web.1".to_owned(), Code::InvalidArgument)]
        {
            let request = AgentLogsRequest { task_id, ..AgentLogsRequest::default() };
            assert_eq!(agent.logs(request).await.expect_err("refused").code(), code);
        }
    });
}

#[test]
fn a_follower_that_goes_away_is_forgotten() {
    block_on(async {
        let place = Place::new("apileave");
        let config = place.task("", "web.1", &["sh", "-c", "echo up; exec sleep 1000"]);
        let id = config.id.clone();
        place.lab.started(config).await;
        let log = place.lab.state_dir().join("containers").join(id.as_str()).join("log");
        let log = std::fs::canonicalize(log).expect("log");
        // The reader holds the file open in this process, which serves, too.
        let readers = || {
            let links = std::fs::read_dir("/proc/self/fd").expect("fds").flatten();
            links.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == log)).count()
        };
        let request = ContainerLogsRequest { follow: true, ..whole("web.1") };
        let mut client = place.containers.clone();
        let mut stream = client.logs(request).await.expect("logs").into_inner();
        assert!(stream.message().await.expect("record").is_some());
        assert!(readers() > 0);
        drop(stream);
        eventually("nobody reads", || readers() == 0).await;
    });
}
