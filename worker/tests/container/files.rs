//! The root file system: layers, our files in /etc, what is hidden, and images that mean harm.

use std::fs;
use std::os::unix::fs::symlink;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use weft_worker::container::{
    Access, BindMount, Embedded, EmbeddedConfig, EtcFile, Image, MissingSource, Phase, Runtime,
    Tmpfs,
};

use crate::lab::{Lab, block_on, helper, make_rootfs};

#[test]
fn every_container_writes_to_a_layer_of_its_own() {
    let lab = Lab::new("layer");
    block_on(async {
        let write = "echo mine >/own; echo changed >/etc/passwd; rm -r /root; echo ok";
        fs::write(lab.rootfs().join("etc/passwd"), "root").expect("write");
        let (_, out, err) = lab.run(lab.shell("a", write)).await;
        assert_eq!((out.as_str(), err.as_str()), ("ok\n", ""));
        let (_, out, _) = lab.run(lab.shell("b", "cat /etc/passwd; ls -d /own /root")).await;
        assert_eq!(out, "root/root\n");
        assert_eq!(fs::read_to_string(lab.rootfs().join("etc/passwd")).expect("read"), "root");
        assert!(!lab.rootfs().join("own").exists() && lab.rootfs().join("root").exists());
        for dir in ["proc", "sys", "dev"] {
            assert!(!lab.rootfs().join(dir).exists(), "{dir} was made in the image");
        }
    });
}

#[test]
fn our_files_are_in_etc_with_the_text_that_was_given() {
    let lab = Lab::new("etc");
    block_on(async {
        let mut config = lab.shell(
            "a",
            "cat /etc/resolv.conf /etc/hosts /etc/hostname; echo more >>/etc/hosts; echo $?",
        );
        config.resolv_conf = "nameserver 127.0.0.11\n".into();
        config.hosts = "127.0.0.1 localhost\n".into();
        config.hostname = "h".into();
        let (_, out, err) = lab.run(config).await;
        assert_eq!(out, "nameserver 127.0.0.11\n127.0.0.1 localhost\nh\n0\n", "{err}");
    });
}

#[test]
fn an_images_links_and_pipes_in_etc_lead_nowhere() {
    let lab = Lab::new("links");
    block_on(async {
        let victim = lab.dir.path().join("victim");
        fs::write(&victim, "untouched").expect("write");
        let bad: [(&str, &dyn Fn(&std::path::Path)); 5] = [
            ("absolute", &|p| symlink(&victim, p).expect("symlink")),
            ("up", &|p| symlink("../../../../../../../../etc/hostname", p).expect("symlink")),
            ("loop", &|p| symlink("resolv.conf", p).expect("symlink")),
            ("dir", &|p| fs::create_dir(p).expect("mkdir")),
            ("fifo", &|p| nix::unistd::mkfifo(p, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo")),
        ];
        for (name, plant) in bad {
            let root = lab.dir.path().join(format!("root-{name}"));
            make_rootfs(&root);
            plant(&root.join("etc/resolv.conf"));
            let mut config = lab.shell(name, "cat /etc/resolv.conf; echo gone >/etc/resolv.conf");
            config.image = Image::Rootfs(root);
            config.resolv_conf = "ours\n".into();
            let (_, out, err) = lab.run(config).await;
            assert_eq!(out, "ours\n", "{name}: {err}");
        }
        // All of /etc, /proc and /dev as links out of the image.
        let root = lab.dir.path().join("root-all");
        make_rootfs(&root);
        fs::remove_dir(root.join("etc")).expect("rmdir");
        for dir in ["etc", "proc", "sys", "dev"] {
            symlink(lab.dir.path(), root.join(dir)).expect("symlink");
        }
        let mut config = lab.shell("all", "cat /etc/resolv.conf /proc/1/comm; ls /dev/null");
        config.image = Image::Rootfs(root);
        config.resolv_conf = "ours\n".into();
        let (_, out, err) = lab.run(config).await;
        assert_eq!(out, "ours\nsh\n/dev/null\n", "{err}");
        assert_eq!(fs::read_to_string(&victim).expect("read"), "untouched");
        assert!(!lab.dir.path().join("null").exists() && !lab.dir.path().join("hosts").exists());
    });
}

#[test]
fn the_hosts_own_files_without_our_keys() {
    let lab = Lab::new("host");
    block_on(async {
        let key = lab.state_dir().join("key");
        fs::write(&key, "secret").expect("write");
        let script = format!(
            "ls -A {0} {1}; cat {0}/key; ls -d /usr /etc; touch /etc/weft-test-{2} && echo wrote",
            lab.state_dir().display(),
            lab.run_dir().display(),
            std::process::id()
        );
        let mut config = lab.config("a", &["/bin/busybox", "sh", "-c", &script]);
        config.image = Image::Rootfs("/".into());
        let (_, out, err) = lab.run(config).await;
        assert!(!out.contains("secret") && !out.contains("containers"), "{out}");
        assert!(err.contains("No such file") || err.contains("can't open"), "{err}");
        assert!(out.contains("/usr") && out.contains("wrote"), "{out} {err}");
        assert!(!std::path::Path::new(&format!("/etc/weft-test-{}", std::process::id())).exists());
        // Also when only a part of the way leads below the image.
        let mut config = lab.config("b", &["sh", "-c", "ls -A /state /run; ls -d /rootfs"]);
        make_rootfs(lab.dir.path());
        config.image = Image::Rootfs(lab.dir.path().into());
        let (_, out, err) = lab.run(config).await;
        assert!(!out.contains("containers") && !out.contains("key"), "{out}");
        assert!(out.contains("/rootfs"), "{out} {err}");
    });
}

#[test]
fn mounts_working_directory_and_environment() {
    let lab = Lab::new("mounts");
    block_on(async {
        let shared = lab.dir.path().join("shared");
        fs::create_dir(&shared).expect("mkdir");
        fs::write(shared.join("f"), "from the host\n").expect("write");
        let script = "cat /in/f; echo x >/in/g; echo ro $?; echo y >/rw/g; echo rw $?; pwd; echo $HOME $HOSTNAME $A; \
                      echo z >/t/x && ls /t; touch /root/x; echo root $?; cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
        let mut config = lab.shell("a", script);
        let mount = |target: &str, access| BindMount {
            source: shared.clone(),
            target: target.into(),
            access,
            missing: MissingSource::Refuse,
        };
        config.mounts = vec![mount("/in", Access::ReadOnly), mount("/rw", Access::ReadWrite)];
        config.tmpfs = vec![Tmpfs::new("/t")];
        config.cwd = "/made/for/me".into();
        config.env = vec!["A=b c".into()];
        config.hostname = "h".into();
        config.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
        let (_, out, err) = lab.run(config).await;
        assert_eq!(
            out, "from the host\nro 1\nrw 0\n/made/for/me\n/root h b c\nx\nroot 0\n0\n",
            "{err}"
        );
        assert_eq!(fs::read_to_string(shared.join("g")).expect("read"), "y\n");
        let mut config = lab.shell("ro", "touch /x; echo $?");
        config.read_only = true;
        assert_eq!(lab.run(config).await.1, "1\n");
    });
}

#[test]
fn our_files_can_be_written_anew_while_it_runs() {
    let lab = Lab::new("rewrite");
    block_on(async {
        let script = "until grep -q new /etc/hosts; do sleep 0.02; done; cat /etc/hosts";
        let mut config = lab.shell("a", script);
        config.hosts = "a longer old text\n".into();
        let (id, _) = lab.started(config).await;
        lab.embedded.write_etc(&id, EtcFile::Hosts, "new\n").await.expect("write");
        assert_eq!(lab.embedded.wait(&id).await.expect("wait").code, 0);
        assert_eq!(lab.output(&id).await.0, "new\n");
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
fn on_an_overlay_the_layer_is_in_memory_and_that_is_said() {
    let lab = Lab::new("nested");
    let at = |name: &str| lab.dir.path().join(name);
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(at(name)).expect("mkdir");
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        at("lower").display(),
        at("upper").display(),
        at("work").display()
    );
    let merged = at("merged");
    mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .expect("overlay");
    let _mounted = Mounted(merged.clone());
    block_on(async {
        let config = EmbeddedConfig {
            helper: helper(),
            ..EmbeddedConfig::new(at("run2"), merged.join("state"))
        };
        let embedded = Embedded::new(config).expect("embedded");
        let config = lab.shell("a", "echo x >/f && cat /f /etc/hostname; exit 3");
        let id = config.id.clone();
        let created = embedded.create(config).await.expect("create");
        assert!(created.missing.iter().any(|m| m.contains("overlay")), "{created:?}");
        let started = embedded.start(&id).await;
        let ended = embedded.status(&id).await;
        let exit = embedded.wait(&id).await;
        embedded.remove(&id).await.expect("remove");
        started.expect("start");
        assert!(matches!(ended, Ok(s) if !matches!(s.phase, Phase::Failed { .. })));
        assert_eq!(exit.expect("wait").code, 3);
    });
}
