//! From create to remove: exit codes, signals, logs, errors.

use std::time::{Duration, Instant};

use weft_worker::container::{ContainerId, Error, Image, LogQuery, Phase, Runtime};

use crate::lab::{Lab, block_on};

#[test]
fn output_and_exit_code_come_back_and_nothing_stays() {
    let lab = Lab::new("life");
    block_on(async {
        let (exit, out, err) = lab.run(lab.shell("a", "echo out; echo err >&2; exit 7")).await;
        assert_eq!((exit.code, exit.signal, exit.oom, exit.error), (7, None, false, None));
        assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
        let id = lab.id("a");
        assert!(
            matches!(lab.embedded.status(&id).await.expect("status").phase, Phase::Exited(e) if e.code == 7)
        );
        lab.embedded.remove(&id).await.expect("remove");
        lab.embedded.remove(&id).await.expect("again");
        assert!(matches!(lab.embedded.status(&id).await, Err(Error::NotFound { .. })));
        lab.assert_nothing_left();
    });
}

#[test]
fn a_command_that_is_not_there_is_named_and_is_127() {
    let lab = Lab::new("notfound");
    block_on(async {
        for (n, (args, code)) in
            [(["nosuch"], 127), (["/nosuch"], 127), (["/etc"], 126), (["/plain"], 126)]
                .iter()
                .enumerate()
        {
            std::fs::write(lab.rootfs().join("plain"), "x").expect("write");
            let config = lab.config(&n.to_string(), args);
            let id = config.id.clone();
            lab.embedded.create(config).await.expect("create");
            let error = lab.embedded.start(&id).await.expect_err("must fail");
            assert_eq!(error.exit_code(), *code, "{error}");
            assert!(error.to_string().contains(args[0]), "{error}");
            let exit = lab.embedded.wait(&id).await.expect("wait");
            assert_eq!(exit.code, *code);
            assert!(matches!(lab.embedded.start(&id).await, Err(Error::AlreadyStarted { .. })));
            lab.embedded.remove(&id).await.expect("remove");
        }
        lab.assert_nothing_left();
    });
}

#[test]
fn a_file_that_is_no_program_is_126() {
    let lab = Lab::new("noexec");
    block_on(async {
        let file = lab.rootfs().join("bin/garbage");
        std::fs::write(&file, "\u{1}\u{2}").expect("write");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&file, mode).expect("chmod");
        let config = lab.config("a", &["garbage"]);
        let id = config.id.clone();
        lab.embedded.create(config).await.expect("create");
        let error = lab.embedded.start(&id).await.expect_err("must fail");
        assert_eq!(error.exit_code(), 126, "{error}");
        assert_eq!(lab.embedded.wait(&id).await.expect("wait").code, 126);
    });
}

#[test]
fn stop_asks_first_and_kills_after_the_grace() {
    let lab = Lab::new("stop");
    block_on(async {
        let polite =
            lab.shell("polite", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done");
        let (id, _) = lab.started(polite).await;
        ready(&lab, &id).await;
        let exit = lab.embedded.stop(&id, Duration::from_secs(10)).await.expect("stop");
        assert_eq!((exit.code, exit.signal), (3, None));

        let (id, _) =
            lab.started(lab.shell("deaf", "echo ready; while :; do sleep 0.05; done")).await;
        ready(&lab, &id).await;
        let since = Instant::now();
        let exit = lab.embedded.stop(&id, Duration::from_millis(200)).await.expect("stop");
        assert_eq!((exit.code, exit.signal), (137, Some(9)));
        assert!(since.elapsed() >= Duration::from_millis(200));
        assert_eq!(lab.embedded.stop(&id, Duration::ZERO).await.expect("again"), exit);
    });
}

async fn ready(lab: &Lab, id: &ContainerId) {
    let query = LogQuery { follow: true, ..LogQuery::default() };
    let mut log = lab.embedded.logs(id, query).await.expect("logs");
    let first = log.next().await.expect("a record").expect("good");
    assert_eq!(&first.data[..], b"ready\n");
}

#[test]
fn the_end_is_told_at_once() {
    let lab = Lab::new("ended");
    block_on(async {
        let mut ended = lab.embedded.ended();
        let (id, _) = lab.started(lab.config("a", &["sleep", "1000"])).await;
        let killed = Instant::now();
        lab.embedded.kill(&id, libc::SIGKILL).await.expect("kill");
        let told = ended.recv().await.expect("told");
        assert!(killed.elapsed() < Duration::from_millis(100), "{:?}", killed.elapsed());
        assert_eq!(told.id, id);
        assert!(matches!(told.phase, Phase::Exited(e) if e.signal == Some(9) && e.code == 137));
        assert!(matches!(lab.embedded.kill(&id, 15).await, Err(Error::NotRunning { .. })));
    });
}

#[test]
fn a_follower_sees_all_and_then_the_end() {
    let lab = Lab::new("follow");
    block_on(async {
        let (id, _) = lab
            .started(lab.shell("a", "for i in 1 2 3; do echo $i; sleep 0.1; done; printf end"))
            .await;
        let query = LogQuery { follow: true, ..LogQuery::default() };
        let mut log = lab.embedded.logs(&id, query).await.expect("logs");
        let mut text = String::new();
        while let Some(record) = log.next().await {
            text.push_str(&String::from_utf8_lossy(&record.expect("good").data));
        }
        assert_eq!(text, "1\n2\n3\nend");
        let query = LogQuery { tail: Some(2), ..LogQuery::default() };
        let mut log = lab.embedded.logs(&id, query).await.expect("logs");
        let mut text = String::new();
        while let Some(record) = log.next().await {
            text.push_str(&String::from_utf8_lossy(&record.expect("good").data));
        }
        assert_eq!(text, "3\nend");
    });
}

#[test]
fn a_log_is_bounded() {
    let lab = Lab::new("rotate");
    block_on(async {
        // 40 MiB, more than the three files of 8 MiB.
        let (exit, out, _) = lab
            .run(lab.shell("a", "yes 0123456789abcde | head -c 41943040; echo; echo last"))
            .await;
        assert_eq!(exit.code, 0);
        assert!(out.ends_with("last\n"));
        let dir = lab.state_dir().join("containers").join(lab.id("a").as_str());
        let sizes: Vec<u64> = ["log", "log.1", "log.2"]
            .iter()
            .map(|f| std::fs::metadata(dir.join(f)).expect("a file").len())
            .collect();
        assert!(sizes.iter().all(|s| *s <= 8 << 20), "{sizes:?}");
        assert!(!dir.join("log.3").exists());
    });
}

#[test]
fn what_cannot_be_made_is_refused_by_name_and_leaves_nothing() {
    let lab = Lab::new("refuse");
    block_on(async {
        let good = || lab.config("a", &["true"]);
        let mut missing = good();
        missing.image = Image::Rootfs(lab.dir.path().join("nowhere"));
        let mut file = good();
        file.image = Image::Rootfs(lab.rootfs().join("bin/busybox"));
        let mut ours = good();
        ours.image = Image::Rootfs(lab.state_dir());
        let mut nothing = good();
        nothing.args.clear();
        let mut cap = good();
        cap.cap_add = vec!["NONSENSE".into()];
        let mut sysctl = good();
        sysctl.sysctls.insert("net.../x".into(), "1".into());
        let mut netns = good();
        netns.network = weft_worker::container::NetNamespace::Join("/nowhere/net".into());
        for (config, word) in [
            (missing, "nowhere"),
            (file, "not a directory"),
            (ours, "keys"),
            (nothing, "no command"),
            (cap, "NONSENSE"),
            (sysctl, "kernel setting"),
            (netns, "/nowhere/net"),
        ] {
            let error = lab.embedded.create(config).await.expect_err(word);
            assert!(error.to_string().contains(word), "{error}");
            lab.assert_nothing_left();
        }
        lab.embedded.create(good()).await.expect("create");
        assert!(matches!(lab.embedded.create(good()).await, Err(Error::Exists { .. })));
        assert!(lab.embedded.status(&lab.id("a")).await.is_ok(), "the first one is still there");
    });
}

#[test]
fn another_run_finds_what_the_first_one_wrote() {
    let lab = Lab::new("renew");
    block_on(async {
        let script = "echo run >>/tmp/runs; cat /tmp/runs; cat /etc/hosts";
        let (_, out, _) = lab.run(lab.shell("a", script)).await;
        assert_eq!(out, "run\n");
        let id = lab.id("a");
        for n in 2..4 {
            if n == 3 {
                // Also when only the files are left.
                lab.embedded.release(&id).await.expect("release");
            }
            let mut ended = lab.embedded.ended();
            let created = lab.embedded.renew(&id).await.expect("renew");
            assert!(created.netns.exists() && created.dns.is_some());
            assert!(matches!(lab.embedded.renew(&id).await, Err(Error::AlreadyStarted { .. })));
            lab.embedded.start(&id).await.expect("start");
            assert_eq!(ended.recv().await.expect("told").id, id);
            assert_eq!(lab.embedded.wait(&id).await.expect("wait").code, 0);
        }
        assert_eq!(lab.output(&id).await.0, "run\n".repeat(1 + 2 + 3));
        lab.embedded.remove(&id).await.expect("remove");
        lab.assert_nothing_left();
    });
}
