//! What outlives the daemon, and what becomes of the rest.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use tokio::io::AsyncReadExt;
use weft_worker::container::{Error, Phase, Runtime};

use crate::lab::{Lab, block_on, eventually, helper};

/// A daemon in a process of its own, which has got as far as `upto`.
fn daemon(lab: &Lab, upto: &str, script: &str) -> Child {
    let mut child = Command::new(helper())
        .args([lab.run_dir(), lab.state_dir(), lab.rootfs()])
        .args([lab.id("a").as_str(), upto, "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    let mut line = String::new();
    let out = child.stdout.take().expect("piped");
    BufReader::new(out).read_line(&mut line).expect("read");
    assert_eq!(line, "done\n");
    child
}

fn kill_9(mut child: Child) {
    child.kill().expect("kill");
    child.wait().expect("wait");
}

#[test]
fn a_container_lives_through_its_daemons_death() {
    let lab = Lab::new("adopt");
    block_on(async {
        let go = "until test -e /go; do sleep 0.02; done; echo went; exit 5";
        kill_9(daemon(&lab, "start", go));
        let id = lab.id("a");
        let found = lab.embedded.list().await.expect("list");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].status.phase, Phase::Running);
        assert_eq!(found[0].config.as_ref().expect("config").args[0], "sh");
        assert!(found[0].netns().expect("netns").exists());
        let dns = lab.embedded.dns_sockets(&id).await.expect("dns");
        assert_eq!(Some(dns.port), found[0].status.dns_port);

        let mut ended = lab.embedded.ended();
        let pid = found[0].status.pid.expect("it runs");
        std::fs::write(format!("/proc/{pid}/root/go"), "").expect("touch");
        let told = ended.recv().await.expect("told");
        assert!(matches!(told.phase, Phase::Exited(e) if e.code == 5));
        assert_eq!(lab.output(&id).await.0, "went\n");
        lab.embedded.remove(&id).await.expect("remove");
        lab.assert_nothing_left();
    });
}

#[test]
fn a_container_that_ended_while_nobody_looked_is_found_with_its_code() {
    let lab = Lab::new("missed");
    block_on(async {
        kill_9(daemon(&lab, "start", "exit 9"));
        let status = lab.state_dir().join("containers").join(lab.id("a").as_str()).join("status");
        eventually("the exit is on the disk", || {
            std::fs::read_to_string(&status).is_ok_and(|t| t.contains("phase=exited"))
        })
        .await;
        let found = lab.embedded.list().await.expect("list");
        assert!(matches!(&found[0].status.phase, Phase::Exited(e) if e.code == 9));
        // The shim is killed, and the code is still known.
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(found[0].status.shim_pid),
            nix::sys::signal::Signal::SIGKILL,
        )
        .expect("kill");
        eventually("the shim is gone", || lab.processes().is_empty()).await;
        let found = lab.reopen().list().await.expect("list");
        assert!(matches!(&found[0].status.phase, Phase::Exited(e) if e.code == 9));
        assert_eq!(lab.embedded.wait(&lab.id("a")).await.expect("wait").code, 9);
    });
}

#[test]
fn a_created_container_can_be_started_by_the_next_daemon() {
    let lab = Lab::new("half");
    block_on(async {
        kill_9(daemon(&lab, "create", "exit 4"));
        let id = lab.id("a");
        assert_eq!(lab.embedded.list().await.expect("list")[0].status.phase, Phase::Created);
        lab.embedded.start(&id).await.expect("start");
        assert_eq!(lab.embedded.wait(&id).await.expect("wait").code, 4);
    });
}

#[test]
fn a_container_does_not_outlive_its_shim() {
    let lab = Lab::new("shimdeath");
    block_on(async {
        let mut ended = lab.embedded.ended();
        let (id, pid) = lab.started(lab.config("a", &["sleep", "1000"])).await;
        let shim = lab.embedded.status(&id).await.expect("status").shim_pid;
        let kill = nix::sys::signal::Signal::SIGKILL;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), kill).expect("kill");
        let told = ended.recv().await.expect("told");
        assert!(matches!(told.phase, Phase::Failed { .. }), "{told:?}");
        eventually("the container is dead", || {
            !std::path::Path::new(&format!("/proc/{pid}/ns/net")).exists()
        })
        .await;
        let found = lab.embedded.list().await.expect("list");
        assert!(matches!(found[0].status.phase, Phase::Failed { .. }));
        assert!(matches!(lab.embedded.wait(&id).await, Err(Error::ShimGone { .. })));
        lab.embedded.remove(&id).await.expect("remove");
        lab.assert_nothing_left();
    });
}

/// A daemon that dies between any two steps of `create` leaves a part of what a whole container has
/// on the disk.
#[test]
fn every_half_made_thing_can_be_listed_and_removed() {
    let lab = Lab::new("parts");
    block_on(async {
        let id = lab.id("a");
        let state = lab.state_dir().join("containers").join(id.as_str());
        let run = lab.run_dir().join("containers").join(id.as_str());
        let parts: [&dyn Fn(); 5] = [
            &|| std::fs::create_dir(&state).expect("mkdir"),
            &|| {
                std::fs::create_dir(&state).expect("mkdir");
                std::fs::write(state.join("config.json"), "{\"config\":").expect("write");
            },
            &|| std::fs::create_dir(&run).expect("mkdir"),
            &|| {
                std::fs::create_dir_all(state.join("upper/etc")).expect("mkdir");
                std::fs::create_dir_all(run.join("bundle")).expect("mkdir");
            },
            // Dead before it was started: the config, a socket without a shim, cgroups.
            &|| kill_9(daemon(&lab, "create", "true")),
        ];
        for (n, part) in parts.iter().enumerate() {
            part();
            if n == 4 {
                let pid = lab.reopen().status(&id).await.expect("status").shim_pid;
                let kill = nix::sys::signal::Signal::SIGKILL;
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), kill).expect("kill");
                eventually("the shim is gone", || lab.processes().is_empty()).await;
            }
            let found = lab.embedded.list().await.expect("list");
            assert_eq!(found.len(), 1, "part {n}");
            assert!(matches!(found[0].status.phase, Phase::Failed { .. }), "part {n}: {found:?}");
            lab.embedded.remove(&id).await.expect("remove");
            lab.assert_nothing_left();
        }
        std::fs::create_dir_all(state.with_file_name(".removing-x")).expect("mkdir");
        assert!(lab.embedded.list().await.expect("list").is_empty());
        lab.assert_nothing_left();
    });
}

/// Daemons killed at every moment of making containers, and what the last one makes of it.
#[test]
fn a_daemon_killed_at_any_moment_leaves_nothing_that_cannot_be_removed() {
    const KILLS: u32 = 40;
    let lab = Lab::new("anytime");
    block_on(async {
        for n in 0..KILLS {
            let id = lab.id(&n.to_string());
            let mut child = Command::new(helper())
                .args([lab.run_dir(), lab.state_dir(), lab.rootfs()])
                .args([id.as_str(), "start", "sleep", "1000"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("spawn");
            // From before the first step to after the last.
            tokio::time::sleep(std::time::Duration::from_micros(u64::from(n) * 1000)).await;
            child.kill().expect("kill");
            child.wait().expect("wait");
        }
        for found in lab.embedded.list().await.expect("list") {
            lab.embedded.remove(&found.id).await.expect("remove");
        }
        // A shim that was on its way when its directory went away has seen it, and ended.
        eventually("no shim is left", || lab.processes().is_empty()).await;
        for found in lab.embedded.list().await.expect("list") {
            lab.embedded.remove(&found.id).await.expect("remove");
        }
        lab.assert_nothing_left();
    });
}

#[test]
fn a_query_asked_while_no_daemon_is_there_waits_for_the_next_one() {
    let lab = Lab::new("query");
    block_on(async {
        let id = lab.id("a");
        kill_9(daemon(&lab, "start", "sleep 1000"));
        let status = lab.embedded.status(&id).await.expect("status");
        let to = ("127.0.0.11", status.dns_port.expect("a port"));
        let netns =
            std::fs::File::open(format!("/proc/{}/ns/net", status.shim_pid)).expect("netns");
        // A thread of its own, since a namespace is the thread's. The sockets stay open meanwhile.
        let asked = std::thread::spawn(move || {
            nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
            let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
            udp.send_to(b"query\n", to).expect("send");
            let mut tcp = std::net::TcpStream::connect(to).expect("connect");
            std::io::Write::write_all(&mut tcp, b"query\n").expect("write");
            (udp, tcp)
        });
        let _open = asked.join().expect("asked");
        let dns = lab.reopen().dns_sockets(&id).await.expect("sockets");
        dns.udp.set_nonblocking(true).expect("it is");
        let udp = tokio::net::UdpSocket::from_std(dns.udp).expect("socket");
        let mut buffer = [0u8; 16];
        let (n, from) = udp.recv_from(&mut buffer).await.expect("a query");
        assert_eq!(&buffer[..n], b"query\n");
        assert!(from.ip().is_loopback(), "{from}: it comes from inside");
        let tcp = tokio::net::TcpListener::from_std(dns.tcp).expect("socket");
        let (mut stream, _) = tcp.accept().await.expect("a connection");
        let mut text = [0u8; 6];
        stream.read_exact(&mut text).await.expect("a query");
        assert_eq!(&text, b"query\n");
    });
}
