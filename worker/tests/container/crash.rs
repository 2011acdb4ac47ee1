//! A daemon that dies between any two steps.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use weft_worker::container::{Phase, Runtime};
use weft_worker::failpoint;

use crate::lab::{Lab, block_on, eventually, helper};

/// One daemon through a container's whole life, with its environment.
fn life(lab: &Lab, id: &str, key: &str, value: &std::ffi::OsStr) -> ExitStatus {
    Command::new(helper())
        .args([lab.run_dir(), lab.state_dir(), lab.rootfs()])
        .args([lab.id(id).as_str(), "life", "true"])
        .env(key, value)
        .stdout(Stdio::null())
        .status()
        .expect("spawn")
}

#[test]
fn between_any_two_steps_there_is_all_or_something_that_can_be_removed() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("unshare");
    let lab = Lab::new("steps");
    let list = lab.dir.path().join("list");
    assert!(life(&lab, "all", failpoint::LIST, list.as_os_str()).success());
    let points = std::fs::read_to_string(&list).expect("list");
    let points: BTreeSet<&str> = points.lines().filter(|p| p.starts_with("container.")).collect();
    for verb in ["create", "place", "make", "publish", "start", "renew", "release", "remove"] {
        let prefix = format!("container.{verb}.");
        assert!(points.iter().any(|point| point.starts_with(&prefix)), "{verb}: {points:?}");
    }
    for (n, point) in points.iter().enumerate() {
        let died = life(&lab, &n.to_string(), failpoint::POINT, point.as_ref());
        assert_eq!(died.signal(), Some(libc::SIGKILL), "{point}");
        block_on(async {
            let daemon = lab.reopen();
            // A shim that was just started may not be there yet, or not yet gone.
            for found in daemon.list().await.expect("list") {
                let whole = found.config.is_some();
                let failed = matches!(found.status.phase, Phase::Failed { .. });
                assert!(whole || failed, "{point}: {found:?}");
                daemon.remove(&found.id).await.expect("remove");
            }
            eventually(point, || lab.processes().is_empty()).await;
            for found in daemon.list().await.expect("list") {
                daemon.remove(&found.id).await.expect("remove");
            }
            lab.assert_nothing_left();
        });
    }
}

#[test]
fn a_container_is_renewed_by_the_next_daemon_wherever_the_last_one_died() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("unshare");
    let lab = Lab::new("rerun");
    let list = lab.dir.path().join("list");
    assert!(life(&lab, "all", failpoint::LIST, list.as_os_str()).success());
    let points = std::fs::read_to_string(&list).expect("list");
    let points: Vec<&str> = points.lines().filter(|p| p.starts_with("container.")).collect();
    let first = points.iter().position(|p| p.starts_with("container.release.")).expect("release");
    let last = points.iter().position(|p| p.starts_with("container.renew.")).expect("renew");
    assert!(first < last);
    let within: BTreeSet<&str> =
        points[first..].iter().copied().filter(|p| p.starts_with("container.re")).collect();
    for (n, point) in within.into_iter().filter(|p| !p.contains("remove")).enumerate() {
        let died = life(&lab, &n.to_string(), failpoint::POINT, point.as_ref());
        assert_eq!(died.signal(), Some(libc::SIGKILL), "{point}");
        block_on(async {
            let daemon = lab.reopen();
            let id = lab.id(&n.to_string());
            daemon.list().await.expect("list");
            let created = daemon.renew(&id).await.unwrap_or_else(|e| panic!("{point}: {e}"));
            assert!(created.netns.exists());
            daemon.start(&id).await.expect("start");
            assert_eq!(daemon.wait(&id).await.expect("wait").code, 0, "{point}");
            daemon.remove(&id).await.expect("remove");
            lab.assert_nothing_left();
        });
    }
}
