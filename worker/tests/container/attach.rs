//! Clients of a container's main process.

use weft_worker::container::{
    AttachConfig, AttachOutput, AttachRecord, AttachSession, ContainerConfig, ContainerId, Error,
    OutputStream, Runtime, WindowSize,
};

use crate::lab::{Lab, block_on, eventually};

const OUTPUT: AttachConfig = AttachConfig { stdin: false, stdout: true, stderr: true, size: None };
const ALL: AttachConfig = AttachConfig { stdin: true, ..OUTPUT };

async fn attached(lab: &Lab, id: &ContainerId, config: AttachConfig) -> AttachSession {
    lab.embedded.attach(id, config).await.expect("attach")
}

/// All that comes to the end: (stdout, stderr, bytes lost).
async fn all(mut output: AttachOutput) -> (Vec<u8>, Vec<u8>, u64) {
    let (mut out, mut err, mut lost) = (Vec::new(), Vec::new(), 0);
    while let Some(record) = output.next().await {
        match record.expect("a record") {
            AttachRecord::Data { stream: OutputStream::Stdout, data } => {
                out.extend_from_slice(&data);
            }
            AttachRecord::Data { stream: OutputStream::Stderr, data } => {
                err.extend_from_slice(&data);
            }
            AttachRecord::Lost(bytes) => lost += bytes,
        }
    }
    (out, err, lost)
}

/// Reads until `text` has come.
async fn until(output: &mut AttachOutput, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        match output.next().await.expect("more").expect("a record") {
            AttachRecord::Data { data, .. } => seen.push_str(&String::from_utf8_lossy(&data)),
            AttachRecord::Lost(bytes) => panic!("{bytes} lost"),
        }
    }
    seen
}

async fn created(lab: &Lab, config: ContainerConfig) -> ContainerId {
    let id = config.id.clone();
    lab.embedded.create(config).await.expect("create");
    id
}

#[test]
fn who_attaches_before_the_start_misses_nothing() {
    let lab = Lab::new("attach");
    block_on(async {
        for n in 0..5 {
            let script = "echo first; echo err >&2; seq 1 20000; printf last";
            let id = created(&lab, lab.shell(&n.to_string(), script)).await;
            let clients = [attached(&lab, &id, OUTPUT).await, attached(&lab, &id, OUTPUT).await];
            lab.embedded.start(&id).await.expect("start");
            let numbers: String = (1..=20000).map(|n| format!("{n}\n")).collect();
            for client in clients {
                let (out, err, lost) = all(client.output).await;
                assert_eq!(String::from_utf8_lossy(&out), format!("first\n{numbers}last"));
                assert_eq!((err.as_slice(), lost), (b"err\n".as_slice(), 0));
            }
            let logged = lab.output(&id).await;
            assert_eq!(logged.0, format!("first\n{numbers}last"), "the log has it, too");
            let late = lab.embedded.attach(&id, OUTPUT).await;
            assert!(matches!(late, Err(Error::NotRunning { .. })), "{late:?}");
        }
    });
}

#[test]
fn only_the_streams_that_were_asked_for_come() {
    let lab = Lab::new("attachone");
    block_on(async {
        let id = created(&lab, lab.shell("a", "echo out; echo err >&2")).await;
        let client = attached(&lab, &id, AttachConfig { stdout: false, ..OUTPUT }).await;
        lab.embedded.start(&id).await.expect("start");
        let (out, err, _) = all(client.output).await;
        assert_eq!((out.as_slice(), err.as_slice()), (b"".as_slice(), b"err\n".as_slice()));
    });
}

#[test]
fn what_is_fed_comes_through_and_its_end_too() {
    let lab = Lab::new("feed");
    block_on(async {
        let mut config = lab.shell("a", "cat; echo end");
        (config.open_stdin, config.stdin_once) = (true, true);
        let id = created(&lab, config).await;
        let AttachSession { output, stdin, .. } = attached(&lab, &id, ALL).await;
        let mut stdin = stdin.expect("an input");
        // More than any buffer on the way, so that both directions must go on at once.
        let text = "0123456789abcdef".repeat(64 << 10);
        let start = lab.embedded.start(&id);
        let fed = async {
            stdin.write_all(text.as_bytes()).await.expect("fed");
            drop(stdin);
        };
        let (started, (), (out, _, lost)) = tokio::join!(start, fed, all(output));
        started.expect("start");
        assert_eq!(lost, 0);
        assert!(out == format!("{text}end\n").as_bytes(), "{} bytes", out.len());
        // Without an open input there is none.
        let id = created(&lab, lab.shell("b", "cat; echo end")).await;
        let client = attached(&lab, &id, ALL).await;
        assert!(client.stdin.is_none());
        lab.embedded.start(&id).await.expect("start");
        assert_eq!(all(client.output).await.0, b"end\n");
    });
}

#[test]
fn an_input_that_is_not_for_one_client_outlives_them() {
    let lab = Lab::new("keepin");
    block_on(async {
        let mut config = lab.shell("a", "while read a; do echo got $a; done");
        config.open_stdin = true;
        let (id, _) = lab.started(config).await;
        for name in ["one", "two"] {
            let mut client = attached(&lab, &id, ALL).await;
            let mut stdin = client.stdin.take().expect("an input");
            stdin.write_all(format!("{name}\n").as_bytes()).await.expect("fed");
            drop(stdin);
            assert_eq!(until(&mut client.output, "\n").await, format!("got {name}\n"));
        }
        assert!(lab.embedded.status(&id).await.expect("status").pid.is_some());
    });
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up_and_catches_up_or_is_told() {
    let lab = Lab::new("slow");
    block_on(async {
        for (name, lines, loses) in [("a", 500_000_u64, false), ("b", 2_500_000, true)] {
            // Lines of 16 bytes: 8 MB fit into the log, 40 MB do not.
            let script = format!("yes 0123456789abcde | head -n {lines}");
            let id = created(&lab, lab.shell(name, &script)).await;
            let slow = attached(&lab, &id, OUTPUT).await;
            lab.embedded.start(&id).await.expect("start");
            assert_eq!(lab.embedded.wait(&id).await.expect("it ends").code, 0);
            let (out, _, lost) = all(slow.output).await;
            assert_eq!(lost > 0, loses, "{lost} lost of {name}");
            if !loses {
                assert_eq!(out.len() as u64, lines * 16);
            }
            assert!(out.ends_with(b"0123456789abcde\n"));
            // What is lost is counted with the headers of its records.
            assert!(out.len() as u64 + lost >= lines * 16, "{} and {lost}", out.len());
        }
    });
}

#[test]
fn a_removal_waits_a_little_for_who_still_reads() {
    let lab = Lab::new("parting");
    block_on(async {
        let script = "yes 0123456789abcde | head -n 200000";
        let id = created(&lab, lab.shell("a", script)).await;
        let client = attached(&lab, &id, OUTPUT).await;
        lab.embedded.start(&id).await.expect("start");
        lab.embedded.wait(&id).await.expect("wait");
        let (removed, (out, _, lost)) = tokio::join!(lab.embedded.remove(&id), all(client.output));
        removed.expect("remove");
        assert_eq!((out.len(), lost), (16 * 200_000, 0));
        // One that never reads is not waited for for long.
        let id = created(&lab, lab.shell("b", script)).await;
        let _deaf = attached(&lab, &id, OUTPUT).await;
        lab.embedded.start(&id).await.expect("start");
        lab.embedded.wait(&id).await.expect("wait");
        lab.embedded.remove(&id).await.expect("remove");
        lab.assert_nothing_left();
    });
}

#[test]
fn a_terminal_is_the_main_processes_own() {
    let lab = Lab::new("maintty");
    block_on(async {
        let script =
            "tty; stty size; echo $TERM; read a; stty size; echo got $a; echo e >&2; exit 4";
        let mut config = lab.shell("a", script);
        (config.tty, config.open_stdin, config.stdin_once) = (true, true, true);
        let id = created(&lab, config).await;
        let size = Some(WindowSize { rows: 30, columns: 90 });
        let mut client = attached(&lab, &id, AttachConfig { size, ..ALL }).await;
        lab.embedded.start(&id).await.expect("start");
        let seen = until(&mut client.output, "xterm").await;
        assert!(seen.contains("/dev/pts/0") && seen.contains("30 90"), "{seen}");
        // The end of one client's input is not the terminal's.
        drop(client.stdin.take());
        let mut second = attached(&lab, &id, ALL).await;
        let terminal = second.terminal.take().expect("a terminal");
        terminal.resize(WindowSize { rows: 40, columns: 100 }).await.expect("resize");
        second.stdin.as_mut().expect("an input").write_all(b"hello\n").await.expect("write");
        let (out, err, _) = all(second.output).await;
        let out = String::from_utf8_lossy(&out).into_owned();
        assert!(out.contains("40 100") && out.contains("got hello\r\ne\r\n"), "{out}");
        assert!(err.is_empty());
        assert_eq!(lab.embedded.wait(&id).await.expect("wait").code, 4);
        assert!(lab.output(&id).await.0.contains("got hello"), "the log has it, too");
    });
}

#[test]
fn control_c_reaches_the_main_process_also_under_an_init() {
    let lab = Lab::new("mainctrlc");
    block_on(async {
        for (name, init) in [("a", false), ("b", true)] {
            let mut config =
                lab.shell(name, "trap 'exit 9' INT; echo ready; while :; do sleep 0.02; done");
            (config.tty, config.open_stdin, config.init) = (true, true, init);
            let id = created(&lab, config).await;
            let mut client = attached(&lab, &id, ALL).await;
            lab.embedded.start(&id).await.expect("start");
            until(&mut client.output, "ready").await;
            client.stdin.as_mut().expect("an input").write_all(&[3]).await.expect("write");
            assert_eq!(lab.embedded.wait(&id).await.expect("wait").code, 9, "{name}");
        }
    });
}

#[test]
fn a_client_that_goes_away_leaves_the_container_alone() {
    let lab = Lab::new("goaway");
    block_on(async {
        let mut config = lab.shell("a", "until test -e /go; do echo x; sleep 0.01; done; exit 5");
        config.open_stdin = true;
        let (id, pid) = lab.started(config).await;
        for _ in 0..100 {
            drop(attached(&lab, &id, ALL).await);
        }
        std::fs::write(format!("/proc/{pid}/root/go"), "").expect("touch");
        assert_eq!(lab.embedded.wait(&id).await.expect("wait").code, 5);
        let status = lab.embedded.status(&id).await.expect("status");
        let fds =
            || std::fs::read_dir(format!("/proc/{}/fd", status.shim_pid)).expect("fd").count();
        eventually("the shim has let go of all clients", || fds() < 16).await;
    });
}
