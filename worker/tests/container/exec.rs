//! Commands in a running container.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_worker::container::{
    ContainerId, Error, ExecConfig, ExecIo, ExecSession, Runtime, Terminal, WindowSize,
};

use crate::lab::{Lab, block_on, eventually};

fn command(args: &[&str]) -> ExecConfig {
    ExecConfig {
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        env: Vec::new(),
        cwd: None,
        terminal: Terminal::No,
        user: String::new(),
        privileged: false,
    }
}

async fn sleeper(lab: &Lab) -> (ContainerId, i32) {
    lab.started(lab.config("a", &["sleep", "1000"])).await
}

/// Feeds the command and collects (code, stdout, stderr).
async fn talk(mut session: ExecSession, input: &str) -> (i32, String, String) {
    let (out, err) = {
        let ExecIo::Pipes { stdin, stdout, stderr } = &mut session.io else { panic!("a terminal") };
        stdin.write_all(input.as_bytes()).await.expect("write");
        let (mut out, mut err) = (String::new(), String::new());
        // End of input: the sender is replaced by one that goes nowhere.
        let (closed, _) = tokio::net::unix::pipe::pipe().expect("pipe");
        drop(std::mem::replace(stdin, closed));
        let (a, b) = tokio::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err));
        a.and(b).expect("read");
        (out, err)
    };
    (session.wait().await.expect("wait"), out, err)
}

#[test]
fn input_output_and_exit_code() {
    let lab = Lab::new("exec");
    block_on(async {
        let (id, _) = sleeper(&lab).await;
        let mut config =
            command(&["sh", "-c", "cat; echo err >&2; echo $A $HOSTNAME $PWD; exit 6"]);
        config.env = vec!["A=1".into()];
        config.cwd = Some("/bin".into());
        let session = lab.embedded.exec(&id, config).await.expect("exec");
        let (code, out, err) = talk(session, "in\n").await;
        let host = &id.as_str()[..12];
        assert_eq!(
            (code, out.as_str(), err.as_str()),
            (6, &*format!("in\n1 {host} /bin\n"), "err\n")
        );
        let session =
            lab.embedded.exec(&id, command(&["sh", "-c", "kill -9 $$"])).await.expect("exec");
        assert_eq!(talk(session, "").await.0, 137);
    });
}

#[test]
fn it_is_confined_as_the_container_is() {
    let lab = Lab::new("execns");
    block_on(async {
        let (id, pid) = sleeper(&lab).await;
        let script = "for n in pid mnt uts ipc net cgroup; do readlink /proc/self/ns/$n; done; \
                      grep -E '^(CapEff|CapBnd|CapInh|NoNewPrivs|Seccomp:|SigIgn)' /proc/self/status; \
                      grep -E '^(CapEff|CapBnd|CapInh|NoNewPrivs|Seccomp:|SigIgn)' /proc/1/status; ls /proc/self/fd; \
                      cat /proc/self/cgroup; echo ---; cat /proc/1/cgroup";
        let session = lab.embedded.exec(&id, command(&["sh", "-c", script])).await.expect("exec");
        let (code, out, err) = talk(session, "").await;
        assert_eq!(code, 0, "{err}");
        let lines: Vec<&str> = out.lines().collect();
        for (n, kind) in ["pid", "mnt", "uts", "ipc", "net", "cgroup"].iter().enumerate() {
            let theirs = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("ns");
            assert_eq!(lines[n], theirs.to_string_lossy(), "{kind}");
        }
        assert_eq!(lines[6..12], lines[12..18], "{out}");
        assert!(lines[6..12].contains(&"Seccomp:\t2"), "{out}");
        // 3 is `ls` reading the directory.
        assert_eq!(lines[18..22], ["0", "1", "2", "3"], "{out}");
        let (own, first) = out.split_once("---\n").expect("both");
        assert!(own.ends_with(first), "{out}");
    });
}

#[test]
fn a_terminal() {
    let lab = Lab::new("tty");
    block_on(async {
        let (id, _) = sleeper(&lab).await;
        let mut config =
            command(&["sh", "-c", "tty; stty size; read a; stty size; echo got $a; exit 4"]);
        config.terminal = Terminal::Yes(WindowSize { rows: 30, columns: 90 });
        let mut session = lab.embedded.exec(&id, config).await.expect("exec");
        let ExecIo::Terminal(pty) = &session.io else { panic!("pipes") };
        let pty = pty.clone();
        let mut text = String::new();
        let mut buffer = [0u8; 1024];
        while !text.contains("30 90") {
            let n = pty.read(&mut buffer).await.expect("read");
            assert_ne!(n, 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        pty.resize(WindowSize { rows: 40, columns: 100 }).expect("resize");
        pty.write_all(b"hello\n").await.expect("write");
        loop {
            let n = pty.read(&mut buffer).await.expect("read");
            if n == 0 {
                break;
            }
            text.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        assert!(text.contains("/dev/pts/0"), "{text}");
        assert!(text.contains("40 100") && text.contains("got hello"), "{text}");
        assert_eq!(session.wait().await.expect("wait"), 4);
    });
}

#[test]
fn control_c_reaches_the_command() {
    let lab = Lab::new("ctrlc");
    block_on(async {
        let (id, _) = sleeper(&lab).await;
        let mut config = command(&["sh", "-c", "echo ready; sleep 1000"]);
        config.terminal = Terminal::Yes(WindowSize { rows: 1, columns: 1 });
        let mut session = lab.embedded.exec(&id, config).await.expect("exec");
        let ExecIo::Terminal(pty) = &session.io else { panic!("pipes") };
        let mut buffer = [0u8; 64];
        assert_ne!(pty.read(&mut buffer).await.expect("read"), 0);
        pty.write_all(&[3]).await.expect("write");
        assert_eq!(session.wait().await.expect("wait"), 130);
    });
}

#[test]
fn what_cannot_run_is_named() {
    let lab = Lab::new("execbad");
    block_on(async {
        let (id, _) = sleeper(&lab).await;
        for (args, code) in [(["nosuch"], 127), (["/no/such"], 127), (["/etc"], 126)] {
            let error = lab.embedded.exec(&id, command(&args)).await.expect_err("must fail");
            assert_eq!(error.exit_code(), code, "{error}");
            assert!(error.to_string().contains(args[0]), "{error}");
        }
        assert!(matches!(lab.embedded.exec(&id, command(&[])).await, Err(Error::NoCommand { .. })));
        let mut config = command(&["true"]);
        config.cwd = Some("/nowhere".into());
        assert!(lab.embedded.exec(&id, config).await.is_err());
        lab.embedded.kill(&id, libc::SIGKILL).await.expect("kill");
        lab.embedded.wait(&id).await.expect("wait");
        assert!(matches!(
            lab.embedded.exec(&id, command(&["true"])).await,
            Err(Error::NotRunning { .. })
        ));
    });
}

#[test]
fn a_dropped_session_takes_its_command_along_and_a_signal_reaches_it() {
    let lab = Lab::new("execdrop");
    block_on(async {
        let (id, first) = sleeper(&lab).await;
        let mut session = lab.embedded.exec(&id, command(&["sleep", "1001"])).await.expect("exec");
        session.kill(libc::SIGTERM).await;
        assert_eq!(session.wait().await.expect("wait"), 143);
        let session = lab.embedded.exec(&id, command(&["sleep", "1002"])).await.expect("exec");
        let inside = || {
            let ns = std::fs::read_link(format!("/proc/{first}/ns/pid")).expect("ns");
            std::fs::read_dir("/proc")
                .expect("proc")
                .flatten()
                .filter(|e| std::fs::read_link(e.path().join("ns/pid")).is_ok_and(|n| n == ns))
                .count()
        };
        assert_eq!(inside(), 2);
        drop(session);
        eventually("the command is gone", || inside() == 1).await;
    });
}

#[test]
fn a_container_cannot_give_a_false_terminal() {
    let lab = Lab::new("falsetty");
    block_on(async {
        let (id, pid) = sleeper(&lab).await;
        let script = "rm -f /dev/ptmx; mknod /dev/ptmx c 1 3 || echo x >/dev/ptmx; ls -l /dev/ptmx";
        let session = lab.embedded.exec(&id, command(&["sh", "-c", script])).await.expect("exec");
        talk(session, "").await;
        let mut config = command(&["tty"]);
        config.terminal = Terminal::Yes(WindowSize { rows: 1, columns: 1 });
        let mut session = lab.embedded.exec(&id, config).await.expect("exec");
        assert_eq!(session.wait().await.expect("wait"), 0, "the path is not what is opened");
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    });
}
