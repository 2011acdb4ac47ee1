//! Commands in containers: their bytes, their codes, their ends.

use std::fs;

use weft_proto::v1::exec_request::{Request, Start, WindowSize};

use crate::{
    lab::{block_on, eventually},
    place::{Place, command, first_pid, guests},
};

#[test]
fn input_output_and_exit_code() {
    block_on(async {
        let place = Place::new("apiexec");
        let name = place.sleeper().await;
        let script = "cat; echo err >&2; echo $A $HOSTNAME $PWD; exit 6";
        let start = Start {
            stdin: true,
            env: vec!["A=1".into()],
            workdir: "/bin".into(),
            ..command(&name, &["sh", "-c", script])
        };
        let told = place.run(start.clone(), "in\n").await.expect("run");
        let id = name.rsplit('.').next().expect("id");
        assert_eq!(told.out(), format!("in\n1 {} /bin\n", &id[..12]));
        assert_eq!((told.err().as_str(), told.code, told.started), ("err\n", Some(6), 1));

        // The end of input in words, instead of by the end of all that is said.
        let mut session = place.session(Request::Start(start)).await.expect("session");
        session.say(Request::Stdin(b"again\n".to_vec())).await;
        session.say(Request::StdinClosed(true)).await;
        let told = session.rest().await.expect("rest");
        assert!(told.out().starts_with("again\n1 "), "{told:?}");
        assert_eq!(told.code, Some(6));
    });
}

#[test]
fn without_input_the_command_sees_its_end_at_once() {
    block_on(async {
        let place = Place::new("apinostdin");
        let name = place.sleeper().await;
        // The caller goes on holding its side open.
        let start = Request::Start(command(&name, &["cat"]));
        let told = place.session(start).await.expect("session").rest().await.expect("rest");
        assert_eq!((told.out().as_str(), told.code), ("", Some(0)));
    });
}

#[test]
fn a_command_that_closes_its_input_lives_on() {
    block_on(async {
        let place = Place::new("apiepipe");
        let name = place.sleeper().await;
        let script = "exec <&-; echo closed; sleep 0.05; echo still here; exit 3";
        let start = Start { stdin: true, ..command(&name, &["sh", "-c", script]) };
        let mut session = place.session(Request::Start(start)).await.expect("session");
        session.until("closed").await;
        for _ in 0..64 {
            session.say(Request::Stdin(vec![b'x'; 4096])).await;
        }
        let told = session.rest().await.expect("rest");
        assert_eq!((told.out().as_str(), told.code), ("still here\n", Some(3)));
    });
}

#[test]
fn much_output_comes_whole_and_a_slow_reader_holds_the_command_back() {
    const BYTES: u64 = 30_000_000;
    block_on(async {
        let place = Place::new("apislow");
        let name = place.sleeper().await;
        let first = first_pid(&place, &name).await;
        let count = BYTES.to_string();
        let start = Request::Start(command(&name, &["head", "-c", &count, "/dev/zero"]));
        let mut session = place.session(start).await.expect("session");
        // Nobody reads: the command comes to a stand long before its end.
        let written = || -> Option<u64> {
            let [head] = &guests(first)[..] else { return None };
            let io = fs::read_to_string(head.join("io")).ok()?;
            io.lines().find_map(|line| line.strip_prefix("wchar: "))?.parse().ok()
        };
        let (mut last, mut same) = (None, 0);
        eventually("the command stands still", || {
            let now = written().filter(|bytes| *bytes > 0);
            same = if now.is_some() && now == last { same + 1 } else { 0 };
            last = now;
            // A hundred looks of 5 ms each.
            same > 100
        })
        .await;
        assert!(last.is_some_and(|bytes| bytes < BYTES / 2), "{last:?}");
        let told = session.rest().await.expect("rest");
        assert_eq!((told.stdout.len() as u64, told.code), (BYTES, Some(0)));
        assert!(told.stdout.iter().all(|byte| *byte == 0));
    });
}

#[test]
fn the_last_words_of_quick_commands_are_heard() {
    block_on(async {
        let place = Place::new("apilast");
        let name = place.sleeper().await;
        for round in 0..20 {
            let script = format!("seq 3000; echo last{round} >&2");
            let told = place.run(command(&name, &["sh", "-c", &script]), "").await.expect("run");
            assert_eq!(told.out().lines().count(), 3000, "round {round}");
            assert_eq!((told.err(), told.code), (format!("last{round}\n"), Some(0)));
        }
    });
}

#[test]
fn a_process_left_behind_does_not_hold_the_caller() {
    block_on(async {
        let place = Place::new("apibehind");
        let name = place.sleeper().await;
        for script in ["sleep 1000 & echo hi", "yes & echo hi"] {
            let told = place.run(command(&name, &["sh", "-c", script]), "").await.expect("run");
            assert!(told.out().contains("hi\n"), "{script}");
            assert_eq!(told.code, Some(0));
        }
    });
}

#[test]
fn a_terminal() {
    block_on(async {
        let place = Place::new("apitty");
        let name = place.sleeper().await;
        let script = "tty; stty size; read a; stty size; echo got $a; cat; exit 4";
        let start = Start {
            tty: true,
            stdin: true,
            size: Some(WindowSize { rows: 30, columns: 90 }),
            ..command(&name, &["sh", "-c", script])
        };
        let mut session = place.session(Request::Start(start)).await.expect("session");
        assert!(session.until("30 90").await.out().contains("/dev/pts/"));
        session.say(Request::Resize(WindowSize { rows: 40, columns: 100 })).await;
        session.say(Request::Stdin(b"hello\n".to_vec())).await;
        let told = session.until("got hello").await;
        assert!(told.out().contains("40 100"), "{told:?}");
        // The end of input ends `cat`, as Ctrl-D does.
        session.say(Request::StdinClosed(true)).await;
        let told = session.rest().await.expect("rest");
        assert_eq!((told.code, told.stderr.len()), (Some(4), 0));

        let start = Start {
            tty: true,
            stdin: true,
            ..command(&name, &["sh", "-c", "echo ready; sleep 1000"])
        };
        let mut session = place.session(Request::Start(start)).await.expect("session");
        session.until("ready").await;
        session.say(Request::Stdin(vec![3])).await;
        assert_eq!(session.rest().await.expect("rest").code, Some(130), "Ctrl-C");
    });
}

#[test]
fn a_terminal_without_input_is_only_looked_at() {
    block_on(async {
        let place = Place::new("apilook");
        let name = place.sleeper().await;
        let start = Start { tty: true, ..command(&name, &["sh", "-c", "stty size; echo end"]) };
        let told = place.run(start, "").await.expect("run");
        assert_eq!(
            told.out(),
            "24 80\r\nend\r\n",
            "the size is the default one, and no ^D is echoed"
        );
        assert_eq!(told.code, Some(0));
    });
}

#[test]
fn signals_reach_the_command_and_so_does_the_containers_end() {
    block_on(async {
        let place = Place::new("apisignal");
        let name = place.sleeper().await;
        let start = || Request::Start(command(&name, &["sh", "-c", "echo up; exec sleep 1000"]));
        let mut session = place.session(start()).await.expect("session");
        session.until("up").await;
        session.say(Request::Signal(15)).await;
        assert_eq!(session.rest().await.expect("rest").code, Some(143));
        let mut session = place.session(start()).await.expect("session");
        session.until("up").await;
        let id = name.rsplit('.').next().expect("id");
        let id = weft_worker::container::ContainerId::new(id).expect("id");
        weft_worker::container::Runtime::kill(&place.lab.embedded, &id, libc::SIGKILL)
            .await
            .expect("kill");
        assert_eq!(session.rest().await.expect("rest").code, Some(137));
    });
}

#[test]
fn the_command_dies_when_its_caller_goes_away() {
    block_on(async {
        let place = Place::new("apigone");
        let name = place.sleeper().await;
        let first = first_pid(&place, &name).await;
        for script in ["echo up; exec sleep 1000", "echo up; exec yes"] {
            let start = Request::Start(command(&name, &["sh", "-c", script]));
            let mut session = place.session(start).await.expect("session");
            session.until("up").await;
            assert_eq!(guests(first).len(), 1);
            drop(session);
            eventually("the command is gone", || guests(first).is_empty()).await;
            // One that has said all it had to say is missed, too.
            let start = Request::Start(command(&name, &["sh", "-c", script]));
            let mut session = place.session(start).await.expect("session");
            session.requests = None;
            session.until("up").await;
            drop(session);
            eventually("the other is gone", || guests(first).is_empty()).await;
        }
    });
}

#[test]
fn a_detached_command_does_not() {
    block_on(async {
        let place = Place::new("apidetach");
        let name = place.sleeper().await;
        let first = first_pid(&place, &name).await;
        // More output than a pipe holds: it must not wait for a reader that there is not.
        let script = "seq 100000; echo err >&2; exec sleep 1000";
        let start = Start { detach: true, ..command(&name, &["sh", "-c", script]) };
        let told = place.run(start, "").await.expect("run");
        assert_eq!((told.started, told.code, told.stdout.len()), (1, None, 0));
        eventually("it has come to its last command", || {
            let one = guests(first).first().cloned();
            one.and_then(|path| fs::read(path.join("cmdline")).ok())
                .is_some_and(|line| line.starts_with(b"sleep"))
        })
        .await;
    });
}
