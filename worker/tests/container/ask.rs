//! What `run` may ask for: users, privileges, an init, limits, mounts.

use std::fs;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use weft_worker::container::{
    Access, BindMount, ContainerConfig, Error, ExecConfig, ExecIo, MissingSource, NetNamespace,
    Runtime, Terminal, Tmpfs, Ulimit,
};

use crate::lab::{Lab, block_on, eventually};

fn with_users(lab: &Lab) {
    let etc = lab.rootfs().join("etc");
    let passwd = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34::/var/www:/bin/sh\n";
    fs::write(etc.join("passwd"), passwd).expect("write");
    fs::write(etc.join("group"), "root:x:0:\nweb:x:34:\nmail:x:12:www\n").expect("write");
}

#[test]
fn a_user_is_looked_up_in_the_container() {
    let lab = Lab::new("user");
    with_users(&lab);
    block_on(async {
        let script =
            "id; echo $HOME; grep -E '^Cap(Eff|Prm)' /proc/self/status; echo out >/dev/stdout";
        for (n, (user, said, home)) in [
            ("www", "uid=33(www) gid=34(web) groups=12(mail),34(web)", "/var/www"),
            ("33:12", "uid=33(www) gid=12(mail) groups=12(mail)", "/var/www"),
            ("4000", "uid=4000 gid=0(root) groups=0(root)", "/"),
        ]
        .into_iter()
        .enumerate()
        {
            let mut config = lab.shell(&n.to_string(), script);
            config.user = user.into();
            let (_, out, err) = lab.run(config).await;
            let want = format!(
                "{said}\n{home}\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nout\n"
            );
            assert_eq!(out, want, "{user}: {err}");
        }
        let mut config = lab.shell("bad", "true");
        config.user = "nosuch".into();
        let id = config.id.clone();
        lab.embedded.create(config).await.expect("create");
        let error = lab.embedded.start(&id).await.expect_err("nobody");
        assert_eq!(error.exit_code(), 126, "{error}");
        let words = "unable to find user nosuch: no matching entries in passwd file";
        assert!(error.to_string().contains(words), "{error}");
    });
}

/// Runs a command in the container and returns what it says.
async fn exec(
    lab: &Lab,
    config: &ContainerConfig,
    user: &str,
    script: &str,
) -> Result<String, Error> {
    let exec = ExecConfig {
        args: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: Vec::new(),
        cwd: None,
        terminal: Terminal::No,
        user: user.into(),
        privileged: false,
    };
    let mut session = lab.embedded.exec(&config.id, exec).await?;
    let ExecIo::Pipes { stdout, .. } = &mut session.io else { panic!("a terminal") };
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(stdout, &mut text).await.expect("read");
    session.wait().await.expect("wait");
    Ok(text)
}

#[test]
fn an_exec_has_the_containers_user_or_its_own() {
    let lab = Lab::new("execuser");
    with_users(&lab);
    block_on(async {
        let mut config = lab.config("a", &["sleep", "1000"]);
        config.user = "www".into();
        config.ulimits = vec![Ulimit { name: "nofile".into(), soft: 100, hard: 200 }];
        lab.started(config.clone()).await;
        let script = "id -u; echo $HOME; ulimit -n; echo x >/dev/stdout";
        assert_eq!(exec(&lab, &config, "", script).await.expect("own"), "33\n/var/www\n100\nx\n");
        assert_eq!(exec(&lab, &config, "0", script).await.expect("root"), "0\n/root\n100\nx\n");
        let error = exec(&lab, &config, "nosuch", script).await.expect_err("nobody");
        assert_eq!(error.exit_code(), 126, "{error}");
        let mut privileged = ExecConfig {
            args: vec!["true".into()],
            env: Vec::new(),
            cwd: None,
            terminal: Terminal::No,
            user: String::new(),
            privileged: true,
        };
        let refused = lab.embedded.exec(&config.id, privileged.clone()).await;
        assert!(matches!(refused, Err(Error::PrivilegedExec { .. })));
        privileged.privileged = false;
        assert!(lab.embedded.exec(&config.id, privileged).await.is_ok());
    });
}

#[test]
fn a_privileged_container_may_do_all() {
    let lab = Lab::new("priv");
    block_on(async {
        let script = "grep -E '^(CapEff|CapBnd|Seccomp:|NoNewPrivs)' /proc/self/status; \
                      mount -t tmpfs x /tmp && echo mounted; test -w /proc/sys/kernel/hostname && echo sys; \
                      grep -c ' /proc/sys ' /proc/self/mountinfo; grep ' /sys ' /proc/self/mountinfo; \
                      mknod /root/n c 1 3 && echo x >/root/n && echo device";
        let mut config = lab.shell("a", script);
        config.privileged = true;
        let (_, out, err) = lab.run(config).await;
        let own = fs::read_to_string("/proc/self/status").expect("status");
        let own = own.lines().find(|l| l.starts_with("CapBnd")).expect("CapBnd");
        let own = own.split_once('\t').expect("value").1;
        assert!(out.starts_with(&format!("CapEff:\t{own}\nCapBnd:\t{own}\n")), "{out} {err}");
        assert!(out.contains("NoNewPrivs:\t0\nSeccomp:\t0\nmounted\nsys\n0\n"), "{out} {err}");
        assert!(out.contains(" / /sys rw,"), "{out}");
        assert!(out.ends_with("device\n"), "{out} {err}");
    });
}

#[test]
fn an_init_reaps_and_passes_signals_on() {
    let lab = Lab::new("init");
    block_on(async {
        let script = "cat /proc/1/comm; echo $$; trap 'exit 7' USR1; (sleep 0.01 &); echo ready; \
                      while :; do sleep 0.02; done";
        let mut config = lab.shell("a", script);
        config.init = true;
        let (id, pid) = lab.started(config).await;
        let log = lab.state_dir().join("containers").join(id.as_str()).join("log");
        eventually("it has spoken", || {
            fs::read(&log).is_ok_and(|text| text.windows(5).any(|w| w == b"ready"))
        })
        .await;
        // The orphan is nobody's child but the first process's.
        let children = format!("/proc/{pid}/task/{pid}/children");
        eventually("the orphan is reaped", || {
            fs::read_to_string(&children).is_ok_and(|c| c.split_whitespace().count() == 1)
        })
        .await;
        let refused = fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/exe"));
        let written = refused.and_then(|mut file| std::io::Write::write(&mut file, b"x"));
        assert!(written.is_err(), "its program takes no writes");
        lab.embedded.kill(&id, libc::SIGUSR1).await.expect("kill");
        assert_eq!(lab.embedded.wait(&id).await.expect("wait").code, 7);
        let (out, _) = lab.output(&id).await;
        assert!(out.starts_with("weft-init\n2\n") || out.contains("\n2\n"), "{out}");
        for (n, (args, code)) in
            [(&["nosuch"][..], 127), (&["sh", "-c", "kill -9 $$"][..], 137), (&["false"][..], 1)]
                .into_iter()
                .enumerate()
        {
            let mut config = lab.config(&n.to_string(), args);
            config.init = true;
            let id = config.id.clone();
            lab.embedded.create(config).await.expect("create");
            let started = lab.embedded.start(&id).await;
            assert_eq!(started.is_err(), code == 127, "{started:?}");
            assert_eq!(lab.embedded.wait(&id).await.expect("wait").code, code, "{args:?}");
        }
    });
}

#[test]
fn memory_file_systems_and_limits_are_as_asked() {
    let lab = Lab::new("tmpfs");
    block_on(async {
        let mut config =
            lab.shell("a", "grep ' /t ' /proc/mounts; ls -ld /t; ulimit -n; ulimit -Hn");
        config.tmpfs = vec![Tmpfs::parse("/t:size=64k,mode=0700,exec").expect("good")];
        config.ulimits = vec![Ulimit { name: "nofile".into(), soft: 100, hard: 200 }];
        let (_, out, err) = lab.run(config).await;
        assert!(out.contains("size=64k,mode=700") && out.contains("nosuid"), "{out} {err}");
        assert!(!out.contains("noexec") && out.contains("drwx------"), "{out} {err}");
        assert!(out.ends_with("\n100\n200\n"), "{out} {err}");
        let mut config = lab.shell("b", "true");
        config.ulimits = vec![Ulimit { name: "nofile".into(), soft: 2, hard: 1 }];
        let refused = lab.embedded.create(config).await;
        assert!(matches!(refused, Err(Error::BadUlimit { .. })));
        lab.embedded.remove(&lab.id("a")).await.expect("remove");
        lab.assert_nothing_left();
    });
}

/// A mount that goes with the test.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).expect("umount");
    }
}

#[test]
fn bind_mounts_of_files_of_what_is_not_there_and_read_only_to_the_bottom() {
    let lab = Lab::new("bind");
    let at = |name: &str| lab.dir.path().join(name);
    fs::create_dir_all(at("outer/inner")).expect("mkdir");
    let none = None::<&str>;
    mount(Some("tmpfs"), &at("outer/inner"), Some("tmpfs"), MsFlags::empty(), none).expect("tmpfs");
    let mounted = Mounted(at("outer/inner"));
    fs::write(at("file"), "text\n").expect("write");
    block_on(async {
        let bind = |source: &str, target: &str, access, missing| BindMount {
            source: at(source),
            target: target.into(),
            access,
            missing,
        };
        let mut config =
            lab.shell("a", "cat /f; touch /ro/x /ro/inner/x; echo $?; touch /new/x; echo $?");
        config.mounts = vec![
            bind("file", "/f", Access::ReadOnly, MissingSource::Refuse),
            bind("outer", "/ro", Access::ReadOnly, MissingSource::Refuse),
            bind("made/deep", "/new", Access::ReadWrite, MissingSource::MakeDirectory),
        ];
        let (_, out, err) = lab.run(config).await;
        assert_eq!(out, "text\n1\n0\n", "{err}");
        assert_eq!(err.matches("Read-only file system").count(), 2, "{err}");
        assert!(at("made/deep/x").exists() && !at("outer/inner/x").exists());
        let mut config = lab.shell("b", "true");
        config.mounts = vec![bind("nowhere", "/x", Access::ReadWrite, MissingSource::Refuse)];
        let error = lab.embedded.create(config).await.expect_err("refused");
        let words = "invalid mount config for type \"bind\": bind source path does not exist: ";
        assert_eq!(error.to_string(), format!("{words}{}", at("nowhere").display()));
        lab.embedded.remove(&lab.id("a")).await.expect("remove");
        drop(mounted);
        lab.assert_nothing_left();
    });
}

#[test]
fn a_joined_namespace_lives_as_long_as_whoever_joined() {
    let lab = Lab::new("join");
    block_on(async {
        let owner = lab.config("owner", &["sleep", "1000"]);
        let created = lab.embedded.create(owner).await.expect("create");
        let owner = lab.id("owner");
        lab.embedded.start(&owner).await.expect("start");
        let name = fs::read_link(&created.netns).expect("netns");
        let script =
            "until test -e /go; do sleep 0.02; done; readlink /proc/self/ns/net; ifconfig lo";
        let mut config = lab.shell("a", script);
        config.network = NetNamespace::Join(created.netns);
        let (id, pid) = lab.started(config).await;
        lab.embedded.remove(&owner).await.expect("remove");
        fs::write(format!("/proc/{pid}/root/go"), "").expect("touch");
        assert_eq!(lab.embedded.wait(&id).await.expect("wait").code, 0);
        let (out, _) = lab.output(&id).await;
        assert!(out.starts_with(&*name.to_string_lossy()) && out.contains("127.0.0.1"), "{out}");
        // Also for one that only waits to be started.
        let shim = lab.embedded.status(&id).await.expect("status").shim_pid;
        assert_eq!(fs::read_link(format!("/proc/{shim}/ns/net")).expect("netns"), name);
    });
}
