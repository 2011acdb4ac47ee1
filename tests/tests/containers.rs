//! Containers as their user meets them: `exec`, `logs`, `ps`, `inspect`, `stop`, `kill`, and what a
//! container may and may not do.
#![forbid(unsafe_code)]

use weft_tests::Lab;

#[test]
fn exec_gives_everything_that_was_said_and_the_exit_code() {
    let lab = Lab::cluster("exec", 1, 0);
    lab.network("shop", "10.20.0.0/24");
    lab.service("web", &["--network", "shop"], &["sleep", "1000000"]);
    let web = lab.host(1).container("web");
    for round in 0..60 {
        assert_eq!(web.sh("echo said").ok(), "said", "round {round}");
    }
    // More than a pipe holds at once, in order.
    let long = web.sh("seq 1 100000").ok();
    assert_eq!(long.lines().count(), 100_000);
    assert_eq!(long.lines().last(), Some("100000"));
    let both = web.sh("echo out; echo err >&2; exit 42");
    assert_eq!((both.code, both.stdout.as_str(), both.stderr.as_str()), (42, "out\n", "err\n"));
    assert_eq!(web.exec(&["/nothing/here"]).code, 127);
    assert_eq!(web.exec(&["/etc"]).code, 126);
    assert_eq!(lab.host(1).weft(&["exec", "nobody", "true"]).code, 125);
    assert_eq!(
        lab.host(1).sh(&format!("echo typed | {} exec -i {} cat", weft(), web.id())).ok(),
        "typed"
    );
}

fn weft() -> String {
    weft_tests::weft_binary().display().to_string()
}

#[test]
fn logs_ps_inspect_stop_and_kill_work_on_a_nodes_containers() {
    let lab = Lab::cluster("containers", 1, 0);
    let host = lab.host(1);
    lab.network("shop", "10.20.0.0/24");
    let script = "echo to out; echo to err >&2; env; trap 'echo asked; exit 3' TERM; \
                  while :; do sleep 0.1; done";
    lab.service(
        "web",
        &[
            "--network",
            "shop",
            "--env",
            "COLOUR=blue",
            "--hostname",
            "front",
            "--restart-condition",
            "none",
            "--label",
            "tier=one",
        ],
        &["sh", "-c", script],
    );
    let web = host.container("web");
    let logs = host.weft(&["logs", web.id()]);
    assert!(logs.stdout.contains("to out\n") && logs.stdout.contains("COLOUR=blue\n"), "{logs}");
    assert_eq!(logs.stderr, "to err\n");
    let last = host.weft(&["logs", "--tail", "1", web.id()]);
    assert_eq!((last.stdout.clone() + &last.stderr).lines().count(), 1, "{last}");
    assert_eq!(web.exec(&["hostname"]).ok(), "front");
    assert!(web.sh("cat /etc/hosts").ok().contains("front"));
    let shown = &host.weft(&["inspect", web.id()]).json()[0];
    assert_eq!(shown["State"]["Running"], true);
    assert_eq!(shown["Config"]["Hostname"], "front");
    let address = web.sh("ip -4 -o addr show eth0").ok();
    let told = shown["NetworkSettings"]["Networks"]["shop"]["IPAddress"].as_str().expect("address");
    assert!(address.contains(&format!("{told}/24")), "{address}");
    let pid = shown["State"]["Pid"].as_u64().expect("pid");
    assert!(host.sh(&format!("readlink /proc/{pid}/ns/net")).ok().starts_with("net:["));
    let list = host.weft(&["ps", "--format", "{{.ID}} {{.Names}} {{.Status}}"]).ok();
    assert!(list.contains("web.1") && list.contains("Up"), "{list}");
    assert_eq!(host.weft(&["ps", "-q", "--filter", "network=none-such"]).ok(), "");

    // Stopped, with time for its own ending, it is shown with its exit code.
    host.weft(&["stop", web.id()]).ok();
    host.eventually("it has ended with its own code", 5, |host| {
        let list = host.weft(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"]).text()?;
        if list.contains("Exited (3)") { Ok(()) } else { Err(list) }
    });
    assert!(host.weft(&["logs", web.id()]).stdout.contains("asked\n"));
    lab.service(
        "other",
        &["--network", "shop", "--restart-condition", "none"],
        &["sleep", "1000000"],
    );
    let other = host.container("other");
    host.weft(&["kill", other.id()]).ok();
    host.eventually("it is killed", 5, |host| {
        let list = host.weft(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"]).text()?;
        if list.contains("Exited (137)") { Ok(()) } else { Err(list) }
    });
    let logs = host.weft(&["service", "logs", "web"]).ok();
    assert!(logs.contains("to out"), "{logs}");
}

#[test]
fn a_container_is_confined_and_the_hosts_keys_are_masked() {
    let lab = Lab::cluster("confined", 1, 0);
    let host = lab.host(1);
    lab.network("shop", "10.20.0.0/24");
    // The host's own files as the image: everything is there, but for what holds keys.
    let flags = [
        "service",
        "create",
        "--name",
        "host",
        "--network",
        "shop",
        "rootfs:/",
        "sleep",
        "1000000",
    ];
    host.weft(&flags).ok();
    let c = host.container("host");
    for dir in [host.state_dir(), host.run_dir()] {
        let seen = c.sh(&format!("ls -A {} 2>/dev/null | wc -l", dir.display())).ok();
        assert_eq!(seen, "0", "{} is to be seen in a container", dir.display());
    }
    assert!(host.sh(&format!("ls -A {} | wc -l", host.state_dir().display())).ok() != "0");
    // A layer of its own: what it writes is not on the host.
    c.sh(&format!("echo mine > {}/probe", lab.dir().display())).ok();
    assert!(!lab.dir().join("probe").exists());
    let status = c.sh("grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status").ok();
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    assert_ne!(c.sh("mount -t tmpfs none /mnt").code, 0);
    assert_ne!(c.sh("unshare -U true").code, 0);
    assert_eq!(c.sh("cat /proc/1/cmdline | tr '\\0' ' '").ok(), "sleep 1000000");
    // Unprivileged ports and ping, as in Docker.
    assert_eq!(c.sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start").ok(), "0");
    let range = c.sh("cat /proc/sys/net/ipv4/ping_group_range").ok();
    assert!(range.starts_with('0') && !range.ends_with("\t0"), "{range}");
    for kind in ["net", "mnt", "pid", "uts", "ipc"] {
        let link = format!("readlink /proc/self/ns/{kind}");
        assert_ne!(c.sh(&link).ok(), host.sh(&link).ok(), "{kind}");
    }
}
