//! What a container sees of its flags, how it ends, how often it is started again, and its health.
#![forbid(unsafe_code)]

use std::{fs, os::unix::fs::PermissionsExt as _};

use weft_tests::Lab;

const SOON: u64 = 20;
const SLEEP: &[&str] = &["sleep", "1000000"];

fn inspect(lab: &Lab, name: &str, template: &str) -> Result<String, String> {
    lab.host(1).weft(&["inspect", "--format", template, name]).text()
}

#[test]
fn mounts_users_and_rights() {
    let lab = Lab::alone("inside-rights", 1);
    let shared = lab.dir().join("shared");
    fs::create_dir(&shared).expect("writable");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).expect("it is ours");
    fs::write(shared.join("file"), "from the host\n").expect("writable");
    let shared = shared.display().to_string();
    let (volume, readonly) = (format!("{shared}:/v"), format!("{shared}:/v:ro"));
    let bind = format!("type=bind,source={shared},target=/v,readonly");
    let caps = "grep CapEff /proc/self/status | cut -f2";
    let cases: &[(&[&str], &str, &str)] = &[
        (&["-v", &volume], "cat /v/file; echo x >/v/new; cat /v/new", "from the host\nx"),
        (&["-v", &readonly], "cat /v/new; touch /v/x 2>/dev/null || echo refused", "x\nrefused"),
        (&["--mount", &bind], "touch /v/x 2>/dev/null || echo refused", "refused"),
        (
            &["--tmpfs", "/t:size=1m,mode=1770"],
            "stat -c %a /t; df -k /t | tail -1 | awk '{print $2}'",
            "1770\n1024",
        ),
        (
            &["--mount", "type=tmpfs,target=/t,tmpfs-size=2m"],
            "df -k /t | tail -1 | awk '{print $2}'",
            "2048",
        ),
        (
            &["--read-only", "--tmpfs", "/t"],
            "touch /x 2>/dev/null || echo refused; touch /t/x && echo written",
            "refused\nwritten",
        ),
        (&["-u", "1000:1001"], "id -u; id -g", "1000\n1001"),
        (&["-u", "root"], "id -u", "0"),
        (&["-w", "/made/new"], "pwd", "/made/new"),
        (&["-e", "A=b c", "-e", "EMPTY="], "echo \"$A-$EMPTY-\"", "b c--"),
        (&["-h", "box"], "hostname", "box"),
        (&[], caps, "00000000a80425fb"),
        (&["--cap-drop", "ALL"], caps, "0000000000000000"),
        (&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"], caps, "0000000000001000"),
        (&["--cap-drop", "CHOWN"], "touch /x; chown 1 /x 2>/dev/null || echo refused", "refused"),
        (&["--cap-add", "NET_ADMIN"], "ip link set lo mtu 1000 && echo done", "done"),
        (&[], "ip link set lo mtu 1000 2>/dev/null || echo refused", "refused"),
        (&["--privileged"], "mount -t tmpfs x /tmp && echo mounted", "mounted"),
        (&[], "mount -t tmpfs x /tmp 2>/dev/null || echo refused", "refused"),
        (
            &["--sysctl", "net.ipv4.ip_default_ttl=42"],
            "cat /proc/sys/net/ipv4/ip_default_ttl",
            "42",
        ),
        (
            &["-m", "16m"],
            "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max",
            "16777216",
        ),
        (
            &["--pids-limit", "20"],
            "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max",
            "20",
        ),
    ];
    let mut wrong = Vec::new();
    for (flags, script, wanted) in cases {
        let said = lab.try_run(&[&["--rm"], *flags].concat(), &["sh", "-c", script]);
        if said.text().as_deref() != Ok(*wanted) {
            wrong.push(format!("wanted {wanted:?}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    lab.host(1).has_nothing_left("all of them");
}

#[test]
fn exit_codes_limits_and_an_init() {
    let lab = Lab::alone("inside-ends", 1);
    let host = lab.host(1);
    let codes: &[(&[&str], &[&str], i32)] = &[
        (&[], &["true"], 0),
        (&[], &["sh", "-c", "exit 7"], 7),
        (&[], &["sh", "-c", "kill -9 $$"], 0),
        (&["--init"], &["sh", "-c", "kill -9 $$"], 137),
        (&["--init"], &["sh", "-c", "kill -15 $$"], 143),
        (&["--init"], &["sh", "-c", "exit 9"], 9),
        (&[], &["nowhere"], 127),
        (&[], &["/etc"], 126),
        (&["--entrypoint", "nowhere"], &[], 127),
        (&["-m", "16m"], &["tail", "/dev/zero"], 137),
    ];
    for (flags, command, code) in codes {
        let said = lab.try_run(&[&["--rm"], *flags].concat(), command);
        assert_eq!(said.code, *code, "{said}");
    }
    host.has_nothing_left("runs that ended");
    // The first process reaps what loses its parent, if it is an init.
    let zombies = "sh -c '(sleep 0.1 &)'; sleep 0.5; ps -o stat,comm | grep -c '^Z' || true";
    assert_eq!(lab.try_run(&["--rm", "--init"], &["sh", "-c", zombies]).ok(), "0");
    // A fork bomb stays small.
    let forks = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait";
    assert_ne!(lab.try_run(&["--rm", "--pids-limit", "5"], &["sh", "-c", forks]).code, 0);
    // Out of memory is said.
    lab.run("big", &["-m", "16m"], &["tail", "/dev/zero"]);
    host.comes_to("big", "Exited (137)");
    assert_eq!(
        inspect(&lab, "big", "{{.State.OOMKilled}} {{.State.ExitCode}}"),
        Ok("true 137".into())
    );
    // The code of one that was stopped by its own handler, and by force.
    lab.run("kind", &[], &["sh", "-c", "trap 'exit 3' TERM; while true; do sleep 0.05; done"]);
    lab.run("deaf", &[], SLEEP);
    host.weft(&["stop", "kind"]).ok();
    host.weft(&["stop", "-t", "0", "deaf"]).ok();
    host.comes_to("kind", "Exited (3)");
    host.comes_to("deaf", "Exited (137)");
    assert_eq!(host.weft(&["wait", "kind", "deaf"]).ok(), "3\n137");
}

#[test]
fn restarts_are_counted_and_come_ever_later() {
    let lab = Lab::alone("inside-restarts", 1);
    let host = lab.host(1);
    // Hundredths of a second since the machine was started.
    let note = |code: &str| format!("cut -d' ' -f1 /proc/uptime; exit {code}");
    lab.run("three", &["--restart", "on-failure:3"], &["sh", "-c", &note("5")]);
    lab.run("fine", &["--restart", "on-failure:3"], &["sh", "-c", &note("0")]);
    lab.run("never", &[], &["sh", "-c", &note("5")]);
    lab.run("always", &["--restart", "always"], &["sh", "-c", &note("0")]);
    host.comes_to("fine", "Exited (0)");
    host.comes_to("never", "Exited (5)");
    host.eventually("it gives up after three restarts", SOON, |host| {
        let shown =
            inspect(&lab, "three", "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}")?;
        let starts = host.weft(&["logs", "three"]).text()?.lines().count();
        if (shown.as_str(), starts) == ("3 exited 5", 4) { Ok(()) } else { Err(shown) }
    });
    for (name, count) in [("fine", "0"), ("never", "0")] {
        assert_eq!(inspect(&lab, name, "{{.RestartCount}}").as_deref(), Ok(count), "{name}");
    }
    let starts = host.eventually("it has been started five times", SOON, |host| {
        let logs = host.weft(&["logs", "always"]).text()?;
        let starts: Vec<f64> = logs.lines().map(|line| line.parse().expect("seconds")).collect();
        if starts.len() > 4 { Ok(starts) } else { Err(logs) }
    });
    // 100 ms, then twice as long each time.
    for (nth, pair) in starts.windows(2).enumerate() {
        let least = 0.1 * f64::from(1 << nth) - 0.02;
        assert!(pair[1] - pair[0] >= least, "restart {nth}: {starts:?}");
    }
    // Stopped by hand it stays so; started by hand it counts anew.
    host.weft(&["stop", "-t", "0", "always"]).ok();
    host.comes_to("always", "Exited");
    weft_tests::stays("it stays stopped", std::time::Duration::from_secs(1), || {
        let now = host.status("always")?;
        if now.starts_with("Exited") { Ok(()) } else { Err(now) }
    });
    host.weft(&["start", "three"]).ok();
    host.eventually("it counts anew", SOON, |host| {
        let shown = inspect(&lab, "three", "{{.RestartCount}} {{.State.Status}}")?;
        let starts = host.weft(&["logs", "three"]).text()?.lines().count();
        if (shown.as_str(), starts) == ("3 exited", 8) { Ok(()) } else { Err(shown) }
    });
}

#[test]
fn health_is_checked_and_shown() {
    let lab = Lab::alone("inside-health", 1);
    let host = lab.host(1);
    let flags = [
        "--health-cmd",
        "echo checked; test -e /tmp/well",
        "--health-interval",
        "200ms",
        "--health-retries",
        "2",
    ];
    let web = lab.run("web", &flags, SLEEP);
    let slow = ["--health-cmd", "true", "--health-interval", "1h"];
    lab.run("slow", &slow, SLEEP);
    let health = |name: &str, wanted: &str| {
        host.eventually(&format!("{name} is {wanted}"), SOON, |host| {
            let listed = host.status(name)?;
            let shown = inspect(&lab, name, "{{.State.Health.Status}}")?;
            let said = if wanted == "starting" { "(health: starting)" } else { wanted };
            if shown == wanted && listed.contains(said) {
                Ok(())
            } else {
                Err(format!("{shown}: {listed}"))
            }
        });
    };
    health("slow", "starting");
    health("web", "unhealthy");
    let log = inspect(&lab, "web", "{{json .State.Health}}").expect("health");
    assert!(log.contains("checked") && log.contains("\"ExitCode\":1"), "{log}");
    web.sh("touch /tmp/well").ok();
    health("web", "healthy");
    assert_eq!(inspect(&lab, "web", "{{.State.Health.FailingStreak}}"), Ok("0".into()));
    // It goes on after the daemon's death, from what it was.
    host.restart();
    health("web", "healthy");
    web.sh("rm /tmp/well").ok();
    health("web", "unhealthy");
    // Time in which failures do not count.
    let flags = [
        "--health-cmd",
        "false",
        "--health-interval",
        "100ms",
        "--health-retries",
        "1",
        "--health-start-period",
        "1h",
    ];
    lab.run("young", &flags, SLEEP);
    host.eventually("it has been checked a few times", SOON, |_| {
        let log = inspect(&lab, "young", "{{len .State.Health.Log}}")?;
        if log.parse::<u32>().is_ok_and(|count| count >= 3) { Ok(()) } else { Err(log) }
    });
    health("young", "starting");
    host.weft(&["rm", "-f", "web", "slow", "young"]).ok();
    host.has_nothing_left("all of them");
}
